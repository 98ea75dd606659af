//! What the whole daemon is doing, and who sits on which seat.
//!
//! Owns: the phase (Running, Draining, Closing) and one record per seat: pid, heartbeat, restarts. The master writes
//! the phase and the pids; a process writes only its own heartbeat. Never a lock: a reader takes what it finds.

use std::io;
use std::sync::atomic::{AtomicI32, AtomicU32, AtomicU64, Ordering};

use sys::memory::{Mapping, Plan, Span};
use zerocopy::FromBytes;

use crate::timer::Tick;

/// The daemon's way to its end. Only ever goes forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
#[repr(u32)]
pub enum Phase {
    Running = 0,
    /// New INVITEs get 503; what runs may finish.
    Draining = 1,
    /// Every process closes its associations and connections and exits with 0.
    Closing = 2,
}

/// Of the whole daemon. All zero means: running.
#[derive(FromBytes)]
#[repr(C, align(64))]
pub struct Daemon {
    phase: AtomicU32,
}

/// Of one seat. On a cache line of its own, because its process writes it every turn of its loop.
#[derive(FromBytes)]
#[repr(C, align(64))]
pub struct Record {
    /// 0: nobody sits here.
    pid: AtomicI32,
    /// How often the seat was taken again after a death.
    restarts: AtomicU32,
    /// Not 0 once the process on the seat has come round its loop.
    ready: AtomicU32,
    /// `Tick` of the last turn of its loop.
    heartbeat: AtomicU64,
    /// `Tick` at which the process was forked.
    since: AtomicU64,
}

pub struct Place {
    daemon: Span<Daemon>,
    seats: Span<Record>,
}

/// Handle on the phase and the seats.
#[derive(Clone, Copy)]
pub struct Phases {
    daemon: &'static [Daemon],
    seats: &'static [Record],
}

/// What is known of one seat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Occupant {
    /// 0: the seat is empty.
    pub pid: i32,
    pub restarts: u32,
    /// It has come round its loop at least once.
    pub ready: bool,
    pub heartbeat: Tick,
    pub since: Tick,
}

impl Phases {
    pub fn plan(plan: &mut Plan, seats: usize) -> Place {
        Place { daemon: plan.array(1), seats: plan.array(seats) }
    }

    /// # Errors
    /// None today; the same form as every part of `Shared`.
    pub fn take(mapping: &Mapping, place: &Place) -> io::Result<Phases> {
        Ok(Phases { daemon: mapping.array(&place.daemon), seats: mapping.array(&place.seats) })
    }

    /// How many seats there are: the workers', then the timer's, then perhaps that of the supervisor or owner of TCP.
    #[must_use]
    pub fn seats(&self) -> usize {
        self.seats.len()
    }

    #[must_use]
    pub fn current(&self) -> Phase {
        match self.daemon.first().map_or(0, |d| d.phase.load(Ordering::Acquire)) {
            0 => Phase::Running,
            1 => Phase::Draining,
            _ => Phase::Closing,
        }
    }

    /// The master announces a phase; it wakes the seats itself. An earlier phase than the current one is ignored.
    pub fn enter(&self, phase: Phase) {
        if let Some(daemon) = self.daemon.first() {
            daemon.phase.fetch_max(phase as u32, Ordering::AcqRel);
        }
    }

    /// A process says that it is alive; once per turn of its loop. Whoever has not for a second is woken by the master and does.
    pub fn beat(&self, seat: usize, now: Tick) {
        if let Some(record) = self.seats.get(seat) {
            record.heartbeat.store(now.0, Ordering::Relaxed);
            record.ready.store(1, Ordering::Release);
        }
    }

    /// The master is about to fork for `seat`: its life begins now, so a heartbeat of its predecessor says nothing.
    pub fn prepare(&self, seat: usize, now: Tick) {
        if let Some(record) = self.seats.get(seat) {
            record.ready.store(0, Ordering::Relaxed);
            record.heartbeat.store(now.0, Ordering::Relaxed);
            record.since.store(now.0, Ordering::Release);
        }
    }

    /// The master has forked `pid` onto `seat`.
    pub fn sit(&self, seat: usize, pid: i32, successor: bool) {
        if let Some(record) = self.seats.get(seat) {
            record.restarts.fetch_add(u32::from(successor), Ordering::Relaxed);
            record.pid.store(pid, Ordering::Release);
        }
    }

    /// The master has reaped whoever sat there.
    pub fn vacate(&self, seat: usize) {
        if let Some(record) = self.seats.get(seat) {
            record.pid.store(0, Ordering::Release);
        }
    }

    #[must_use]
    pub fn occupant(&self, seat: usize) -> Option<Occupant> {
        let record = self.seats.get(seat)?;
        Some(Occupant {
            pid: record.pid.load(Ordering::Acquire),
            restarts: record.restarts.load(Ordering::Relaxed),
            ready: record.ready.load(Ordering::Acquire) != 0,
            heartbeat: Tick(record.heartbeat.load(Ordering::Relaxed)),
            since: Tick(record.since.load(Ordering::Acquire)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn phases(seats: usize) -> Phases {
        let mut plan = Plan::new();
        let place = Phases::plan(&mut plan, seats);
        Phases::take(&plan.map().unwrap(), &place).unwrap()
    }

    #[test]
    fn zeroed_memory_is_a_running_daemon_with_empty_seats() {
        let phases = phases(2);
        assert_eq!(phases.current(), Phase::Running);
        assert_eq!(phases.occupant(1).unwrap().pid, 0);
        assert_eq!(phases.occupant(2), None);
    }

    #[test]
    fn the_phase_never_goes_back() {
        let phases = phases(1);
        phases.enter(Phase::Closing);
        phases.enter(Phase::Draining);
        assert_eq!(phases.current(), Phase::Closing);
    }

    #[test]
    fn a_successor_is_not_ready_by_its_predecessors_heartbeat() {
        let phases = phases(1);
        phases.prepare(0, Tick(5));
        phases.sit(0, 100, false);
        phases.beat(0, Tick(6));
        assert!(phases.occupant(0).unwrap().ready);
        phases.vacate(0);
        phases.prepare(0, Tick(20));
        phases.sit(0, 101, true);
        let seat = phases.occupant(0).unwrap();
        assert_eq!(seat, Occupant { pid: 101, restarts: 1, ready: false, heartbeat: Tick(20), since: Tick(20) });
    }
}
