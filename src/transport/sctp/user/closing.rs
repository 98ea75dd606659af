//! Messages for an association that is being shut down (RFC 9260 §9.2). It takes none any more, and until it is gone no other can
//! be set up between the same ports (M19).
//!
//! Owns: what waits for such an end, bounded as the association's queue is. Then it goes where it would go without the association: a
//! request over a new one, a response to the sent-by port (A17). Never sends. What waits dies with this process: its requests are in
//! shared memory, and the successor sends them again (`User::adopt`); its responses are lost, but for a 2xx to INVITE, which the
//! callee repeats (RFC 3261 §13.3.1.4).

use std::collections::HashMap;

use crate::message::branch::BranchId;
use crate::transport::{Body, Flow, Outgoing};

#[derive(Default)]
pub struct Closing {
    /// By the association's tag.
    waiting: HashMap<u32, Outgoing>,
    /// Associations of these are gone.
    again: Outgoing,
}

impl Closing {
    /// False: there would be more than `most` bytes.
    pub fn wait(&mut self, tag: u32, to: Flow, client: Option<BranchId>, pieces: [&[u8]; 2], most: usize) -> bool {
        let waiting = self.waiting.entry(tag).or_default();
        let fits = waiting.bytes.len() + pieces.iter().map(|piece| piece.len()).sum::<usize>() <= most;
        if fits {
            put(waiting, to, client, pieces);
        }
        fits
    }

    /// The association ended, in good order or not (`lost`): then whoever waits for an answer hears of it, and its request with it.
    pub fn ended(&mut self, tag: u32, lost: bool) {
        let Some(waiting) = self.waiting.remove(&tag) else { return };
        for sending in waiting.sendings.iter().filter(|sending| !(lost && sending.client.is_some())) {
            put(&mut self.again, sending.to, sending.client, [waiting.head(sending), b""]);
        }
    }

    /// What can be sent now.
    pub fn take(&mut self) -> Option<Outgoing> {
        (!self.again.sendings.is_empty()).then(|| std::mem::take(&mut self.again))
    }

    pub fn is_due(&self) -> bool {
        !self.again.sendings.is_empty()
    }

    pub fn bytes(&self) -> usize {
        self.waiting.values().map(|waiting| waiting.bytes.len()).sum::<usize>() + self.again.bytes.len()
    }
}

fn put(outgoing: &mut Outgoing, to: Flow, client: Option<BranchId>, pieces: [&[u8]; 2]) {
    let begin = outgoing.begin();
    pieces.iter().for_each(|piece| outgoing.bytes.extend_from_slice(piece));
    outgoing.finish(begin, to, Body::Empty, client);
}
