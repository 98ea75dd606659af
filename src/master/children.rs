//! The processes on the seats: fork, reap, respawn, and the end of one that hangs.
//!
//! Owns: who may be forked when, and when it is too much. Never what a child does; never a thread, and never a lock
//! that a child may hold.

use std::io;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use sys::process::Fork;

use crate::shared::{Counter, Phase};
use crate::timer::Tick;
use crate::worker::{House, Seat};

/// More deaths than this within `DEATHS_MS` end the daemon: something kills every successor too.
const DEATHS_MAX: usize = 10;
const DEATHS_MS: u64 = 10_000;
/// A process whose heartbeat is older is woken: perhaps it has nothing to do.
const QUIET_MS: u64 = 900;
/// ... and if it is older than this all the same, the process hangs.
const HANG_MS: u64 = 10_000;
/// The master looks once per second; when it did not for this long, the whole machine slept (or ctrl-Z): nobody is to
/// blame.
const SLEPT_MS: u64 = 3_000;

/// What only the master knows of a seat; the rest is in `shared::phase`.
#[derive(Clone, Copy, Default)]
struct Chair {
    /// Somebody has sat here: the next one is a successor.
    taken: bool,
    /// Its process was killed because it hung, and is not reaped yet.
    killed: bool,
    /// The last fork for it failed, and that was said.
    refused: bool,
}

pub(super) struct Children {
    master: i32,
    chairs: Vec<Chair>,
    /// When the last `DEATHS_MAX + 1` children died, oldest first.
    deaths: Vec<Tick>,
    looked: Tick,
    awake_since: Tick,
}

impl Children {
    pub(super) fn new(seats: usize, now: Tick) -> Children {
        Children {
            master: Pid::this().as_raw(),
            chairs: vec![Chair::default(); seats],
            deaths: Vec::with_capacity(DEATHS_MAX + 2),
            looked: now,
            awake_since: now,
        }
    }

    /// Forks for every empty seat. `Some`: we are the child and this is our seat; let go of everything that is the
    /// master's. A fork that the kernel refuses is said once and tried again at the next call.
    pub(super) fn fill(&mut self, house: &House, now: Tick) -> Option<Seat> {
        let phases = &house.shared.phases;
        for (number, chair) in self.chairs.iter_mut().enumerate() {
            if phases.occupant(number).is_none_or(|occupant| occupant.pid != 0) {
                continue;
            }
            phases.prepare(number, now);
            let seat = Seat { number, duty: house.duty(number), successor: chair.taken };
            match sys::process::fork() {
                Ok(Fork::Parent { child }) => {
                    phases.sit(number, child, chair.taken);
                    *chair = Chair { taken: true, ..Chair::default() };
                    if seat.successor {
                        let counters = &house.shared.counters;
                        counters.add(counters.master(), Counter::Restarts, 1);
                    }
                    tracing::debug!("{} {number} is process {child}", seat.duty.name());
                }
                Ok(Fork::Child) => {
                    if sys::process::die_with_parent(self.master).is_err() {
                        // The master died between the fork and here: nobody would ever end us.
                        std::process::exit(0);
                    }
                    return Some(seat);
                }
                Err(error) if chair.refused => drop(error),
                Err(error) => {
                    chair.refused = true;
                    tracing::error!("cannot fork {} {number}: {error}; trying again", seat.duty.name());
                }
            }
        }
        None
    }

    /// Takes up every child that ended and empties its seat.
    pub(super) fn reap(&mut self, house: &House, now: Tick) {
        loop {
            match waitpid(Pid::from_raw(-1), Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, status)) => {
                    self.ended(house, pid.as_raw(), status == 0, &format!("exited with status {status}"), now);
                }
                Ok(WaitStatus::Signaled(pid, signal, _)) => {
                    self.ended(house, pid.as_raw(), false, &format!("was ended by {signal}"), now);
                }
                Err(Errno::EINTR) => {}
                // Whoever started us ignores SIGCHLD, so the kernel reaped them itself (waitpid(2)).
                Err(Errno::ECHILD) => return self.all_gone(house, now),
                _ => return,
            }
        }
    }

    fn all_gone(&mut self, house: &House, now: Tick) {
        let phases = &house.shared.phases;
        let pids: Vec<i32> = (0..phases.seats()).filter_map(|n| Some(phases.occupant(n)?.pid)).collect();
        for pid in pids.into_iter().filter(|&pid| pid != 0) {
            self.ended(house, pid, true, "ended", now);
        }
    }

    fn ended(&mut self, house: &House, pid: i32, well: bool, how: &str, now: Tick) {
        let phases = &house.shared.phases;
        let Some(number) = (0..phases.seats()).find(|&n| phases.occupant(n).is_some_and(|o| o.pid == pid)) else {
            return; // not ours: a child that whoever executed us left behind
        };
        phases.vacate(number);
        let name = house.duty(number).name();
        if phases.current() == Phase::Closing {
            if !well {
                tracing::warn!("{name} {number} (process {pid}) {how} while closing");
            }
            return;
        }
        tracing::warn!("{name} {number} (process {pid}) {how}");
        self.deaths.push(now);
        if self.deaths.len() > DEATHS_MAX + 1 {
            self.deaths.remove(0);
        }
    }

    /// Did more than ten die within ten seconds?
    pub(super) fn too_many_deaths(&self, now: Tick) -> bool {
        self.deaths.len() > DEATHS_MAX && self.deaths.first().is_some_and(|&oldest| now.since(oldest) <= DEATHS_MS)
    }

    /// Wakes every process that has not come round its loop for a second, kills it after ten. Call it at every turn of the master's.
    pub(super) fn end_hanging(&mut self, house: &House, now: Tick) {
        if now.since(self.looked) > SLEPT_MS {
            self.awake_since = now;
        }
        self.looked = now;
        for (number, chair) in self.chairs.iter_mut().enumerate() {
            let Some(occupant) = house.shared.phases.occupant(number).filter(|o| o.pid != 0 && !chair.killed) else {
                continue;
            };
            let quiet = now.since(occupant.heartbeat.max(self.awake_since));
            if quiet >= QUIET_MS {
                house.wakes.wake(number);
            }
            if quiet <= HANG_MS {
                continue;
            }
            let name = house.duty(number).name();
            tracing::error!("{name} {number} (process {}) hangs; killing it", occupant.pid);
            chair.killed = true;
            house.shared.counters.add(house.shared.counters.master(), Counter::Hung, 1);
            signal(occupant.pid, Signal::SIGKILL);
        }
    }

    /// Ends every process that is left, at once.
    pub(super) fn kill_all(&self, house: &House) {
        for number in 0..self.chairs.len() {
            if let Some(occupant) = house.shared.phases.occupant(number).filter(|o| o.pid != 0) {
                signal(occupant.pid, Signal::SIGKILL);
            }
        }
    }
}

/// Are all seats empty?
pub(super) fn all_seats_empty(house: &House) -> bool {
    let phases = &house.shared.phases;
    (0..phases.seats()).all(|n| phases.occupant(n).is_none_or(|o| o.pid == 0))
}

/// Is somebody on every seat?
pub(super) fn all_seated(house: &House) -> bool {
    let phases = &house.shared.phases;
    (0..phases.seats()).all(|n| phases.occupant(n).is_some_and(|o| o.pid != 0))
}

/// Has every process come round its loop?
pub(super) fn all_ready(house: &House) -> bool {
    let phases = &house.shared.phases;
    (0..phases.seats()).all(|n| phases.occupant(n).is_some_and(|o| o.pid != 0 && o.ready))
}

/// To a child that is not reaped yet, so the number is still its own. A child that just ended needs no signal.
fn signal(pid: i32, signal: Signal) {
    let _: Result<(), io::Error> = kill(Pid::from_raw(pid), signal).map_err(io::Error::from);
}
