//! The proxy core without sockets, table or clock: contexts made by hand, messages as text.

mod cancelling;
mod failing;
mod forking;
mod forward;
mod house;
mod identity;
mod passing;
mod route;
mod target;
mod texts;
mod validate;

use super::context::{Branches, Client, Context, Needed, Origin, Server, Step, Steps};
use crate::message::Method;
use crate::timer::{Lengths, Tick};
use crate::transport::{Flow, Transport};

pub const NOW: Tick = Tick(1_000_000);

/// What leaves the proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Out {
    Request(u8),
    Ack(u8),
    Cancel(u8),
    /// Upstream, made by us.
    Own(u16),
    /// Upstream, as it came from downstream.
    Up(u16),
}

use Out::{Own, Up};

/// Branches in a `Vec`; each target has so many further addresses.
#[derive(Default)]
pub struct Row {
    clients: Vec<Client>,
    further: Vec<usize>,
}

impl Branches for Row {
    fn count(&self) -> usize {
        self.clients.len()
    }

    fn client(&mut self, n: usize) -> Option<&mut Client> {
        self.clients.get_mut(n)
    }

    fn next_try(&mut self, failed: usize) -> Option<usize> {
        let left = self.further[failed].checked_sub(1)?;
        self.clients.push(Client { flow: self.clients[failed].flow, ..Client::default() });
        self.further.push(left);
        Some(self.clients.len() - 1)
    }
}

/// One context over time, with the texts that a store would keep for it: a step that wants a text given back too early is an
/// error of the test that meets it.
pub struct Call {
    pub server: Server,
    pub row: Row,
    pub now: Tick,
    pub lengths: Lengths,
    request: bool,
    best: Option<u16>,
    last: Option<u16>,
}

impl Call {
    /// A request that came over `from` and goes to one target over each of `to`.
    pub fn new(from: Transport, to: &[Transport]) -> Call {
        let flow = |transport: Transport| Flow { transport: transport as u8, ..Flow::default() };
        Call {
            server: Server { flow: flow(from), ..Server::default() },
            row: Row {
                clients: to.iter().map(|to| Client { flow: flow(*to), ..Client::default() }).collect(),
                further: vec![0; to.len()],
            },
            now: NOW,
            lengths: Lengths::default(),
            request: true,
            best: None,
            last: None,
        }
    }

    /// Over UDP to so many targets, started.
    pub fn invite(targets: usize) -> Call {
        Call::new(Transport::Udp, &vec![Transport::Udp; targets]).started(Method::Invite)
    }

    /// The same with another method.
    pub fn message(targets: usize) -> Call {
        Call::new(Transport::Udp, &vec![Transport::Udp; targets]).started(Method::Other)
    }

    pub fn started(mut self, method: Method) -> Call {
        self.start(method);
        self
    }

    /// Gives target n further addresses.
    pub fn further(mut self, n: usize, addresses: usize) -> Call {
        self.row.further[n] = addresses;
        self
    }

    /// The moment this many milliseconds after the beginning, without looking at any timer.
    pub fn jump(&mut self, ms: u64) {
        self.now = NOW + ms;
    }

    pub fn start(&mut self, method: Method) -> Vec<Out> {
        self.event(Some(0), |context| context.start(method))
    }

    pub fn repeated(&mut self) -> Vec<Out> {
        self.event(Some(0), |context| context.repeated())
    }

    pub fn ack(&mut self) -> bool {
        let mut pass = false;
        assert_eq!(self.event(Some(0), |context| pass = context.ack()), []);
        pass
    }

    pub fn cancel(&mut self) -> Vec<Out> {
        self.event(None, |context| context.cancel())
    }

    pub fn lost(&mut self, n: usize) -> Vec<Out> {
        self.event(None, |context| context.transport_error(n))
    }

    /// SCTP gave branch n's request up; the configuration allows so many retries.
    pub fn undelivered(&mut self, n: usize, retries: u8) -> Vec<Out> {
        self.event(None, |context| {
            context.undelivered(n, retries, 1);
        })
    }

    /// A response of branch n to the request itself.
    pub fn response(&mut self, n: usize, code: u16) -> Vec<Out> {
        let method = if self.server.is_invite() { Method::Invite } else { Method::Other };
        self.event(Some(code), |context| context.response(n, method, code))
    }

    pub fn response_to_cancel(&mut self, n: usize, code: u16) -> Vec<Out> {
        self.event(Some(code), |context| context.response(n, Method::Cancel, code))
    }

    /// Looks at the context whenever it asks for it, up to `ms` after the beginning: what was sent, and how long after it.
    pub fn until(&mut self, ms: u64) -> Vec<(u64, Out)> {
        let mut sent = Vec::new();
        let mut looks = 0;
        loop {
            let deadline = self.ask(|context| context.deadline());
            if deadline > NOW + ms {
                self.now = NOW + ms;
                return sent;
            }
            looks += 1;
            assert!(looks < 1_000, "a deadline that does not pass: {deadline:?}");
            self.now = self.now.max(deadline);
            let at = self.now - NOW;
            let at = u64::try_from(at.as_millis()).unwrap();
            sent.extend(self.event(None, |context| context.timers()).into_iter().map(|out| (at, out)));
        }
    }

    pub fn is_finished(&mut self) -> bool {
        self.ask(|context| context.is_finished())
    }

    pub fn needed(&mut self) -> Needed {
        self.ask(|context| context.needed())
    }

    fn ask<R>(&mut self, question: impl FnOnce(&mut Context<'_, Row>) -> R) -> R {
        let Call { server, row, now, lengths, .. } = self;
        question(&mut Context { server, branches: row, now: *now, lengths, steps: &mut Steps::new() })
    }

    /// `at_hand`: 0 for the request, or the code of the response.
    fn event(&mut self, at_hand: Option<u16>, event: impl FnOnce(&mut Context<'_, Row>)) -> Vec<Out> {
        let mut steps = Steps::new();
        let Call { server, row, now, lengths, .. } = self;
        let mut context = Context { server, branches: row, now: *now, lengths, steps: &mut steps };
        event(&mut context);
        let needed = context.needed();
        assert!(steps.remaining_capacity() > 0, "no step may be lost");
        let out = steps.iter().filter_map(|step| self.carry_out(*step, at_hand)).collect();
        if !needed.request {
            self.request = false;
        }
        if !needed.best {
            self.best = None;
        }
        if !needed.last {
            self.last = None;
        }
        out
    }

    fn carry_out(&mut self, step: Step, at_hand: Option<u16>) -> Option<Out> {
        let response = at_hand.filter(|code| *code != 0);
        if matches!(step, Step::Request(_) | Step::Ack(_) | Step::Cancel(_) | Step::Reply(_) | Step::ReplyAgain(_)) {
            assert!(self.request || at_hand == Some(0), "{step:?}: the request was given back");
        }
        match step {
            Step::Request(n) => Some(Out::Request(n)),
            Step::Ack(n) => Some(Out::Ack(n)),
            Step::Cancel(n) => Some(Out::Cancel(n)),
            Step::Reply(code) | Step::ReplyAgain(code) => Some(Own(code)),
            Step::Relay => Some(Up(response.expect("a response at hand"))),
            Step::RelayBest => Some(Up(self.best.or(self.last).expect("the best response was given back"))),
            Step::RelayLast => {
                assert_ne!(self.server.last_origin, Origin::Own as u8);
                Some(Up(self.last.expect("the last response was given back")))
            }
            Step::KeepBest => {
                self.best = Some(response.expect("a response at hand"));
                None
            }
            Step::KeepLast => {
                self.last = Some(response.expect("a response at hand"));
                None
            }
            Step::KeepBestAsLast => {
                self.last = self.best.take();
                None
            }
        }
    }
}
