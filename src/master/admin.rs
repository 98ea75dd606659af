//! The admin listener: a TCP port where operators ask the daemon for its state.
//!
//! Owns: the listener and its few clients. One line comes, one JSON document goes, the connection ends. Nothing here
//! ever blocks: a client that is too slow, or one too many, is closed. It carries no SIP and changes nothing.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr};

use mio::net::{TcpListener, TcpStream};
use mio::{Interest, Registry, Token};

use crate::timer::Tick;

/// Clients at once; one more and the oldest is closed (an honest client is answered within milliseconds).
const CLIENTS: usize = 16;
/// Milliseconds from a client's connection until its answer must be read.
const DEADLINE_MS: u64 = 2_000;
/// Longest question.
const QUESTION_BYTES: usize = 64;
/// Connections taken up in one turn; the rest at the next, so that a flood does not keep the master from a death.
const ACCEPTS: usize = 16;

pub(super) struct Admin {
    listener: TcpListener,
    listener_token: Token,
    clients: Vec<Client>,
    /// Tokens never come twice, so a late event meets no other client.
    next_token: usize,
    /// More connections wait than were taken up in the last turn.
    more: bool,
}

struct Client {
    stream: TcpStream,
    token: Token,
    deadline: Tick,
    question: Vec<u8>,
    answer: Vec<u8>,
    written: usize,
}

/// Makes the answer to a question (one line without its end).
pub(super) type Answer<'a> = &'a dyn Fn(&[u8]) -> Vec<u8>;

impl Admin {
    /// Opens the listener; before privileges are dropped.
    pub(super) fn open(address: SocketAddr) -> io::Result<TcpListener> {
        TcpListener::bind(address)
    }

    /// Tokens from `first_token` on are the admin's.
    pub(super) fn new(mut listener: TcpListener, registry: &Registry, first_token: usize) -> io::Result<Admin> {
        let listener_token = Token(first_token);
        registry.register(&mut listener, listener_token, Interest::READABLE)?;
        Ok(Admin { listener, listener_token, clients: Vec::new(), next_token: first_token + 1, more: false })
    }

    /// Where it listens.
    pub(super) fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Must the master come back at once?
    pub(super) fn has_more(&self) -> bool {
        self.more
    }

    /// An event for one of the admin's tokens. Gives back how many clients were refused.
    pub(super) fn ready(&mut self, token: Token, registry: &Registry, answer: Answer<'_>) {
        if token == self.listener_token {
            self.more = true;
        } else if let Some(place) = self.clients.iter().position(|client| client.token == token) {
            self.advance(place, registry, answer);
        }
    }

    /// Once per turn, after the events: takes up new clients that `may` ask and closes those past their deadline.
    /// Gives back how many were refused.
    pub(super) fn turn(&mut self, registry: &Registry, now: Tick, may: &dyn Fn(IpAddr) -> bool) -> u64 {
        let before = self.clients.len();
        self.clients.retain_mut(|client| {
            let keep = now < client.deadline;
            if !keep {
                client.close(registry);
            }
            keep
        });
        let late = before - self.clients.len();
        late as u64 + self.accept(registry, now, may)
    }

    fn accept(&mut self, registry: &Registry, now: Tick, may: &dyn Fn(IpAddr) -> bool) -> u64 {
        let mut refused = 0;
        self.more = true;
        for _ in 0..ACCEPTS {
            // Out of descriptors is no end either: the next turn tries again.
            let Ok((stream, peer)) = self.listener.accept() else {
                self.more = false;
                break;
            };
            if !may(peer.ip().to_canonical()) {
                refused += 1;
                continue;
            }
            if self.clients.len() >= CLIENTS {
                self.clients.remove(0).close(registry);
                refused += 1;
            }
            let token = Token(self.next_token);
            self.next_token += 1;
            let mut client = Client {
                stream,
                token,
                deadline: now + DEADLINE_MS,
                question: Vec::new(),
                answer: Vec::new(),
                written: 0,
            };
            if registry.register(&mut client.stream, token, Interest::READABLE | Interest::WRITABLE).is_ok() {
                self.clients.push(client);
            }
        }
        refused
    }

    fn advance(&mut self, place: usize, registry: &Registry, answer: Answer<'_>) {
        let Some(client) = self.clients.get_mut(place) else { return };
        if client.advance(answer) == Progress::Done {
            client.close(registry);
            self.clients.remove(place);
        }
    }
}

#[derive(PartialEq, Eq)]
enum Progress {
    Waits,
    Done,
}

impl Client {
    fn advance(&mut self, answer: Answer<'_>) -> Progress {
        while self.answer.is_empty() {
            let mut piece = [0; QUESTION_BYTES];
            match self.stream.read(&mut piece) {
                Ok(0) => return Progress::Done,
                Ok(n) => self.question.extend(piece.iter().take(n)),
                Err(error) => return after(&error),
            }
            if let Some(line) = self.question.split(|&b| b == b'\n').next().filter(|l| l.len() < self.question.len()) {
                self.answer = answer(line.trim_ascii());
            } else if self.question.len() > QUESTION_BYTES {
                return Progress::Done;
            }
        }
        loop {
            match self.stream.write(self.answer.get(self.written..).unwrap_or_default()) {
                Ok(0) => return Progress::Done,
                Ok(n) => self.written += n,
                Err(error) => return after(&error),
            }
        }
    }

    /// A child that was forked a moment ago may still hold a copy of the descriptor, so closing ours is not enough: the
    /// connection is shut down, and the poll is told.
    fn close(&mut self, registry: &Registry) {
        let _ = registry.deregister(&mut self.stream);
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}

/// mio's streams are edge-triggered: only "would block" waits for the next event.
fn after(error: &io::Error) -> Progress {
    match error.kind() {
        io::ErrorKind::WouldBlock => Progress::Waits,
        _ => Progress::Done,
    }
}
