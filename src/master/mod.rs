//! The master: opens everything, forks, keeps every seat taken, and ends the daemon.
//!
//! Owns: the order at start and at the end, the children, signals, the admin listener, systemd's watchdog. It never
//! has a thread, never sees a SIP message, never waits for a lock, a descriptor or a child: whatever hangs, it must
//! be there to kill it.

mod admin;
mod children;
mod kernel;
mod reload;
mod report;
mod signals;
mod start;
pub mod status;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use mio::{Events, Poll, Token};
use sd_notify::NotifyState;

use admin::Admin;
use children::Children;
use report::About;
use signals::{Heard, Signals};

use crate::config::{Config, What, exit};
use crate::shared::{Counter, Phase};
use crate::timer::Tick;
use crate::worker::{House, Seat, clock};

/// What a child does with its seat until the phase is Closing; its value is the child's exit status. It must say that
/// it is alive (`shared.phases.beat`) whenever its bell (`House::wakes`) rings.
pub type Body = fn(Seat, &House) -> u8;

const SIGNALS: Token = Token(0);
const ADMIN: usize = 1;

/// The master's turns come at least this often: heartbeats are looked at.
const TURN: Duration = Duration::from_millis(1_000);
/// ... while processes start, and while a seat stays empty because the kernel refused a fork.
const TURN_STARTING: Duration = Duration::from_millis(50);
/// ... while a drain waits for the last transactions.
const TURN_DRAINING: Duration = Duration::from_millis(20);
/// What the processes have to close their associations and connections.
const CLOSE_MS: u64 = 2_000;
/// ... when they die so fast that the daemon gives up.
const CLOSE_BROKEN_MS: u64 = 500;
/// Beside drain and closing: killing what did not close, and a turn that came late.
const END_SPARE_MS: u64 = 3_000;

/// Runs the daemon in the foreground until it ended; its exit status. `path`: where `config` came from, read again at
/// SIGHUP. The process must have no second thread. In the children it does not return: they exit with what `body`
/// gives.
pub fn serve(config: Config, path: Option<PathBuf>, body: Body) -> ExitCode {
    ExitCode::from(run(config, path, body))
}

fn run(config: Config, path: Option<PathBuf>, body: Body) -> u8 {
    // First, so that a signal during the start is not lost: it waits until the daemon serves.
    let signals = match Signals::block() {
        Ok(signals) => signals,
        Err(error) => return cannot_start(&format!("signalfd: {error}")),
    };
    let started = clock::now();
    let (mut house, listener, warnings) = match start::open(config) {
        Ok(opened) => opened,
        Err(error) => return cannot_start(&error),
    };
    let about = About { pid: nix::unistd::Pid::this().as_raw(), since: started, warnings };
    let master = Master::new(signals, listener, &house, about, path);
    let mut master = match master {
        Ok(master) => master,
        Err(error) => return cannot_start(&error.to_string()),
    };
    match master.run(&mut house) {
        Outcome::Ended(status) => status,
        Outcome::Child(seat) => {
            // Poll, signals and admin connections are the master's: a child that kept them would keep admin clients
            // waiting.
            drop(master);
            std::process::exit(i32::from(body(seat, &house)))
        }
    }
}

fn cannot_start(why: &str) -> u8 {
    tracing::error!("cannot start: {why}");
    exit::SYSTEM
}

/// How a process leaves the master's loop.
enum Outcome {
    /// The daemon ended.
    Ended(u8),
    /// It is a child now.
    Child(Seat),
}

struct Master {
    poll: Poll,
    signals: Signals,
    admin: Option<Admin>,
    children: Children,
    about: About,
    path: Option<PathBuf>,
    /// When the phase ends at the latest; `NEVER` while Running.
    deadline: Tick,
    /// What the master exits with.
    status: u8,
    /// Every process has come round its loop once, and systemd knows.
    serving: bool,
    watchdog: Option<Watchdog>,
}

/// systemd ends a daemon that does not report in time (sd_watchdog_enabled(3)); we report twice as often.
struct Watchdog {
    every: Duration,
    due: Tick,
}

impl Master {
    fn new(
        signals: Signals,
        listener: Option<mio::net::TcpListener>,
        house: &House,
        about: About,
        path: Option<PathBuf>,
    ) -> std::io::Result<Master> {
        let poll = Poll::new()?;
        signals.register(poll.registry(), SIGNALS)?;
        let admin = listener.map(|listener| Admin::new(listener, poll.registry(), ADMIN)).transpose()?;
        Ok(Master {
            children: Children::new(house.config.seats(), about.since),
            poll,
            signals,
            admin,
            about,
            path,
            deadline: Tick::NEVER,
            status: exit::OK,
            serving: false,
            watchdog: sd_notify::watchdog_enabled().map(|limit| Watchdog { every: limit / 2, due: Tick::default() }),
        })
    }

    /// Find out what happened, put it right, wait.
    fn run(&mut self, house: &mut House) -> Outcome {
        let mut events = Events::with_capacity(64);
        loop {
            let now = clock::now();
            self.listen_to_signals(house, now);
            self.children.reap(house, now);
            self.children.end_hanging(house, now);
            if let Some(status) = self.end(house, now) {
                return Outcome::Ended(status);
            }
            if house.shared.phases.current() != Phase::Closing
                && let Some(seat) = self.children.fill(house, now)
            {
                return Outcome::Child(seat);
            }
            self.tell_systemd(house, now);
            self.answer(house, &events, now);
            events.clear();
            // An error is an interruption (ctrl-Z, a debugger): the next turn looks at everything anyway.
            let _ = self.poll.poll(&mut events, Some(self.patience(house)));
        }
    }

    fn patience(&self, house: &House) -> Duration {
        let turn = match house.shared.phases.current() {
            _ if self.admin.as_ref().is_some_and(Admin::has_more) => Duration::ZERO,
            Phase::Draining | Phase::Closing => TURN_DRAINING,
            Phase::Running if !self.serving || !children::all_seated(house) => TURN_STARTING,
            Phase::Running => TURN,
        };
        self.watchdog.as_ref().map_or(turn, |watchdog| watchdog.every.min(turn))
    }

    fn listen_to_signals(&mut self, house: &mut House, now: Tick) {
        while let Some(heard) = self.signals.next() {
            match heard {
                Heard::End => self.begin_end(house, now),
                Heard::Reload => reload::reload(house, self.path.as_deref()),
                Heard::Death => {} // every turn reaps
            }
        }
    }

    /// The first request to end drains, the second closes at once, the third kills.
    fn begin_end(&mut self, house: &House, now: Tick) {
        match house.shared.phases.current() {
            Phase::Running => {
                let seconds = house.config.live.drain_s;
                tracing::info!("draining for at most {seconds} s: no new calls");
                // Without the second word systemd kills us after TimeoutStopSec, however long `drain_s` is (sd_notify(3)).
                notify(&[NotifyState::Stopping, NotifyState::ExtendTimeoutUsec(end_usec(seconds))]);
                self.enter(house, Phase::Draining, now + seconds.saturating_mul(1000));
            }
            Phase::Draining => self.enter(house, Phase::Closing, now + CLOSE_MS),
            Phase::Closing => self.deadline = now,
        }
    }

    fn enter(&mut self, house: &House, phase: Phase, deadline: Tick) {
        house.shared.phases.enter(phase);
        house.wake_all();
        self.deadline = deadline;
    }

    /// Walks on towards the end, if we are on the way; `Some`: that was it.
    fn end(&mut self, house: &House, now: Tick) -> Option<u8> {
        let phases = &house.shared.phases;
        if phases.current() != Phase::Closing && self.children.too_many_deaths(now) {
            tracing::error!("more than 10 processes died within 10 s: giving up, exit status {}", exit::DEATHS);
            self.status = exit::DEATHS;
            self.enter(house, Phase::Closing, now + CLOSE_BROKEN_MS);
        }
        if phases.current() == Phase::Draining && (now >= self.deadline || house.shared.unfinished() == 0) {
            let left = house.shared.unfinished();
            tracing::info!("closing; {left} transactions unfinished");
            self.enter(house, Phase::Closing, now + CLOSE_MS);
        }
        if phases.current() != Phase::Closing {
            return None;
        }
        if children::all_seats_empty(house) {
            tracing::info!("ended");
            return Some(self.status);
        }
        if now >= self.deadline {
            tracing::warn!("some processes did not end by themselves: killing them");
            self.children.kill_all(house);
            self.deadline = Tick::NEVER;
        }
        None
    }

    fn tell_systemd(&mut self, house: &House, now: Tick) {
        if !self.serving && children::all_ready(house) {
            self.serving = true;
            let admin = self.admin.as_ref().and_then(|admin| admin.address().ok());
            let admin = admin.map_or_else(String::new, |address| format!(", admin on {address}"));
            tracing::info!(workers = house.config.workers, "serving{admin}");
            notify(&[NotifyState::Ready]);
        }
        if let Some(watchdog) = self.watchdog.as_mut().filter(|watchdog| now >= watchdog.due) {
            // A little before its time is better than a turn after it.
            watchdog.due = now + u64::try_from(watchdog.every.as_millis()).unwrap_or(u64::MAX) / 2;
            notify(&[NotifyState::Watchdog]);
        }
    }

    fn answer(&mut self, house: &House, events: &Events, now: Tick) {
        let Some(admin) = &mut self.admin else { return };
        let answer = |question: &[u8]| report::answer(question, house, &self.about, now);
        for event in events.iter().filter(|event| event.token() != SIGNALS) {
            admin.ready(event.token(), self.poll.registry(), &answer);
        }
        let live = &house.config.live;
        let refused = admin.turn(self.poll.registry(), now, &|ip| live.may(0, What::Admin, ip));
        house.shared.counters.add(house.shared.counters.master(), Counter::AdminRefused, refused);
    }
}

/// How long the end may take with this `drain_s`, microseconds: the longest, an hour and a little, fits.
fn end_usec(drain_s: u64) -> u32 {
    let ms = drain_s.saturating_mul(1_000).saturating_add(CLOSE_MS + END_SPARE_MS);
    u32::try_from(ms.saturating_mul(1_000)).unwrap_or(u32::MAX)
}

/// Nobody but systemd listens, and without systemd nobody needs to.
fn notify(states: &[NotifyState<'_>]) {
    let _ = sd_notify::notify(states);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn systemd_is_asked_for_the_whole_of_the_longest_drain() {
        assert_eq!(end_usec(2), 7_000_000);
        assert_eq!(end_usec(3_600), 3_605_000_000);
    }
}
