//! Counters: one cache-line-separated block of atomics per process.
//!
//! Owns: what is counted, and its names. A process writes only its own block; readers sum. Never a lock, never a log
//! line.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use sys::memory::{Mapping, Plan, Span};
use zerocopy::FromBytes;

/// Declares the enum and the names under which `status` shows it: the name is the documentation's last word.
macro_rules! counters {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)+) => {
        /// What is counted.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(usize)]
        pub enum Counter { $($(#[$doc])* $variant,)+ }

        impl Counter {
            /// Every counter, in the order `status` shows them.
            pub const ALL: &[Counter] = &[$(Counter::$variant,)+];

            /// Lower case with underscores; part of the status document.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Counter::$variant => $name,)+ }
            }
        }
    };
}

counters! {
    // Messages.
    /// SIP requests read, retransmissions included.
    Requests = "requests",
    /// SIP responses read.
    Responses = "responses",
    /// Requests that met their running server transaction: repeated by the previous hop (RFC 3261 §17.2.3).
    Repeated = "repeated",
    /// Requests that we sent again, by timers A and E or to a next address.
    Retransmissions = "retransmissions",
    /// Of them: because SCTP had given them up (`sctp.send_retries`).
    SendRetries = "send_retries",
    /// INVITEs that began a transaction.
    Invites = "invites",
    /// Final responses sent upstream, to any request; those sent again, too.
    Answered = "answered",
    /// REGISTERs answered with a 2xx.
    Registered = "registered",
    /// INVITEs that ended with our 408: timer B or C fired (RFC 3261 §16.8, §17.1.1.2), and no better response was there. Other requests
    /// get no 408 (RFC 4320 §4.2).
    TimedOut = "timed_out",
    /// Messages that the scanner refused.
    Invalid = "invalid",
    /// Responses whose branch is not ours (RFC 3261 §16.7 item 1).
    ForeignBranch = "foreign_branch",
    /// Responses for a transaction that is gone: another generation.
    LateResponse = "late_response",
    /// ACKs that could not go on, for want of a next hop or the right to: an ACK has no response that would say so.
    RefusedAcks = "refused_acks",
    /// 503 because a table was full.
    TableFull = "table_full",
    /// 503 because the daemon is ending.
    RefusedDraining = "refused_draining",
    /// 403: the source may not relay.
    RefusedRelay = "refused_relay",
    /// 403: the source may not register.
    RefusedRegister = "refused_register",

    // Transports.
    /// Messages read over UDP.
    ReceivedUdp = "received_udp",
    /// Messages read over TCP.
    ReceivedTcp = "received_tcp",
    /// Messages read over SCTP.
    ReceivedSctp = "received_sctp",
    /// Messages that the kernel took for UDP.
    SentUdp = "sent_udp",
    /// Messages that the kernel took for TCP.
    SentTcp = "sent_tcp",
    /// Messages that the kernel took for SCTP.
    SentSctp = "sent_sctp",
    /// Receiving calls that brought something: with the messages received, the size of a batch.
    Batches = "batches",
    /// CRLF-only messages: keep-alives.
    KeepAlives = "keep_alives",
    /// Messages over `limits.message_bytes`.
    TooLarge = "too_large",
    /// SCTP: pieces without MSG_EOR; their association was aborted.
    Pieces = "pieces",
    /// Frames dropped because their association is being aborted.
    Broken = "broken",
    /// Streams that lost framing.
    FramingLost = "framing_lost",
    /// Connections closed with half a message after `tcp.message_timeout_ms`.
    HalfMessages = "half_messages",
    /// Connections closed because nothing came or went for `tcp.idle_s`.
    Idle = "idle",
    /// Connections closed because their peer does not read.
    Stalled = "stalled",
    ConnectionsAccepted = "connections_accepted",
    ConnectionsOpened = "connections_opened",
    /// Connections that could not be opened.
    ConnectFailed = "connect_failed",
    /// Connections closed at once because a limit is reached.
    ConnectionsRefused = "connections_refused",
    /// Connections that ended, by whomever: of those accepted or opened.
    ConnectionsClosed = "connections_closed",
    /// TCP supervisor: connections handed to a worker.
    ConnectionsAssigned = "connections_assigned",
    /// Connections that an owner gave back because nothing came or went for `tcp.idle_s`.
    ConnectionsReturned = "connections_returned",
    /// Descriptors asked of the supervisor.
    DescriptorsAsked = "descriptors_asked",
    /// Messages for which a kept descriptor served.
    DescriptorsKept = "descriptors_kept",
    /// Looks at every connection, to find idle ones.
    IdleScans = "idle_scans",
    /// Times a process waited for the supervisor in vain.
    SupervisorSilent = "supervisor_silent",
    AssociationsUp = "associations_up",
    AssociationsLost = "associations_lost",
    /// Associations shut down in good order, by either side.
    AssociationsClosed = "associations_closed",
    /// Of them: by the peer. The others we closed ourselves: idle for `sctp.autoclose_s`, or at the end.
    AssociationsClosedByPeer = "associations_closed_by_peer",
    /// Associations that could not be set up.
    AssociationFailed = "association_failed",
    /// Associations aborted at once because a limit is reached.
    AssociationsRefused = "associations_refused",
    /// Paths of multi-homed associations that went down, and that came up again.
    PathsDown = "paths_down",
    PathsUp = "paths_up",
    /// Requests kept from an association whose peer only claims to have their address (nobody has confirmed it).
    ClaimedAddress = "claimed_address",
    /// SCTP in user space: packets read (UDP datagrams, RFC 6951).
    SctpPackets = "sctp_packets",
    /// Of them: too short, with a wrong checksum, or asking more than one packet may.
    SctpDamaged = "sctp_damaged",
    /// Of them: for no association of ours (RFC 9260 §8.4).
    OutOfTheBlue = "out_of_the_blue",
    /// COOKIE ECHOs whose cookie is not ours, or not for that peer.
    ForgedCookies = "forged_cookies",
    /// COOKIE ECHOs that came more than a minute after their INIT ACK.
    StaleCookies = "stale_cookies",
    /// Messages put in an association's queue because the kernel had no room.
    Queued = "queued",
    /// Messages dropped because an association's or connection's queue was full or they waited too long.
    QueueFull = "queue_full",
    /// Messages dropped because another process's mailbox was full, and packets because it was half full.
    MailboxFull = "mailbox_full",
    /// Messages left because two processes died on them.
    Poisonous = "poisonous",
    /// Messages posted to another process.
    Posted = "posted",
    /// Messages that could not be sent at all (RFC 3261 §17.1.4).
    SendFailed = "send_failed",
    /// System calls that failed for another reason.
    SocketErrors = "socket_errors",
    /// Connections and associations refused because all `memory.flows` entries were in use.
    FlowsFull = "flows_full",
    /// Lost connections and associations whose waiting requests were left to their timers: too many at once.
    LossesDropped = "losses_dropped",

    // Processes.
    /// Times a process woke from its poll.
    WakeUps = "wake_ups",
    /// Locks of the transaction table whose owner died; what they guard was put right.
    LocksRecovered = "locks_recovered",
    /// Slots that were being changed when their process died; ended, not trusted.
    SlotsEnded = "slots_ended",
    /// Log lines dropped because nobody read them fast enough.
    LogDropped = "log_dropped",
    /// Processes that died and were replaced.
    Restarts = "restarts",
    /// Processes that were killed because they hung.
    Hung = "hung",
    /// Reloads that took effect.
    Reloads = "reloads",
    /// Reloads refused: the file was wrong.
    ReloadsRefused = "reloads_refused",
    /// Admin clients closed: not in an allowed network, too many, or too slow.
    AdminRefused = "admin_refused",
}

/// One process's counters; a multiple of the cache line, so no two processes write the same one.
#[derive(FromBytes)]
#[repr(C, align(64))]
pub struct Block {
    values: [AtomicU64; Counter::ALL.len()],
}

/// Where the blocks lie in the plan.
pub struct Place(Span<Block>);

/// Handle on all blocks: seats 0..seats, then the master's.
#[derive(Clone, Copy)]
pub struct Counters {
    blocks: &'static [Block],
}

impl Counters {
    /// One block per seat and one for the master.
    pub fn plan(plan: &mut Plan, seats: usize) -> Place {
        Place(plan.array(seats + 1))
    }

    /// # Errors
    /// None today; the same form as every part of `Shared`.
    pub fn take(mapping: &Mapping, place: &Place) -> io::Result<Counters> {
        Ok(Counters { blocks: mapping.array(&place.0) })
    }

    /// The number that the master counts under, where others give their seat.
    #[must_use]
    pub fn master(&self) -> usize {
        self.blocks.len().saturating_sub(1)
    }

    /// Adds `n` to `seat`'s own counter. Only the process on that seat may call this, so a load and a store do (no
    /// locked instruction in a message's path). A seat that does not exist counts nowhere.
    pub fn add(&self, seat: usize, counter: Counter, n: u64) {
        if let Some(value) = self.value(seat, counter) {
            value.store(value.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
        }
    }

    /// Over all processes, since the daemon started.
    #[must_use]
    pub fn sum(&self, counter: Counter) -> u64 {
        (0..self.blocks.len()).map(|seat| self.of(seat, counter)).fold(0, u64::wrapping_add)
    }

    /// One process's share.
    #[must_use]
    pub fn of(&self, seat: usize, counter: Counter) -> u64 {
        self.value(seat, counter).map_or(0, |value| value.load(Ordering::Relaxed))
    }

    /// Every counter with its sum.
    pub fn iter(&self) -> impl Iterator<Item = (Counter, u64)> + '_ {
        Counter::ALL.iter().map(|&counter| (counter, self.sum(counter)))
    }

    fn value(&self, seat: usize, counter: Counter) -> Option<&'static AtomicU64> {
        self.blocks.get(seat)?.values.get(counter as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counters(seats: usize) -> Counters {
        let mut plan = Plan::new();
        let place = Counters::plan(&mut plan, seats);
        Counters::take(&plan.map().unwrap(), &place).unwrap()
    }

    #[test]
    fn readers_sum_what_every_process_counted() {
        let counters = counters(3);
        counters.add(0, Counter::Invites, 2);
        counters.add(2, Counter::Invites, 5);
        counters.add(counters.master(), Counter::Restarts, 1);
        assert_eq!(counters.sum(Counter::Invites), 7);
        assert_eq!(counters.of(2, Counter::Invites), 5);
        assert_eq!(counters.iter().filter(|(_, n)| *n != 0).count(), 2);
    }

    #[test]
    fn a_seat_that_does_not_exist_counts_nowhere() {
        let counters = counters(1);
        counters.add(99, Counter::Invites, 1);
        assert_eq!(counters.sum(Counter::Invites), 0);
    }

    #[test]
    fn no_two_processes_share_a_cache_line() {
        assert_eq!(size_of::<Block>() % 64, 0);
        assert_eq!(align_of::<Block>(), 64);
    }

    #[test]
    fn names_are_unique_and_plain() {
        let mut names: Vec<_> = Counter::ALL.iter().map(|c| c.name()).collect();
        assert!(names.iter().all(|n| n.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')));
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Counter::ALL.len());
    }
}
