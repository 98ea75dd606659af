//! A worker: one loop, four inputs, one corridor.
//!
//! Owns: the clock, and the order in which things happen. The rooms below it are asked; they never ask back.
//!
//! - `round` is the loop, the same for workers and for the timer process; `sources` is what it has to read;
//! - `corridor` is the way of a message through the rooms, with `input`, `request`, `locate`, `register`, `act` and `passing`;
//! - `clock` is the only one.
//!
//! # What each step toward speed gave
//!
//! Counted in the virtual machine (VM_ICOUNT, thousands of instructions), unless it says otherwise; commands in benches/RESULTS.md.
//! "Loop": CPU of receiving and sending alone, divided by that of a plain loop of system calls (`benches/vm transport`). "Operation":
//! the whole daemon with the kernel, per INVITE or BYE transaction (`benches/guard/run`). Wake-ups: `tests/run --host load`; packets:
//! `tests/run --vm bundling`. What stood there before a step shows only in the commit before it.
//!
//! | step | commit | before | after |
//! |---|---|---|---|
//! | UDP: the headers of `recvmmsg` made once, not for each call | bd53ec0 | loop 1.29 | 1.14 |
//! | TCP: a stream cut into messages in one walk; a trunk's connection looked up once a flush | bd53ec0 | loop 1.35 | 1.05–1.07 |
//! | shared sockets watched exclusively (EPOLLEXCLUSIVE past mio) instead of by every worker | fce87b1, the first that compiled | every worker wakes | 1.003 wake-ups per UDP message |
//! | a mailbox wakes its reader only if that sleeps | fce87b1 | a wake-up per posted message | 0.999 per message or post |
//! | bundling: MSG_MORE within a flush on SCTP | fce87b1 | 1,280 packets | 20 packets for 1,280 messages |
//! | routing and loop hash found once per request; URIs, addresses, parameters in one walk | b718aba | operation: UDP 113.5, TCP 140.1, SCTP 146.1 | 102.2, 124.1, 132.5 |
//! | a worker with nothing near sleeps without a time-out; a request's key hashed once | c6f9092, 6138ae7 | UDP 102.6, TCP 124.0, SCTP 132.1 | 100.4, 124.1, 130.8 |
//! | a socket for each worker on SCTP instead of a shared one | ef5b8a8; c518986 | nothing gained (see `transport::sctp`) | not kept as default |
//! | the same on UDP (`udp.layout`; µs on the host, closed loop and 4,000 calls/s, medians of three) | 6bcfbb1 | 31.1 and 64.2, p99 of set-up 6.1 and 0.44 ms | 30.3 and 62.9, p99 8.1 and 0.78 ms: not kept as default |
//! | a loss walks over clients that wait, not over all that have finished (µs on the host, connections renewed every 50 operations) | 6f2b351 | TCP 33.3 and 35.5 | 29.9 and 28.8 |
//! | all sources that are ready are read before what they brought is worked off (µs on the host; TCP kept, 100 and 1,000 clients, and renewed every 50 operations) | b8a0b3c | 26.8, 36.8, 31.3 | 24.6, 33.0, 27.8 |
//! | what is counted on a connection needs no lock; a write's lists made in place (the same) | 16d483b, 2a47dbb | 24.6, 33.0, 27.8 | 21.8, 31.6, 27.0 |
//! | huge pages, where the kernel gives them (µs on the host, 100 clients) | ef15743 | UDP 20.3, TCP 26.3 | 18.4, 24.3 |
//! | while little is due the timer process looks every 50 ms, not every 20 (`benches/vm floor udp`) | 96b7401 | UDP 108.7 | 106.0 |
//!
//! Over UDP the plain loop costs 59; a worker's own code 43 (callgrind).

mod act;
pub mod clock;
pub mod corridor;
mod input;
mod locate;
mod passing;
mod register;
mod request;
mod round;
mod sources;

use crate::config::{Architecture, Config};
use crate::shared::{Shared, Wakes};
use crate::transport::Sockets;

pub use corridor::{Arrived, Corridor};
pub use round::run;

/// Everything that was opened and mapped before the first fork; every process inherits it.
pub struct House {
    /// `config.live` is the newest at the time of the fork; later ones come through `shared.settings`.
    pub config: Config,
    pub sockets: Sockets,
    pub shared: Shared,
    pub wakes: Wakes,
}

impl House {
    /// Wakes every process out of its poll: something changed in shared memory that all must see.
    pub fn wake_all(&self) {
        self.wakes.wake_all();
    }

    #[must_use]
    pub fn duty(&self, seat: usize) -> Duty {
        match self.config.tcp.architecture {
            _ if seat < self.config.workers => Duty::Worker,
            Architecture::Supervisor if Some(seat) == self.config.extra_seat() => Duty::Supervisor,
            Architecture::SingleOwner if Some(seat) == self.config.extra_seat() => Duty::Owner,
            _ => Duty::Timer,
        }
    }
}

/// What the process on a seat does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Duty {
    Worker,
    Timer,
    /// Of TCP (`Architecture::Supervisor`).
    Supervisor,
    /// Of all TCP connections (`Architecture::SingleOwner`).
    Owner,
}

impl Duty {
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Duty::Worker => "worker",
            Duty::Timer => "timer",
            Duty::Supervisor => "supervisor",
            Duty::Owner => "owner",
        }
    }
}

/// A process's fixed place: workers `0..workers`, then the timer, then the supervisor or owner of TCP where there is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seat {
    pub number: usize,
    pub duty: Duty,
    /// Somebody sat here before and died: finish what it left.
    pub successor: bool,
}
