//! `strowger bench phones`: one phone process of a measurement, started by the manager and spoken to over stdin and stdout.
//!
//! Owns: the loop (one mio `Poll`), the clock, and the talk with the manager. It ends with its stdin. Everything that happens for
//! each message is made to cost little, for the phones share the processors with the proxy that is measured: no allocation, one
//! system call to send and one to read, a call found by its Call-ID without a search.
//!
//! ```text
//! mod ── the loop, the manager's orders
//!   └─ crowd ── phones and calls          caller, callee, register ── its procedures
//!        ├─ read, write, id ── messages
//!        └─ lines ── sockets: UDP, TCP, SCTP by the kernel or in user space
//! ```

mod callee;
mod caller;
mod crowd;
mod id;
mod lines;
mod orders;
mod read;
mod register;
#[cfg(test)]
mod tests;
mod write;

use std::io;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use std::os::fd::{AsFd, AsRawFd};

use self::crowd::{Crowd, Now};
use self::lines::{At, Far, Lines, Reads};
use self::orders::Orders;
use super::demand::MOST_FILES;
use super::results::Arrival;
use super::words::{Order, Report, SetUp};

const STDIN: Token = Token(usize::MAX - 1);
const DUE: Token = Token(usize::MAX - 2);
/// Deadlines are looked at so often; retransmissions may be late by it.
const SWEEP_US: u64 = 50_000;
/// While callers wait to call again.
const RESTLESS_US: u64 = 5_000;
/// After the window, open calls may end as long as one does within this, and no longer than that.
const DRAIN_US: u64 = 3_000_000;
const LONGEST_DRAIN_US: u64 = 20_000_000;
/// A full socket is tried again after this.
const BEHIND: Duration = Duration::from_millis(1);

/// Runs until stdin ends.
#[must_use]
pub fn run() -> ExitCode {
    // Ctrl-C is the manager's: it ends us.
    let mut set = SigSet::empty();
    [Signal::SIGINT, Signal::SIGHUP].into_iter().for_each(|signal| set.add(signal));
    let _ = set.thread_block();
    let ended = Process::new().and_then(|mut process| process.live());
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            orders::say(&Report::Trouble(e.to_string()));
            ExitCode::FAILURE
        }
    }
}

struct Process {
    poll: Poll,
    events: Events,
    orders: Orders,
    reads: Reads,
    born: Instant,
    swept_us: u64,
    stage: Stage,
    /// After `SetUp`.
    crew: Option<Crew>,
}

struct Crew {
    crowd: Crowd,
    lines: Lines,
    schedule: Option<Schedule>,
    burden: Duration,
}

/// What the manager waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Waiting,
    Registering,
    Calling,
    Measuring,
    Draining { open: u64, until_us: u64, longest_us: u64 },
}

/// An open loop: when calls are due. The timer rings for each; what it does not wake us for is made up for, late and counted as late.
struct Schedule {
    timer: TimerFd,
    next_ns: u128,
    every_ns: u128,
}

impl Process {
    fn new() -> io::Result<Process> {
        let poll = Poll::new()?;
        let orders = Orders::new()?;
        poll.registry().register(&mut SourceFd(&orders.as_raw_fd()), STDIN, Interest::READABLE)?;
        Ok(Process {
            poll,
            events: Events::with_capacity(512),
            orders,
            reads: Reads::new()?,
            born: now(),
            swept_us: 0,
            stage: Stage::Waiting,
            crew: None,
        })
    }

    fn now(&self) -> Now {
        Now(u64::try_from(self.born.elapsed().as_micros()).unwrap_or(u64::MAX))
    }

    fn live(&mut self) -> io::Result<()> {
        let mut ready: Vec<Ready> = Vec::with_capacity(512);
        loop {
            let timeout = self.timeout();
            match self.poll.poll(&mut self.events, Some(timeout)) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                other => other?,
            }
            ready.clear();
            ready.extend(self.events.iter().map(Ready::of));
            let (mut asked, mut rang) = (false, false);
            for event in &ready {
                match event.token {
                    STDIN => asked = true,
                    DUE => rang = true,
                    Token(at) => self.serve(at, event),
                }
            }
            self.place_due(rang);
            self.work_off();
            if asked && !self.hear_orders()? {
                return Ok(());
            }
            if !self.tell() {
                return Ok(());
            }
        }
    }

    fn timeout(&self) -> Duration {
        match &self.crew {
            Some(crew) if crew.lines.is_behind() => BEHIND,
            Some(crew) if crew.crowd.is_restless() => Duration::from_micros(RESTLESS_US),
            Some(_) => Duration::from_micros(SWEEP_US),
            None => Duration::from_secs(1),
        }
    }

    /// Reads a line, and lets the phones hear it.
    fn serve(&mut self, at: At, event: &Ready) {
        let now = self.now();
        let Process { crew: Some(crew), reads, born, .. } = self else { return };
        let Crew { crowd, lines, burden, .. } = crew;
        if event.writable {
            lines.writable(at);
        }
        let whose = lines.connection(at);
        loop {
            let more = lines.receive(at, reads, now.ms());
            // Read again: the time of what is heard is not that of what waited before it.
            let now = Now(u64::try_from(born.elapsed().as_micros()).unwrap_or(u64::MAX));
            for message in reads.iter() {
                crowd.heard(message, at, now, lines);
                waste(*burden);
            }
            match more {
                Ok(true) => {}
                // With the end of a connection there is always one more thing to read: the end.
                Ok(false) if event.ended && whose.is_some() && lines.connection(at) == whose => {}
                Ok(false) => return,
                Err(_) => return crowd.lost(at, now, lines),
            }
        }
    }

    /// An open loop's calls, each when it is due.
    fn place_due(&mut self, rang: bool) {
        let now = self.now();
        let Some(Crew { crowd, lines, schedule: Some(schedule), .. }) = &mut self.crew else { return };
        if rang {
            // It rings again only when it has been read.
            let _ = schedule.timer.wait();
        }
        while schedule.next_ns <= u128::from(now.0) * 1_000 {
            let due = Now(u64::try_from(schedule.next_ns / 1_000).unwrap_or(u64::MAX));
            schedule.next_ns += schedule.every_ns;
            crowd.place_one(due, now, lines);
        }
    }

    /// The end of a turn: what was held leaves, deadlines are looked at.
    fn work_off(&mut self) {
        let now = self.now();
        let Process { crew: Some(Crew { crowd, lines, .. }), reads, swept_us, .. } = self else { return };
        let pause = if crowd.is_restless() { RESTLESS_US } else { SWEEP_US };
        if now.0 >= *swept_us + pause {
            *swept_us = now.0;
            crowd.sweep(now, lines);
            let mut from = 0;
            while let Some(at) = lines.rung(from, now.ms()) {
                from = at + 1;
                let state = lines.receive(at, reads, now.ms());
                reads.iter().for_each(|message| crowd.heard(message, at, now, lines));
                if state.is_err() {
                    crowd.lost(at, now, lines);
                }
            }
        }
        lines.flush(now.ms());
        while let Some(at) = lines.lost.pop() {
            crowd.lost(at, now, lines);
        }
    }

    /// False: the manager is gone.
    fn hear_orders(&mut self) -> io::Result<bool> {
        while let Some(order) = self.orders.next()? {
            self.obey(order)?;
        }
        Ok(!self.orders.ended())
    }

    fn obey(&mut self, order: Order) -> io::Result<()> {
        let now = self.now();
        if let Order::SetUp(order) = order {
            self.crew = Some(self.set_up(*order)?);
            orders::say(&Report::Ready);
            return Ok(());
        }
        let Some(Crew { crowd, lines, schedule, .. }) = &mut self.crew else { return Ok(()) };
        match order {
            Order::SetUp(_) => {}
            Order::Register => {
                self.stage = Stage::Registering;
                crowd.register_all(now, lines);
            }
            Order::Begin => {
                self.stage = Stage::Calling;
                crowd.begin(now);
                if let Arrival::Open { calls_per_s } = crowd.order.arrival {
                    *schedule = Some(Schedule::new(self.poll.registry(), now, calls_per_s, crowd.order.phase_s)?);
                }
            }
            Order::Open => {
                self.stage = Stage::Measuring;
                crowd.open(now, lines);
            }
            Order::Close => {
                if self.stage != Stage::Measuring {
                    return Ok(());
                }
                let figures = crowd.close(now, lines);
                self.stage = Stage::Draining {
                    open: crowd.open_calls,
                    until_us: now.0 + DRAIN_US,
                    longest_us: now.0 + LONGEST_DRAIN_US,
                };
                *schedule = None;
                orders::say(&Report::Figures(Box::new(figures)));
            }
        }
        Ok(())
    }

    fn set_up(&mut self, order: SetUp) -> io::Result<Crew> {
        let _ = sys::process::set_nice(order.nice);
        let (phones, most) = (2 * u64::from(order.pairs), u64::from(u32::MAX));
        let files = sys::process::set_open_files(MOST_FILES)?;
        if order.trunks.is_none() && phones + SPARE_FILES > files.min(most) {
            return Err(io::Error::other(format!(
                "{phones} phones need more than the {files} file descriptors that this process may have: raise `ulimit -Hn`, or use \
                 more phone processes"
            )));
        }
        let far = Far {
            wire: order.wire,
            proxy: order.proxy,
            encapsulation_port: order.encapsulation_port,
            trunks: order.trunks.is_some(),
        };
        let lines = Lines::new(self.poll.registry(), far)?;
        let burden = Duration::from_micros(order.burden_us);
        Ok(Crew { crowd: Crowd::new(order), lines, schedule: None, burden })
    }

    /// Reports what the manager waits for. False: nothing goes on.
    fn tell(&mut self) -> bool {
        let now = self.now();
        let Some(Crew { crowd, .. }) = &mut self.crew else { return true };
        if let Some(trouble) = crowd.trouble.take() {
            orders::say(&Report::Trouble(trouble));
            return false;
        }
        match self.stage {
            Stage::Registering => {
                if let Some(failures) = crowd.registered() {
                    self.stage = Stage::Waiting;
                    orders::say(&Report::Registered { phones: crowd.count(), failures });
                }
            }
            Stage::Draining { until_us, longest_us, .. }
                if crowd.open_calls == 0 || now.0 >= until_us.min(longest_us) =>
            {
                self.stage = Stage::Waiting;
                orders::say(&crowd.drained(now));
            }
            Stage::Draining { open, longest_us, .. } if crowd.open_calls < open => {
                let (open, until_us) = (crowd.open_calls, now.0 + DRAIN_US);
                self.stage = Stage::Draining { open, until_us, longest_us };
            }
            _ => {}
        }
        true
    }
}

/// Descriptors that are no connections.
const SPARE_FILES: u64 = 64;

struct Ready {
    token: Token,
    writable: bool,
    ended: bool,
}

impl Ready {
    fn of(event: &mio::event::Event) -> Ready {
        Ready { token: event.token(), writable: event.is_writable(), ended: event.is_read_closed() || event.is_error() }
    }
}

impl Schedule {
    fn new(registry: &mio::Registry, now: Now, calls_per_s: f64, phase_s: f64) -> io::Result<Schedule> {
        let every = Duration::from_secs_f64(1.0 / calls_per_s.max(1e-3));
        let phase = Duration::from_secs_f64(phase_s.max(1e-9));
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC)?;
        registry.register(&mut SourceFd(&timer.as_fd().as_raw_fd()), DUE, Interest::READABLE)?;
        let ringing = Expiration::IntervalDelayed(TimeSpec::from(phase), TimeSpec::from(every));
        timer.set(ringing, TimerSetTimeFlags::empty())?;
        let next_ns = u128::from(now.0) * 1_000 + phase.as_nanos();
        Ok(Schedule { timer, next_ns, every_ns: every.as_nanos().max(1) })
    }
}

/// Makes slow phones, for tests.
fn waste(time: Duration) {
    if !time.is_zero() {
        let began = now();
        while began.elapsed() < time {
            std::hint::spin_loop();
        }
    }
}

#[allow(
    clippy::disallowed_methods,
    reason = "phones have a process and a clock of their own, outside the message path"
)]
fn now() -> Instant {
    Instant::now()
}
