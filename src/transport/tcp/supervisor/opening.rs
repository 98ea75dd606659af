//! A connection that a process opens for a message of its own.
//!
//! Owns: waiting until it is up, as OpenSER's `tcp_blocking_connect`, and handing it to the supervisor, which assigns an owner.

use std::io;
use std::net::TcpStream;
use std::os::fd::AsFd;

use sys::passing::Wait;

use super::ipc::{self, Note, Word};
use super::sender::Sender;
use crate::shared::counters::Counter;
use crate::shared::flows::State;
use crate::timer::Tick;
use crate::transport::desk::Desk;
use crate::transport::{Address, FlowId};

impl Sender {
    /// Opens the connection that this process has claimed as `id`; on failure the entry is gone.
    pub(super) fn open(&mut self, desk: &Desk, id: FlowId, peer: Address, now: Tick) -> Option<TcpStream> {
        let opened = self.connect(peer, now).and_then(|stream| {
            desk.parts.flows.set_state(id, State::Open);
            if self.settings.priority_queue {
                desk.parts.supervision.queue.enter(id, self.supervisors_deadline(now));
            }
            let new = Note::of(Word::New, id);
            self.supervised(desk, now, |sender| ipc::say(sender.asks, new, Some(stream.as_fd()), Wait::Yes))?;
            Ok(stream)
        });
        match opened {
            Ok(stream) => {
                desk.count(Counter::ConnectionsOpened, 1);
                Some(stream)
            }
            Err(_) => {
                // Nothing was sent over it: the caller tells the one request that this fails.
                desk.count(Counter::ConnectFailed, 1);
                desk.parts.flows.close(id);
                // Others may have found the entry meanwhile, and ask for its descriptor.
                self.say_bad(id);
                None
            }
        }
    }

    fn connect(&mut self, peer: Address, now: Tick) -> io::Result<TcpStream> {
        let stream = mio::net::TcpStream::connect(peer.into())?;
        if !self.patience.until_writable(stream.as_fd(), self.settings.connect_timeout_ms, now) {
            return Err(io::ErrorKind::TimedOut.into());
        }
        if let Some(error) = stream.take_error()? {
            return Err(error);
        }
        // SIP is small messages: none waits for another (Nagle).
        let _ = stream.set_nodelay(true);
        Ok(stream.into())
    }
}
