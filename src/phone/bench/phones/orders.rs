//! The talk with the manager: lines of JSON.
//!
//! Owns: stdin, read without waiting, and stdout. A line that is no order ends the process: the manager is of the same program.

use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsRawFd, RawFd};

use memchr::memchr;
use nix::fcntl::{FcntlArg, OFlag, fcntl};

use crate::phone::bench::words::{Order, Report};

/// An order is never longer.
const LONGEST: usize = 64 * 1024;

pub(super) struct Orders {
    stdin: io::Stdin,
    buffer: Vec<u8>,
    ended: bool,
}

impl Orders {
    pub(super) fn new() -> io::Result<Orders> {
        let stdin = io::stdin();
        fcntl(&stdin, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        Ok(Orders { stdin, buffer: Vec::new(), ended: false })
    }

    /// The next order that has come whole.
    pub(super) fn next(&mut self) -> io::Result<Option<Order>> {
        loop {
            if let Some(end) = memchr(b'\n', &self.buffer) {
                let order = serde_json::from_slice(self.buffer.get(..end).unwrap_or_default());
                self.buffer.drain(..=end);
                return order.map(Some).map_err(io::Error::from);
            }
            if self.buffer.len() > LONGEST {
                return Err(io::Error::new(ErrorKind::InvalidData, "an order without an end"));
            }
            let mut bytes = [0; 4096];
            match self.stdin.lock().read(&mut bytes) {
                Ok(0) => {
                    self.ended = true;
                    return Ok(None);
                }
                Ok(length) => self.buffer.extend_from_slice(bytes.get(..length).unwrap_or_default()),
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(None),
                Err(e) => return Err(e),
            }
        }
    }

    pub(super) fn ended(&self) -> bool {
        self.ended
    }
}

impl AsRawFd for Orders {
    fn as_raw_fd(&self) -> RawFd {
        self.stdin.as_raw_fd()
    }
}

/// Tells the manager. One that does not listen any more has closed our stdin, too.
pub(super) fn say(report: &Report) {
    if let Ok(mut line) = serde_json::to_vec(report) {
        line.push(b'\n');
        let mut out = io::stdout().lock();
        let _ = out.write_all(&line).and_then(|()| out.flush());
    }
}
