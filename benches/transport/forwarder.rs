//! Our side of the comparison: a process with the real transports and nothing between receiving and sending.
//!
//! Owns: a worker's loop (`src/worker/round.rs`) without its rooms: each frame leaves as it came, as the request of a client
//! transaction, to the peer's port ^ `APART` (as `benches/floor/floor.c` does). Speaks with the benchmark as the floor program does.

use std::io;
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use strowger::config::Config;
use strowger::message::branch::BranchId;
use strowger::shared::Shared;
use strowger::timer::Tick;
use strowger::transport::{Address, Body, Flow, Frame, Inbox, Outgoing, Ready, Sockets, Transports};
use strowger::worker::clock;
use sys::datagram::Arena;

use crate::kind::{APART, Kind};

const ASKED: Token = Token(1 << 32);

pub fn run(kind: Kind, port: u16, encapsulation: u16, peer_encapsulation: u16) -> io::Result<()> {
    let config = config(kind, port, encapsulation, peer_encapsulation);
    let sockets = Sockets::open(&config).map_err(|error| io::Error::other(error.to_string()))?;
    let shared = Shared::new(&config, config.seats())?;
    let poll = Poll::new()?;
    poll.registry().register(&mut SourceFd(&0), ASKED, Interest::READABLE)?;
    let transports = Transports::new(&config, &config.live, &sockets, shared.parts(), 0, &poll)?;
    say("ready")?;
    let forwarder = Forwarder {
        poll,
        transports,
        // As in `Round`.
        arena: Arena::new(64, 65_536)?,
        inbox: Inbox::default(),
        outgoing: Outgoing::default(),
        unfinished: Vec::new(),
        messages: 0,
        batches: 0,
        waits: 0,
    };
    forwarder.walk()
}

/// The daemon's defaults, with one worker and one listener.
pub fn config(kind: Kind, port: u16, encapsulation: u16, peer_encapsulation: u16) -> Config {
    let stack = match kind {
        Kind::Udp | Kind::Tcp => String::new(),
        Kind::KernelSctp => "stack = \"kernel\"".into(),
        Kind::UserSctp => format!("stack = \"user\"\nencapsulation_port = {encapsulation}"),
    };
    let transport = kind.transport().uri_token();
    let text = format!(
        "workers = 1\n[[listen]]\ntransport = \"{transport}\"\naddress = \"127.0.0.1:{port}\"\n{stack}\n\
         [admin]\naddress = \"off\"\n[sctp]\npeer_encapsulation_port = {peer_encapsulation}\n"
    );
    Config::from_text(&text).unwrap_or_else(|mistakes| panic!("{mistakes:?} in\n{text}"))
}

struct Forwarder {
    poll: Poll,
    transports: Transports,
    arena: Arena,
    inbox: Inbox,
    outgoing: Outgoing,
    unfinished: Vec<(Token, Ready)>,
    messages: u64,
    batches: u64,
    waits: u64,
}

impl Forwarder {
    fn walk(mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(256);
        loop {
            let now = clock::now();
            let until = self.transports.next_tick().min(now + 500);
            let busy = !self.transports.announce_sleep() || !self.unfinished.is_empty();
            let timeout = if busy { Duration::ZERO } else { until - now };
            let polled = self.poll.poll(&mut events, Some(timeout));
            self.transports.woke();
            match polled {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                polled => polled?,
            }
            self.waits += 1;
            if events.iter().any(|event| event.token() == ASKED) && !self.answer()? {
                return Ok(());
            }
            self.round(&events);
        }
    }

    fn round(&mut self, events: &Events) {
        let now = clock::now();
        let mut sources = std::mem::take(&mut self.unfinished);
        let ours = events.iter().filter(|event| Transports::owns(event.token()));
        sources.extend(ours.map(|event| (event.token(), Ready::from(event))));
        for (token, ready) in sources.drain(..) {
            if self.transports.receive(token, ready, &mut self.arena, &mut self.inbox, now) {
                self.unfinished.push((token, ready));
            }
            self.work_off(now);
        }
        if self.unfinished.is_empty() {
            self.unfinished = sources;
        }
        while self.transports.posted(false, &mut self.arena, &mut self.inbox, now) {
            self.work_off(now);
        }
        if self.transports.next_tick() <= now {
            self.transports.tick(&mut self.inbox, now);
        }
        self.work_off(now);
    }

    /// Where the rooms would be.
    fn work_off(&mut self, now: Tick) {
        self.messages += self.inbox.frames.len() as u64;
        self.batches += u64::from(!self.inbox.frames.is_empty());
        for frame in &self.inbox.frames {
            let begin = self.outgoing.begin();
            let body = Body::Arena { slot: frame.slot, start: frame.start, end: frame.end };
            self.outgoing.finish(begin, next(frame), body, Some(BranchId { slot: 1, generation: 1 }));
        }
        self.transports.flush(&mut self.outgoing, &self.arena, &mut self.inbox, now);
        // What failed is missed at the far side.
        self.inbox.happenings.clear();
        self.inbox.clear_frames();
    }

    /// False: whoever asks is gone.
    fn answer(&self) -> io::Result<bool> {
        if nix::unistd::read(io::stdin(), &mut [0])? == 0 {
            return Ok(false);
        }
        say(&format!("{} {} {}", self.messages, self.batches, self.waits))?;
        Ok(true)
    }
}

fn next(frame: &Frame) -> Flow {
    let Flow { peer, transport, listener, .. } = frame.from;
    let peer: Address = peer.with_port(peer.port() ^ APART);
    Flow { peer, transport, listener, ..Flow::default() }
}

fn say(line: &str) -> io::Result<()> {
    nix::unistd::write(io::stdout(), format!("{line}\n").as_bytes())?;
    Ok(())
}
