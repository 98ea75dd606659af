//! A worker: one loop, four inputs, one corridor.
//!
//! Owns: the clock, and the order in which things happen. The rooms below it are asked; they never ask back.
//!
//! - `round` is the loop, the same for workers and for the timer process;
//! - `corridor` is the way of a message through the rooms, with `input`, `request`, `locate`, `register`, `act` and `passing`;
//! - `clock` is the only one.

mod act;
pub mod clock;
pub mod corridor;
mod input;
mod locate;
mod passing;
mod register;
mod request;
mod round;

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
