//! One user agent, caller and callee at once (RFC 3261 §8, §13, §15), with the transactions it needs (§17).
//!
//! Owns: the state of its calls and registrations. Pure: a message, an order or a time comes in, a short list of steps goes out; it
//! never sees a socket and never reads a clock. Everything it sends goes to its proxy (an outbound proxy, §8.1.2).
//!
//! What ends is known by `Call-ID` alone: an agent has one dialog, or one registration, per Call-ID.

mod callee;
mod caller;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::compose::Identity;
use crate::message::{self, Start};

/// Names a call or a registration: the value of its Call-ID header.
pub type CallId = Arc<[u8]>;

/// How a phone behaves. The defaults are those of RFC 3261 table 4, an answer at once and a hang-up at once.
#[derive(Clone, Copy, Debug)]
pub struct Manner {
    /// First retransmission over UDP (timers A, E, G) and of a 2xx (§13.3.1.4).
    pub t1: Duration,
    /// Longest interval between two retransmissions.
    pub t2: Duration,
    /// A callee rings this long.
    pub ring: Duration,
    /// A caller hangs up this long after the answer.
    pub talk: Duration,
    /// What has had no final response by then has failed. RFC 3261: 64 × T1.
    pub patience: Duration,
}

impl Default for Manner {
    fn default() -> Manner {
        Manner {
            t1: Duration::from_millis(500),
            t2: Duration::from_secs(4),
            ring: Duration::ZERO,
            talk: Duration::ZERO,
            patience: Duration::from_secs(32),
        }
    }
}

/// What the world has to do for an agent, or hear from it.
#[derive(Debug)]
pub enum Step {
    /// To the proxy, over the agent's line.
    Send(Vec<u8>),
    /// Call `Agent::due` for this call at this time. One that comes too late or for nothing does no harm.
    Wake { at: Instant, call: CallId },
    /// The answer to `Agent::register`.
    Registered(Result<(), Failure>),
    /// The call this agent placed was answered, this long after its INVITE.
    Answered { call: CallId, after: Duration },
    /// The call this agent placed is over. Comes once for every call.
    Ended { call: CallId, how: Result<(), Failure> },
    /// A call that this agent answered was never acknowledged (§13.3.1.4).
    Unacknowledged { call: CallId },
}

/// Why a call or a registration came to nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Failure {
    /// A final response other than 2xx.
    Refused(u16),
    /// No final response in time, to this.
    Silence(&'static str),
    /// A 2xx without a Contact to acknowledge it to.
    Malformed,
    /// The connection or association was lost.
    LineLost,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Refused(code) => write!(f, "{code} {}", message::reason_phrase(*code)),
            Failure::Silence(method) => write!(f, "no answer to {method} in time"),
            Failure::Malformed => f.write_str("a 200 without Contact"),
            Failure::LineLost => f.write_str("connection lost"),
        }
    }
}

/// One user agent.
#[derive(Debug)]
pub struct Agent {
    pub me: Identity,
    manner: Manner,
    /// Makes Call-IDs, tags and branches.
    serial: u64,
    affairs: HashMap<CallId, Affair>,
    /// Messages sent again, by timer or because the peer repeated its own.
    pub retransmitted: u64,
    /// Messages that were no SIP.
    pub unreadable: u64,
}

/// A call or registration, whatever it waits for.
#[derive(Debug)]
struct Affair {
    state: State,
    repeat: Option<Repeat>,
    /// When the state ends by itself.
    deadline: Option<Instant>,
    /// The earliest `Step::Wake` that is still to come.
    armed: Option<Instant>,
}

#[derive(Debug)]
enum State {
    Registering(caller::Registering),
    Placed(caller::Placed),
    Taken(callee::Taken),
}

/// A message that is sent again until it was heard: timers A, E and G, and the 2xx of §13.3.1.4.
#[derive(Debug)]
struct Repeat {
    message: Vec<u8>,
    next: Instant,
    interval: Duration,
    longest: Duration,
}

/// Whether an affair goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    Keep,
    Forget,
}

impl Agent {
    #[must_use]
    pub fn new(me: Identity, manner: Manner) -> Agent {
        Agent { me, manner, serial: 0, affairs: HashMap::new(), retransmitted: 0, unreadable: 0 }
    }

    /// A message came in over the agent's line.
    pub fn receive(&mut self, bytes: &[u8], now: Instant, steps: &mut Vec<Step>) {
        let Ok(m) = message::scan(bytes) else {
            self.unreadable += 1;
            return;
        };
        match m.start {
            Start::Request { method, .. } => self.asked(&m, method, now, steps),
            Start::Response { code, .. } => self.told(&m, code, now, steps),
        }
    }

    /// The time of a `Step::Wake` has come. What is due is read from the state, so a stale alarm changes nothing.
    pub fn due(&mut self, call: &[u8], now: Instant, steps: &mut Vec<Step>) {
        self.with(call, steps, |agent, call, affair, steps| {
            affair.armed = affair.armed.filter(|&at| at > now);
            if affair.deadline.is_some_and(|at| at <= now) {
                affair.deadline = None;
                return match &affair.state {
                    State::Registering(_) => {
                        steps.push(Step::Registered(Err(Failure::Silence("REGISTER"))));
                        Then::Forget
                    }
                    State::Placed(_) => agent.placed_expired(call, affair, now, steps),
                    State::Taken(_) => agent.taken_expired(call, affair, now, steps),
                };
            }
            if let Some(message) = affair.repeat.as_mut().and_then(|repeat| repeat.due(now)) {
                agent.retransmitted += 1;
                steps.push(Step::Send(message));
            }
            Then::Keep
        });
    }

    /// The line is gone: over TCP or SCTP whatever was waiting for an answer has failed (RFC 3261 §17.1.4).
    pub fn line_lost(&mut self, steps: &mut Vec<Step>) {
        for (call, affair) in self.affairs.drain() {
            match affair.state {
                State::Registering(_) => steps.push(Step::Registered(Err(Failure::LineLost))),
                State::Placed(placed) => placed.end(call, Err(Failure::LineLost), steps),
                State::Taken(_) => {}
            }
        }
    }

    /// Takes the affair out of the map while `f` changes it; puts it back, with an alarm for what is due next.
    fn with<F>(&mut self, call: &[u8], steps: &mut Vec<Step>, f: F) -> bool
    where
        F: FnOnce(&mut Agent, &CallId, &mut Affair, &mut Vec<Step>) -> Then,
    {
        let Some((call, mut affair)) = self.affairs.remove_entry(call) else { return false };
        if f(self, &call, &mut affair, steps) == Then::Keep {
            self.keep(call, affair, steps);
        }
        true
    }

    fn keep(&mut self, call: CallId, mut affair: Affair, steps: &mut Vec<Step>) {
        let due = [affair.deadline, affair.repeat.as_ref().map(|repeat| repeat.next)].into_iter().flatten().min();
        if let Some(at) = due
            && affair.armed.is_none_or(|armed| at < armed)
        {
            affair.armed = Some(at);
            steps.push(Step::Wake { at, call: call.clone() });
        }
        self.affairs.insert(call, affair);
    }

    fn next_serial(&mut self) -> u64 {
        self.serial += 1;
        self.serial
    }

    fn is_reliable(&self) -> bool {
        self.me.transport.is_reliable()
    }

    /// 64 × T1: timers B, D, F, H, J, L.
    fn long(&self) -> Duration {
        self.manner.t1 * 64
    }

    /// Timer A: doubles without end. Only over UDP (RFC 3261 §17.1.1.2).
    fn repeat_invite(&self, message: &[u8], now: Instant) -> Option<Repeat> {
        self.repeat(message, now, Duration::MAX).filter(|_| !self.is_reliable())
    }

    /// Timers E and G: double up to T2. Only over UDP (RFC 3261 §17.1.2.2, §17.2.1).
    fn repeat_capped(&self, message: &[u8], now: Instant) -> Option<Repeat> {
        self.repeat(message, now, self.manner.t2).filter(|_| !self.is_reliable())
    }

    /// A 2xx to INVITE is repeated over every transport, because only the ACK of the caller itself ends it (§13.3.1.4).
    fn repeat_answer(&self, message: &[u8], now: Instant) -> Option<Repeat> {
        self.repeat(message, now, self.manner.t2)
    }

    fn repeat(&self, message: &[u8], now: Instant, longest: Duration) -> Option<Repeat> {
        let interval = self.manner.t1;
        Some(Repeat { message: message.to_vec(), next: now + interval, interval, longest })
    }
}

impl Affair {
    fn new(state: State, repeat: Option<Repeat>, deadline: Instant) -> Affair {
        Affair { state, repeat, deadline: Some(deadline), armed: None }
    }
}

impl Repeat {
    fn due(&mut self, now: Instant) -> Option<Vec<u8>> {
        if self.next > now {
            return None;
        }
        self.interval = (self.interval * 2).min(self.longest);
        self.next = now + self.interval;
        Some(self.message.clone())
    }
}
