//! One connection: what was read of a message, what waits to be written.
//!
//! Owns: the stream and two buffers that exist only while they hold something, so that an idle connection costs little (no read
//! buffer: reads go to the worker's arena). Never decides whether to live on: it says what happened.

use std::collections::VecDeque;
use std::io::{self, IoSlice, Read, Write};
use std::net::Shutdown;

use mio::net::TcpStream;

use crate::message::branch::BranchId;
use crate::timer::Tick;
use crate::transport::{Address, FlowId};

/// How far a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    Connecting,
    Open,
    /// Framing is lost (E13): what is queued is still written, nothing more is read.
    Ending,
    /// All is written and said so (FIN); what still comes is thrown away, so that no reset overtakes our last words.
    Lingering,
}

pub struct Connection {
    pub stream: TcpStream,
    pub id: FlowId,
    pub peer: Address,
    pub listener: u8,
    pub phase: Phase,
    /// Has it carried a request of ours? As its entry in `flows` says.
    pub requested: bool,
    /// `Phase::Ending`, where others answer its last message: they have.
    pub answered: bool,
    /// The beginning of a message whose rest has not come.
    pub stash: Vec<u8>,
    /// Bytes from the stash's start that hold no end of a head; 0 once its end is there.
    pub searched: usize,
    /// Fewer bytes than this from the stash's start make no message.
    pub wanted: usize,
    /// Since when there is half a message.
    pub half_since: Option<Tick>,
    /// When something last came or went, or the phase began.
    pub last: Tick,
    /// Under which deadline it is entered; `Tick::NEVER`: none.
    pub armed: Tick,
    /// Bytes that wait; written up to `out_at`.
    out: Vec<u8>,
    out_at: usize,
    /// Bytes ever queued, and the requests among them: where each ends, counted so.
    queued_ever: u64,
    clients: VecDeque<(u64, BranchId)>,
}

// An idle connection costs less than 1 kB of ours: this, its entry and its tally in `flows` (256 bytes) and in two indexes.
const _: () = assert!(size_of::<Connection>() <= 512);

impl Connection {
    pub fn new(stream: TcpStream, id: FlowId, peer: Address, listener: u8, phase: Phase, now: Tick) -> Connection {
        Connection {
            stream,
            id,
            peer,
            listener,
            phase,
            requested: false,
            answered: false,
            stash: Vec::new(),
            searched: 0,
            wanted: 0,
            half_since: None,
            last: now,
            armed: Tick::NEVER,
            out: Vec::new(),
            out_at: 0,
            queued_ever: 0,
            clients: VecDeque::new(),
        }
    }

    pub fn waiting(&self) -> usize {
        self.out.len() - self.out_at
    }

    /// Reads once, behind what is stashed; the stash is then empty. Returns how many bytes `buffer` begins with; none: the peer
    /// closed. `WouldBlock` leaves the stash as it is.
    pub fn read(&mut self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        let stashed = self.stash.len();
        let room = buffer.get_mut(stashed..).filter(|room| !room.is_empty()).ok_or(io::ErrorKind::InvalidData)?;
        let read = self.stream.read(room)?;
        if read == 0 {
            return Ok(None);
        }
        for (to, from) in buffer.iter_mut().zip(&self.stash) {
            *to = *from;
        }
        self.stash.clear();
        Ok(Some(stashed + read))
    }

    /// One `writev`. Returns how many bytes the socket took: none while others wait before them, or there is no connection yet.
    pub fn write(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        if self.phase == Phase::Connecting || self.waiting() != 0 {
            return Ok(0);
        }
        match uninterrupted(|| self.stream.write_vectored(slices)) {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(0),
            result => result,
        }
    }

    /// Puts bytes behind those that wait.
    pub fn queue(&mut self, bytes: &[u8], spare: &mut Vec<Vec<u8>>) {
        if bytes.is_empty() {
            return;
        }
        if self.out.capacity() == 0 {
            self.out = spare.pop().unwrap_or_default();
        }
        self.out.extend_from_slice(bytes);
        self.queued_ever += bytes.len() as u64;
    }

    /// The request that was queued last is this client transaction's.
    pub fn note_client(&mut self, client: Option<BranchId>) {
        if let Some(client) = client
            && self.waiting() > 0
        {
            self.clients.push_back((self.queued_ever, client));
        }
    }

    /// Writes what waits, until the socket takes no more. True: something was written.
    pub fn drain(&mut self, spare: &mut Vec<Vec<u8>>) -> io::Result<bool> {
        let before = self.out_at;
        while let Some(rest) = self.out.get(self.out_at..).filter(|rest| !rest.is_empty()) {
            match uninterrupted(|| self.stream.write(rest)) {
                Ok(0) => break,
                Ok(written) => self.out_at += written,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) => return Err(e),
            }
        }
        let progress = self.out_at != before;
        let done = self.queued_ever - self.waiting() as u64;
        while self.clients.front().is_some_and(|(end, _)| *end <= done) {
            self.clients.pop_front();
        }
        if self.waiting() == 0 && self.out.capacity() != 0 {
            recycle(std::mem::take(&mut self.out), spare);
            self.out_at = 0;
            // A queue once long need not stay so.
            self.clients.shrink_to(0);
        } else if self.out_at > 64 * 1024 {
            self.out.drain(..self.out_at);
            self.out_at = 0;
        }
        Ok(progress)
    }

    /// The requests that were not written whole.
    pub fn unsent(&self) -> impl Iterator<Item = BranchId> {
        self.clients.iter().map(|(_, client)| *client)
    }

    /// Is the connection up? None: not yet.
    pub fn connected(&self) -> io::Result<Option<()>> {
        if let Some(error) = self.stream.take_error()? {
            return Err(error);
        }
        match self.stream.peer_addr() {
            Ok(_) => Ok(Some(())),
            Err(e) if e.kind() == io::ErrorKind::NotConnected => Ok(None),
            Err(e) => Err(e),
        }
    }

    pub fn say_end(&self) {
        // Fails when the peer is gone: then there is nobody to tell.
        let _ = self.stream.shutdown(Shutdown::Write);
    }
}

/// Keeps a buffer for the next connection that needs one; large ones and many are given back.
pub fn recycle(mut buffer: Vec<u8>, spare: &mut Vec<Vec<u8>>) {
    const KEPT: usize = 64;
    const LARGE: usize = 256 * 1024;
    if buffer.capacity() != 0 && buffer.capacity() <= LARGE && spare.len() < KEPT {
        buffer.clear();
        spare.push(buffer);
    }
}

fn uninterrupted<R>(mut call: impl FnMut() -> io::Result<R>) -> io::Result<R> {
    loop {
        match call() {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}
