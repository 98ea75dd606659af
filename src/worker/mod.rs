//! The worker's loop: input, clock, order of things.
//!
//! Owns: the loop, the clock, and what a process finds when it is born: its seat and the house.

pub mod clock;

use crate::config::Config;
use crate::message::branch;
use crate::shared::{Shared, Wakes};
use crate::transport::Sockets;

/// Everything that was opened and mapped before the first fork; every process inherits it.
pub struct House {
    /// `config.live` is the newest at the time of the fork; later ones come through `shared.settings`.
    pub config: Config,
    pub sockets: Sockets,
    pub shared: Shared,
    pub wakes: Wakes,
    /// Drawn at daemon start: no branch recurs after a restart (design §5).
    pub key: branch::Key,
}

impl House {
    /// Wakes every process out of its poll: something changed in shared memory that all must see.
    pub fn wake_all(&self) {
        self.wakes.wake_all();
    }

    #[must_use]
    pub fn duty(&self, seat: usize) -> Duty {
        if seat < self.config.workers { Duty::Worker } else { Duty::Timer }
    }
}

/// What the process on a seat does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Duty {
    Worker,
    Timer,
}

impl Duty {
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Duty::Worker => "worker",
            Duty::Timer => "timer",
        }
    }
}

/// A process's fixed place: workers `0..workers`, then the timer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seat {
    pub number: usize,
    pub duty: Duty,
    /// Somebody sat here before and died: finish what it left.
    pub successor: bool,
}

/// The process on a seat, until the phase is Closing; its value is the exit status.
// The loop comes here; until then a worker only keeps its seat.
#[must_use]
pub fn run(seat: Seat, house: &House) -> u8 {
    while house.shared.phases.current() != crate::shared::Phase::Closing {
        house.shared.phases.beat(seat.number, clock::now());
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    crate::config::exit::OK
}
