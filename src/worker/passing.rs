//! What passes without a message: time, and peers that are lost.

use super::corridor::{Corridor, Fate, Loss, Was};
use crate::message::BranchId;
use crate::shared::Counter;
use crate::shared::table::AtHand;
use crate::timer::Tick;
use crate::transport::{Address, Transport};

/// Buckets locked per call for one loss, so that no turn is held up; and those looked at.
const SLICE: u32 = 32;
const LOOKED_AT: u32 = 4_096;
/// Losses that may wait; of more, the requests that wait on them are left to timer B or F.
const MOST_LOSSES: usize = 1_024;

impl Corridor {
    /// Fires what is due in every bucket, `limit` contexts at most; returns how many: if so many, there may be more.
    pub fn deadlines(&mut self, now: Tick, limit: usize) -> usize {
        let (mut left, buckets) = (limit, self.table.buckets());
        // Where the last turn stopped, so that busy buckets hold up no others.
        let first = self.next_bucket;
        for number in (first..buckets).chain(0..first) {
            self.next_bucket = number;
            while let Some(mut entry) = self.entered(self.table.lock_due(number, now)) {
                let Some(head) = entry.due(now) else { break };
                self.prepared.clear();
                entry.visit(head, now, &self.lengths, AtHand::Nothing, &mut self.prepared, |context| context.timers());
                drop(entry);
                self.act(None, None);
                left -= 1;
                if left == 0 {
                    return limit;
                }
            }
        }
        limit - left
    }

    /// When the deadlines want to be looked at again. New ones come while the timer process sleeps, but none that is nearer than T1
    /// (timers A, E and G begin with it), so half of that is soon enough, and an idle daemon sleeps.
    #[must_use]
    pub fn next_look(&self, now: Tick) -> Tick {
        self.table.earliest().min(self.location.earliest()).min(now + self.live.timers.t1_ms / 2)
    }

    /// The request of this client transaction could not be sent.
    pub fn send_failed(&mut self, id: BranchId, now: Tick) {
        let Some(mut entry) = self.entered(self.table.lock_branch(id)) else { return };
        let Some((head, n)) = entry.find_branch(id) else { return };
        self.prepared.clear();
        entry
            .visit(head, now, &self.lengths, AtHand::Nothing, &mut self.prepared, |context| context.transport_error(n));
        drop(entry);
        self.act(None, None);
    }

    /// SCTP gave up the request of this client transaction. When its association is `lost`, the news of that comes, too, and decides
    /// who goes out again: of this request a later copy may be under way already.
    pub fn undelivered(&mut self, id: BranchId, lost: bool, now: Tick) {
        let retries = self.send_retries;
        if lost && retries > 0 {
            return;
        }
        let Some(mut entry) = self.entered(self.table.lock_branch(id)) else { return };
        let Some((head, n)) = entry.find_branch(id) else { return };
        self.prepared.clear();
        let again = entry.visit(head, now, &self.lengths, AtHand::Nothing, &mut self.prepared, |context| {
            context.undelivered(n, retries, 0)
        });
        drop(entry);
        self.count_retry(again);
        self.act(None, None);
    }

    fn count_retry(&self, again: Option<bool>) {
        self.counters.add(self.seat, Counter::SendRetries, u64::from(again == Some(true)));
    }

    /// The request of this client transaction leaves only now, over another connection than the one it was meant for. That one's loss
    /// may be waiting to be worked off, and may have been noticed in this very millisecond: it is none of this request's.
    pub fn moved(&mut self, id: BranchId, now: Tick) {
        let noticed = self.losses.iter().map(|loss| loss.until).max();
        let Some(mut entry) = self.entered(self.table.lock_branch(id)) else { return };
        entry.sent_again(id, noticed.map_or(now, |until| now.max(until + 1)));
    }

    /// The association or connection to this peer is gone: every request that waits on it has failed (A19), but for
    /// those that `send_retries` lets go out again.
    /// `until`: when the last of them can have been sent.
    pub fn lost(&mut self, transport: Transport, peer: Address, was: Was, until: Tick) {
        self.lose(Fate::Fail, transport, peer, was, until);
    }

    /// The process that held the association with this peer died. What the peer has answered, if only with a 100, it goes on with, and
    /// answers over a new association (A17); what it may never have got is sent again, and absorbed where it did.
    pub fn owner_died(&mut self, transport: Transport, peer: Address, until: Tick) {
        self.lose(Fate::SendAgain, transport, peer, Was::default(), until);
    }

    fn lose(&mut self, fate: Fate, transport: Transport, peer: Address, was: Was, until: Tick) {
        // Told again before anybody has looked (M27, or a second connection to the same peer): one walk serves both.
        let same = |loss: &&mut Loss| {
            loss.next_bucket == 0 && (loss.fate, loss.transport, loss.peer) == (fate, transport, peer)
        };
        if let Some(loss) = self.losses.iter_mut().find(same) {
            (loss.was, loss.until) = (was, loss.until.max(until));
        } else if self.losses.len() < MOST_LOSSES {
            self.last_loss = self.last_loss.wrapping_add(1).max(1);
            self.losses.push_back(Loss { number: self.last_loss, fate, transport, peer, was, until, next_bucket: 0 });
        } else {
            self.count(Counter::LossesDropped);
        }
    }

    #[must_use]
    pub fn has_losses(&self) -> bool {
        !self.losses.is_empty()
    }

    /// Bindings whose time has passed.
    pub fn expire(&mut self, now: Tick) {
        self.location.expire(now);
    }

    /// Works on losses, a slice of the table at a time, one bucket locked at a time. True: there is more to do. `begun`: since when there
    /// has been another connection in the place of this one, if there is: what was sent since then went over that.
    pub fn work_off_losses(&mut self, now: Tick, begun: impl FnOnce(Transport, Address, Was) -> Option<Tick>) -> bool {
        let Some(mut loss) = self.losses.pop_front() else { return false };
        if loss.fate == Fate::Fail
            && let Some(begun) = begun(loss.transport, loss.peer, loss.was)
        {
            loss.until = loss.until.min(Tick(begun.0.saturating_sub(1)));
        }
        let Loss { number: loss_number, fate, transport, peer, until, next_bucket, .. } = loss;
        let (mut end, mut locked) = (next_bucket.saturating_add(LOOKED_AT).min(self.table.buckets()), 0);
        for number in next_bucket..end {
            if locked == SLICE {
                end = number;
                break;
            }
            let mut here = false;
            while let Some(mut entry) = self.entered(self.table.lock_waited_on(number, peer)) {
                here = true;
                let (unanswered, retries) = (fate == Fate::SendAgain, self.send_retries);
                let Some((head, n)) = entry.waiting_on(transport, peer, until, unanswered, loss_number) else { break };
                self.prepared.clear();
                let again =
                    entry.visit(head, now, &self.lengths, AtHand::Nothing, &mut self.prepared, |context| match fate {
                        Fate::Fail => context.undelivered(n, retries, loss_number),
                        Fate::SendAgain => {
                            context.send_again(n);
                            false
                        }
                    });
                drop(entry);
                self.count_retry(again);
                self.act(None, None);
            }
            locked += u32::from(here);
        }
        if end < self.table.buckets() {
            self.losses.push_front(Loss { next_bucket: end, ..loss });
        }
        !self.losses.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use sys::memory::Plan;

    use super::*;
    use crate::config::Config;
    use crate::location::Location;
    use crate::message::branch::Key;
    use crate::shared::Counters;
    use crate::shared::bindings::Bindings;
    use crate::shared::table::Table;
    use crate::transport::Flow;
    use crate::worker::Arrived;

    fn corridor() -> Corridor {
        let config = "[[listen]]\ntransport = \"tcp\"\naddress = \"127.0.0.1:5060\"\n[memory]\ntransactions = 1024\n\
            [[next_hop]]\ndomain = \"b.test\"\ntargets = [\"tcp:192.0.2.1:5060\"]";
        let config = Config::from_text(config).unwrap();
        let mut plan = Plan::new();
        let table = Table::plan(&mut plan, config.memory.transactions);
        let bindings = Bindings::plan(&mut plan, 1024);
        let counters = Counters::plan(&mut plan, 1);
        let mapping = plan.map().unwrap();
        let table = Table::take(&mapping, &table).unwrap();
        let location = Location::new(Bindings::take(&mapping, &bindings).unwrap());
        let counters = Counters::take(&mapping, &counters).unwrap();
        Corridor::new(table, location, counters, 0, Key([1, 2]), &config.listen, &config.live, &[])
    }

    /// A19: the connection is lost, and a request that had only been posted for it goes over the next one.
    #[test]
    fn what_has_moved_to_another_connection_is_not_lost_with_the_first() {
        let peer = Address::new([192, 0, 2, 1].into(), 5060);
        let from = Flow {
            peer: Address::new([127, 0, 0, 1].into(), 6000),
            transport: Transport::Tcp as u8,
            ..Flow::default()
        };
        let answers = |moved: bool, begun: Option<Tick>| {
            let mut corridor = corridor();
            let bytes = b"OPTIONS sip:b.test SIP/2.0\r\nVia: SIP/2.0/TCP 127.0.0.1:6000;branch=z9hG4bK1\r\nMax-Forwards: 70\r\n\
                From: <sip:a@a.test>;tag=1\r\nTo: <sip:b.test>\r\nCall-ID: 1\r\nCSeq: 1 OPTIONS\r\nContent-Length: 0\r\n\r\n";
            corridor.frame(Arrived { bytes, slot: 0, start: 0, from }, Tick(90));
            let sent: Vec<_> =
                corridor.outgoing.sendings.iter().map(|sending| (sending.to.peer, sending.client)).collect();
            let [(to, Some(client))] = sent[..] else { panic!("{sent:?}") };
            assert_eq!(to, peer);
            corridor.outgoing.clear();
            corridor.lost(Transport::Tcp, peer, Was::default(), Tick(100));
            if moved {
                corridor.moved(client, Tick(100));
            }
            while corridor.work_off_losses(Tick(100), |_, _, _| begun) {}
            corridor.outgoing.sendings.len()
        };
        assert_eq!((answers(false, None), answers(true, None)), (1, 0));
        // Sent at 90: over the next one, which had begun by then; or before there was one.
        assert_eq!((answers(false, Some(Tick(90))), answers(false, Some(Tick(91)))), (0, 1));
    }

    /// Else a request that one process sent again would be passed over by another, whose first loss is the next one.
    #[test]
    fn no_two_processes_number_their_losses_alike() {
        let number = || {
            let mut corridor = corridor();
            corridor.lost(Transport::Sctp, Address::new([192, 0, 2, 1].into(), 5060), Was::default(), Tick(1));
            corridor.losses[0].number
        };
        assert_ne!(number(), number());
    }

    #[test]
    fn a_peer_lost_again_before_anybody_looked_is_one_loss() {
        let mut corridor = corridor();
        let [one, two] = [5060, 5061].map(|port| Address::new([192, 0, 2, 1].into(), port));
        for n in 0..2_000 {
            corridor.lost(Transport::Tcp, one, Was::default(), Tick(n));
        }
        corridor.lost(Transport::Tcp, two, Was::default(), Tick(1));
        corridor.lost(Transport::Sctp, one, Was::default(), Tick(1));
        corridor.owner_died(Transport::Tcp, one, Tick(1));
        assert_eq!((corridor.losses.len(), corridor.counters.sum(Counter::LossesDropped)), (4, 0));
        assert_eq!(corridor.losses[0].until, Tick(1_999), "the last of them can have been sent then");
        let mut numbers: Vec<u32> = corridor.losses.iter().map(|loss| loss.number).collect();
        numbers.dedup();
        assert!(numbers.len() == 4 && !numbers.contains(&0));
        // Where a walk has been already, a new loss must look again.
        corridor.losses[0].next_bucket = 1;
        corridor.lost(Transport::Tcp, one, Was::default(), Tick(2_000));
        assert_eq!(corridor.losses.len(), 5);
    }
}
