//! REGISTER: a server transaction whose TU is the location service (RFC 3261 §10.3).

use super::corridor::{Arrived, Corridor};
use super::input::{tag, way_back};
use crate::message::{self, Message, Reply, ViaFix};
use crate::proxy::Origin;
use crate::shared::Counter;
use crate::shared::slot::Key;
use crate::shared::table::AtHand;
use crate::timer::Tick;
use crate::transport::{Body, Transport};

impl Corridor {
    pub(super) fn register(&mut self, key: Key, m: &Message<'_>, arrived: Arrived<'_>, now: Tick) {
        let repeats = arrived.from.transport == Transport::Udp as u8;
        // Over a reliable transport nobody asks twice, and the transaction would end with its answer (D28).
        if repeats && !self.open_register(key, m, arrived, now) {
            return;
        }
        self.lines.clear();
        let (code, reason) =
            self.location.register(m, now, self.wall, &self.live.registrar, &self.live.limits, &mut self.lines);
        if code == 200 {
            self.count(Counter::Registered);
        }
        self.counters.add(self.seat, Counter::TableFull, u64::from(code == 503));
        let to_tag = tag(key);
        let fix_via = ViaFix::needed(&m.via, m.bytes, arrived.from.peer.into());
        let reply = Reply { code, reason, to_tag: Some(&to_tag), fix_via, extra: &self.lines };
        let begin = self.outgoing.begin();
        message::reply(m, &reply, &mut self.outgoing.bytes);
        self.outgoing.finish(begin, way_back(m, arrived.from), Body::Empty, None);
        self.count(Counter::Answered);
        if repeats
            && let Some(mut entry) = self.entered(self.table.lock(key))
            && let Some(head) = entry.find(key)
        {
            entry.keep_reply(head, self.outgoing.bytes.get(begin as usize..).unwrap_or_default());
            self.prepared.clear();
            entry.visit(head, now, &self.lengths, AtHand::Nothing, &mut self.prepared, |context| {
                context.answered(code, Origin::Kept)
            });
        }
    }

    /// True: the REGISTER is new, and its transaction waits for the answer.
    fn open_register(&mut self, key: Key, m: &Message<'_>, arrived: Arrived<'_>, now: Tick) -> bool {
        let Some(mut entry) = self.entered(self.table.lock(key)) else { return false };
        self.prepared.clear();
        if entry.find(key).is_some() {
            // Another worker was quicker with the same request.
            return false;
        }
        let Some(head) = entry.create(key, way_back(m, arrived.from), &[]) else {
            drop(entry);
            self.count(Counter::TableFull);
            self.refuse(m, arrived.from, 503, "Transaction Table Full", b"Retry-After: 5\r\n");
            return false;
        };
        let method = m.method();
        entry.visit(head, now, &self.lengths, AtHand::Request, &mut self.prepared, |context| context.start(method));
        true
    }
}
