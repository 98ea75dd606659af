//! Letting a frame in: reading it, and the short ways of those that start no transaction.

use std::net::SocketAddr;

use tracing::{debug, info};

use super::corridor::{Arrived, Corridor};
use crate::log;
use crate::message::{self, Message, Method, Reply, Rport, Start, Upstream, ViaFix};
use crate::message::{branch, reason_phrase, salvage, scan, uri};
use crate::shared::Counter;
use crate::shared::slot::Key;
use crate::shared::table::AtHand;
use crate::timer::Tick;
use crate::transport::{Address, Body, Flow, Transport};

impl Corridor {
    /// One frame.
    pub fn frame(&mut self, arrived: Arrived<'_>, now: Tick) {
        match scan(arrived.bytes) {
            Ok(m) => match m.start {
                Start::Request { .. } => {
                    self.count(Counter::Requests);
                    debug!(call_id = %log::Text(m.of(m.call_id)), from = %arrived.from.peer, "request");
                    self.request(&m, arrived, now);
                }
                Start::Response { code, .. } => {
                    self.count(Counter::Responses);
                    debug!(call_id = %log::Text(m.of(m.call_id)), from = %arrived.from.peer, code, "response");
                    self.response(&m, arrived, now);
                }
            },
            Err(invalid) => {
                self.count(Counter::Invalid);
                match salvage(arrived.bytes).filter(|_| invalid.answerable) {
                    Some(m) => {
                        let call_id = log::Text(m.of(m.call_id));
                        info!(%call_id, from = %arrived.from.peer, code = invalid.code, "{}", invalid.reason);
                        self.refuse(&m, arrived.from, invalid.code, invalid.reason, &[]);
                    }
                    None => debug!(from = %arrived.from.peer, reason = invalid.reason, "dropped at the door"),
                }
            }
        }
    }

    fn request(&mut self, m: &Message<'_>, arrived: Arrived<'_>, now: Tick) {
        match m.method() {
            Method::Ack => self.ack(m, arrived, now),
            Method::Cancel => self.cancel(m, arrived, now),
            _ => self.new_request(m, arrived, now),
        }
    }

    /// RFC 3261 §17.2.1: an ACK to a failure ends here, one to a 2xx goes on by itself (§16.6 and §17). So does one to a failure that
    /// we answered without keeping anything: the tag says so.
    fn ack(&mut self, m: &Message<'_>, arrived: Arrived<'_>, now: Tick) {
        let key = self.server_key(m);
        let answered_by_us = m.of(m.to_tag) == tag(key).as_slice();
        let Some(mut entry) = self.entered(self.table.lock(key)) else { return };
        self.prepared.clear();
        let pass = match entry.find(key) {
            Some(head) => entry
                .visit(head, now, &self.lengths, AtHand::Request, &mut self.prepared, |context| context.ack())
                .unwrap_or(false),
            None => !answered_by_us,
        };
        drop(entry);
        if pass {
            self.forward_statelessly(m, arrived, now);
        }
    }

    /// RFC 3261 §16.10. What matches nothing would be forwarded there, for the sake of proxies that forwarded its INVITE without
    /// keeping anything. We never do: there is no call to cancel, and the caller hears so at once (§9.2).
    fn cancel(&mut self, m: &Message<'_>, arrived: Arrived<'_>, now: Tick) {
        let key = self.server_key(m);
        let Some(mut entry) = self.entered(self.table.lock(key)) else { return };
        self.prepared.clear();
        let Some(head) = entry.find(key) else {
            drop(entry);
            self.refuse(m, arrived.from, 481, reason_phrase(481), &[]);
            return;
        };
        entry.visit(head, now, &self.lengths, AtHand::Nothing, &mut self.prepared, |context| context.cancel());
        drop(entry);
        self.refuse(m, arrived.from, 200, reason_phrase(200), &[]);
        self.act(None, None);
    }

    fn response(&mut self, m: &Message<'_>, arrived: Arrived<'_>, now: Tick) {
        let ours = branch::read(m.of(m.via.branch)).filter(|ours| match m.next_via {
            Some(upstream) => ours.verify(&self.key, m.of(upstream.branch)),
            // Nothing below our Via: the response is for us (C04), and the only requests of our own are CANCELs.
            None => m.cseq.method == Method::Cancel && ours.verify_alone(&self.key),
        });
        // Not our branch (C01): dropped before any lock is taken. Slot 0 is an ACK that we forwarded without a transaction: it has no
        // response (C02).
        let Some(ours) = ours.filter(|ours| ours.id.slot != 0) else {
            self.count(Counter::ForeignBranch);
            return;
        };
        let Some(mut entry) = self.entered(self.table.lock_branch(ours.id)) else {
            self.count(Counter::LateResponse);
            return;
        };
        self.prepared.clear();
        let Some((head, n)) = entry.find_branch(ours.id) else {
            self.count(Counter::LateResponse);
            return;
        };
        let (method, code) = (m.cseq.method, m.code());
        let at_hand = Upstream::new(m);
        entry.visit(head, now, &self.lengths, AtHand::Response(&at_hand.pieces()), &mut self.prepared, |context| {
            context.response(n, method, code);
        });
        drop(entry);
        self.act(Some((m, arrived)), None);
    }

    pub(super) fn server_key(&self, m: &Message<'_>) -> Key {
        let key = branch::transaction_key(&self.key, m);
        // The method belongs to it, an ACK's and a CANCEL's being that of their INVITE (§17.2.3, §9.2).
        let method = match m.method() {
            Method::Ack | Method::Cancel => Method::Invite,
            method => method,
        };
        [key as u64 ^ (method as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15), (key >> 64) as u64]
    }

    /// Answers without keeping anything, finally: the same request again gets the same answer again. An ACK has none (§17.1.1.3).
    pub(super) fn refuse(&mut self, m: &Message<'_>, from: Flow, code: u16, reason: &str, extra: &[u8]) {
        if m.method() == Method::Ack {
            self.count(Counter::RefusedAcks);
            return;
        }
        let tag = tag(self.server_key(m));
        let begin = self.outgoing.begin();
        let source = SocketAddr::from(from.peer);
        let reply = Reply { code, reason, to_tag: Some(&tag), fix_via: ViaFix::needed(&m.via, m.bytes, source), extra };
        message::reply(m, &reply, &mut self.outgoing.bytes);
        self.outgoing.finish(begin, way_back(m, from), Body::Empty, None);
        self.count(Counter::Answered);
    }
}

/// Where responses to a request from `from` go (RFC 3261 §18.2.2, RFC 3581 §4): over SCTP and TCP the same association or connection,
/// and when it is gone the sent-by port; over UDP the source, at the sent-by port unless rport asks for the source's.
pub(super) fn way_back(m: &Message<'_>, from: Flow) -> Flow {
    let sent_by = m.via.port.unwrap_or(5060);
    let mut flow = Flow { fallback_port: sent_by, ..from };
    if from.transport == Transport::Udp as u8 {
        let maddr = uri::ip_of(m.of(m.via.maddr));
        flow.peer = match (maddr, m.via.rport) {
            (Some(ip), _) => Address::new(ip, sent_by),
            (None, Rport::Asked) => from.peer,
            (None, Rport::Absent | Rport::Filled(_)) => from.peer.with_port(sent_by),
        };
    }
    flow
}

/// The To tag of our own responses to a request: the same for each of its retransmissions, from any worker, kept or not.
pub(super) fn tag(key: Key) -> [u8; 16] {
    let mut tag = [0; 16];
    for (n, digit) in tag.iter_mut().enumerate() {
        let nibble = (key[0].rotate_left(17) ^ key[1]) >> (4 * n) & 15;
        *digit = b"0123456789abcdef".get(nibble as usize).copied().unwrap_or(b'0');
    }
    tag
}
