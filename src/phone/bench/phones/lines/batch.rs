//! Messages that wait to leave together.

use std::io;
use std::os::fd::BorrowedFd;

use sys::datagram::{Item, Sender, SndInfo, To};

/// Messages one behind the other in one buffer that is used again.
#[derive(Debug, Default)]
pub(super) struct Batch {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Batch {
    pub(super) fn push(&mut self, message: &[u8]) {
        self.bytes.extend_from_slice(message);
        self.ends.push(self.bytes.len());
    }

    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    fn get(&self, nth: usize) -> &[u8] {
        let start = nth.checked_sub(1).map_or(0, |before| self.ends.get(before).copied().unwrap_or(0));
        self.ends.get(nth).and_then(|end| self.bytes.get(start..*end)).unwrap_or_default()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &[u8]> {
        (0..self.len()).map(|nth| self.get(nth))
    }

    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
    }

    /// The first `n` are gone.
    fn drop_first(&mut self, n: usize) {
        let Some(gone) = n.checked_sub(1).and_then(|last| self.ends.get(last).copied()) else { return };
        self.bytes.drain(..gone);
        self.ends.drain(..n.min(self.ends.len()));
        self.ends.iter_mut().for_each(|end| *end -= gone);
    }

    /// Sends all, with as few system calls as there can be, and keeps what the socket does not take. `sctp`: bundled, all but the
    /// last with MSG_MORE.
    pub(super) fn leave(
        &mut self,
        fd: BorrowedFd<'_>,
        to: To,
        sctp: Option<SndInfo>,
        sender: &mut Sender,
    ) -> io::Result<()> {
        let more = if sctp.is_some() { self.len().saturating_sub(1) } else { 0 };
        let item = |nth| Item { to, pieces: [self.get(nth), &[]], sctp };
        let (mut sent, mut refused) = (0, None);
        if more > 0 {
            (sent, refused) = sender.send(fd, more, true, item);
        }
        if refused.is_none() {
            let (last, why) = sender.send(fd, self.len() - sent, false, |nth| item(sent + nth));
            (sent, refused) = (sent + last, why);
        }
        if sent == self.len() {
            self.clear()
        } else {
            self.drop_first(sent)
        }
        refused.map_or(Ok(()), Err)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_left_is_forgotten_and_the_rest_stays_in_order() {
        let mut batch = Batch::default();
        [&b"one"[..], b"", b"three", b"four"].into_iter().for_each(|message| batch.push(message));
        batch.drop_first(2);
        assert_eq!(batch.iter().collect::<Vec<_>>(), [&b"three"[..], b"four"]);
        batch.drop_first(0);
        batch.push(b"five");
        batch.drop_first(1);
        assert_eq!(batch.iter().collect::<Vec<_>>(), [&b"four"[..], b"five"]);
        batch.clear();
        assert_eq!(batch.len(), 0);
    }
}
