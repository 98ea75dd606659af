//! What the manager and its phone processes say to each other: one line of JSON each, over the phones' stdin and stdout.
//!
//! Owns: the words. The end of stdin means the end of the phones, whatever became of the manager.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use super::results::Arrival;

/// What the phones speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Wire {
    Udp,
    Tcp,
    /// By the kernel.
    Sctp,
    /// In user space, inside UDP (RFC 6951).
    SctpUser,
}

impl Wire {
    pub const ALL: [Wire; 4] = [Wire::Udp, Wire::Tcp, Wire::Sctp, Wire::SctpUser];

    /// As in `results::Subject::transport`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Wire::Udp => "udp",
            Wire::Tcp => "tcp",
            Wire::Sctp => "sctp",
            Wire::SctpUser => "sctp-user",
        }
    }

    #[must_use]
    pub fn of(name: &str) -> Option<Wire> {
        Wire::ALL.into_iter().find(|wire| wire.name() == name)
    }

    #[must_use]
    pub fn is_reliable(self) -> bool {
        self != Wire::Udp
    }

    /// In Via (RFC 3261 §20.42).
    #[must_use]
    pub fn via_token(self) -> &'static [u8] {
        match self {
            Wire::Udp => b"UDP",
            Wire::Tcp => b"TCP",
            Wire::Sctp | Wire::SctpUser => b"SCTP",
        }
    }

    /// In Contact; UDP needs none.
    #[must_use]
    pub fn uri_parameter(self) -> &'static [u8] {
        match self {
            Wire::Udp => b"",
            Wire::Tcp => b";transport=tcp",
            Wire::Sctp | Wire::SctpUser => b";transport=sctp",
        }
    }
}

/// To the phones, in this order; `Open` and `Close` once each.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    SetUp(Box<SetUp>),
    /// Opens all connections and registers all phones.
    Register,
    /// Calls begin.
    Begin,
    /// The measured window begins: figures from here on.
    Open,
    /// It ends: no call begins any more.
    Close,
}

/// One process's share of the phones, and how they behave.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SetUp {
    pub process: u8,
    /// The same for all processes of a run.
    pub seed: u32,
    pub wire: Wire,
    pub proxy: SocketAddr,
    /// UDP port of the proxy's SCTP in user space.
    pub encapsulation_port: u16,
    pub domain: String,
    /// How long a registration lasts.
    pub expires_s: u32,
    /// Callers, and as many callees; they are numbered `first`, `first + step`, ...
    pub pairs: u32,
    pub first: u32,
    pub step: u32,
    /// Connections that carry all calls, on each side. None: each phone has its own.
    pub trunks: Option<u32>,
    /// Operations after which a phone goes on over a new connection.
    pub renew_every: Option<u64>,
    pub connection_per_call: bool,
    /// Of this process.
    pub arrival: Arrival,
    /// Open loop: when the first call is due.
    pub phase_s: f64,
    /// What has had no answer by then has failed.
    pub patience_ms: u32,
    pub nice: i32,
    /// Processor time wasted for each message: makes slow phones, for tests.
    pub burden_us: u64,
}

/// From the phones.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Report {
    /// After `SetUp`.
    Ready,
    /// After `Register`: all have been answered, or waited for long enough.
    Registered { phones: u32, failures: BTreeMap<String, u64> },
    /// After `Close`: what happened between `Open` and `Close`.
    Figures(Box<Figures>),
    /// After `Close`, when the calls that were open then have ended or were waited for long enough. `set_up`: as in `Figures`, of calls
    /// that were due before.
    Drained { unfinished: u64, failures: BTreeMap<String, u64>, set_up: Vec<(u64, u64)> },
    /// It cannot go on; the process ends.
    Trouble(String),
}

/// What one process, or all of them, saw within the window.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Figures {
    /// INVITE transactions completed: 200 received and acknowledged.
    pub invites: u64,
    /// BYE transactions completed.
    pub byes: u64,
    pub calls_placed: u64,
    pub failed_calls: u64,
    /// What failed calls failed of.
    pub failures: BTreeMap<String, u64>,
    /// Messages sent again, by a timer or because the peer repeated its own.
    pub retransmissions: u64,
    /// Connections and associations opened.
    pub connections: u64,
    /// Those that the proxy closed.
    pub closed_by_proxy: u64,
    /// REGISTERs answered 200 because a callee went on over a new connection; they are no operations.
    pub registrations: u64,
    /// Messages of no call, or of one that is over.
    pub strays: u64,
    /// Open loop: the most that a call began after its time, microseconds.
    pub behind_us: u64,
    /// Set-up times of calls that were due in the window: value in microseconds, and how many. Of a call that
    /// failed, what it waited, and no less than the phones' patience.
    pub set_up: Vec<(u64, u64)>,
}

impl Figures {
    /// Adds another process's, but for the set-up times, which `histogram` adds.
    pub fn add(&mut self, other: &Figures) {
        self.invites += other.invites;
        self.byes += other.byes;
        self.calls_placed += other.calls_placed;
        self.failed_calls += other.failed_calls;
        other.failures.iter().for_each(|(why, n)| *self.failures.entry(why.clone()).or_default() += n);
        self.retransmissions += other.retransmissions;
        self.connections += other.connections;
        self.closed_by_proxy += other.closed_by_proxy;
        self.registrations += other.registrations;
        self.strays += other.strays;
        self.behind_us = self.behind_us.max(other.behind_us);
    }
}

/// Microseconds up to ten minutes, three digits.
///
/// # Panics
/// Never: the bounds are valid.
#[must_use]
pub fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 600_000_000, 3).expect("1 to 600,000,000 with 3 digits are valid bounds")
}

/// Adds `Figures::set_up`; longer ones than the bounds are counted as the longest.
pub fn add_to(histogram: &mut Histogram<u64>, recorded: &[(u64, u64)]) {
    for (us, n) in recorded {
        histogram.saturating_record_n(*us, *n);
    }
}
