//! One sample of one point: the proxy starts, the phones register, call, are measured, and everything ends.
//!
//! Owns: the order of these, the window, and the judgement who was the limit. What did not happen within the window does not count.
//!
//! The window (the paper's phase 2) is a time, not a set number of calls as the paper had: with a number the fast callers are done and
//! idle while the slow ones still call, and a row would be as long as its subject is slow. So all callers call all the time, and every
//! row is as long as another of its kind.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use super::crew::{Crew, INTERRUPTED};
use super::machine::Used;
use super::results::{Arrival, BUSY, Limit, Point, Row, Sample, SetUp};
use super::rig::{Proxy, Rig, Running, Times};
use super::time::Time;
use super::words::{self, Figures, Order, Report, Wire};

/// What is going on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    Starting,
    Registering,
    WarmingUp,
    /// The window is open.
    Measuring,
    Ending,
}

/// Told twenty times a second.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    pub stage: Stage,
    /// Until this sample is done, as far as it is known.
    pub left: Duration,
    /// The process whose processor time, with its descendants', is measured.
    pub proxy: Option<u32>,
}

/// Hears of the progress; `Break` ends the measurement at once, with everything that it has started.
pub type Watch<'w> = dyn FnMut(&Progress) -> ControlFlow<()> + 'w;

/// A sample and what else the phones saw.
#[derive(Clone, Debug)]
pub struct Measured {
    pub sample: Sample,
    pub figures: Figures,
    /// What else is to be known of it.
    pub notes: Vec<String>,
}

/// The daemon may take so long to be ready: its memory may be large, the machine emulated.
const START: Duration = Duration::from_secs(30);
/// All phones have so long to register.
const REGISTER: Duration = Duration::from_secs(300);
/// A phone process may be so busy that it answers late.
const ANSWER: Duration = Duration::from_secs(30);
/// What a sample takes beside warm-up and window, until it was seen: daemon and phones start, register and end.
pub const AROUND: Duration = Duration::from_secs(2);
/// An open loop that reached this share of its rate was not limited.
const REACHED: f64 = 0.98;
/// So many registrations refused, of a hundred, make a measurement meaningless.
const REFUSED_PERCENT: u64 = 1;

/// Of a call that was still going on so long after the window that it counts as failed.
const NO_END: &str = "no end after the window";

/// Measures a point once: the daemon is started for it, and ended.
///
/// # Errors
/// What could not be started, did not register, or died meanwhile; `interrupted` when `watch` broke off.
pub fn measure(point: &Point, rig: &Rig, watch: &mut Watch) -> Result<Sample, String> {
    measure_all(point, rig, watch).map(|measured| measured.sample)
}

/// The same, with all that the phones saw.
///
/// # Errors
/// As `measure`.
pub fn measure_all(point: &Point, rig: &Rig, watch: &mut Watch) -> Result<Measured, String> {
    let wire = Wire::of(&point.subject.transport)
        .ok_or_else(|| format!("no transport {:?}; udp, tcp, sctp and sctp-user are some", point.subject.transport))?;
    if wire == Wire::Sctp && !sys::sctp::supported() {
        return Err("this kernel has no SCTP (as root: modprobe sctp)".to_owned());
    }
    if point.clients == 0 {
        return Err("nobody calls: clients = 0".to_owned());
    }
    let (running, udp) = Running::start(point, wire, rig)?;
    let mut sitting = Sitting { point, rig, running, watch };
    sitting.wait_until_ready(udp)?;
    let measured = sitting.with_phones(wire);
    let said = sitting.running.said();
    let Sitting { running, .. } = sitting;
    let stopped = running.stop();
    match (measured, stopped) {
        (Ok(measured), Ok(())) => Ok(measured),
        (Err(e), _) if e == INTERRUPTED || said.trim().is_empty() => Err(e),
        (Err(e), _) | (Ok(_), Err(e)) => Err(format!("{e}. The daemon said:\n{}", tail(&said))),
    }
}

/// Every point `rounds` times, one after the other and then all again, so that what changes on the machine meanwhile changes all.
/// Each sample is in its row as soon as it is taken, whatever becomes of the next.
///
/// # Errors
/// As `measure`, with the point's name.
pub fn run_interleaved(
    rows: &mut [Row],
    rounds: usize,
    rig: &Rig,
    watch: &mut dyn FnMut(&Turn) -> ControlFlow<()>,
) -> Result<(), String> {
    for round in 0..rounds {
        for (nth, Row { point, samples }) in rows.iter_mut().enumerate() {
            let point = &*point;
            let mut tell = |progress: Option<&Progress>, measured: Option<&Measured>| {
                watch(&Turn { round, nth, point, progress, measured })
            };
            let measured = measure_all(point, rig, &mut |progress| tell(Some(progress), None));
            let measured =
                measured.map_err(|e| if e == INTERRUPTED { e } else { format!("{}: {e}", point.subject.name) })?;
            samples.push(Sample { round: Some(round), ..measured.sample.clone() });
            if tell(None, Some(&measured)).is_break() {
                return Err(INTERRUPTED.to_owned());
            }
        }
    }
    Ok(())
}

/// Where `run_interleaved` is.
#[derive(Clone, Copy, Debug)]
pub struct Turn<'t> {
    pub round: usize,
    /// Which point.
    pub nth: usize,
    pub point: &'t Point,
    /// While it is measured.
    pub progress: Option<&'t Progress>,
    /// When it has been.
    pub measured: Option<&'t Measured>,
}

/// What everybody had used at one end of the window.
struct Look {
    at: Instant,
    /// None: nobody said which processes are the proxy's.
    proxy: Option<Times>,
    phones: Vec<Time>,
    used: Option<Used>,
}

/// A sample on its way.
struct Sitting<'s, 'w> {
    point: &'s Point,
    rig: &'s Rig,
    running: Running,
    watch: &'s mut Watch<'w>,
}

impl Sitting<'_, '_> {
    fn tell(&mut self, stage: Stage, left_s: f64) -> ControlFlow<()> {
        let left = Duration::from_secs_f64(left_s.max(0.0));
        (self.watch)(&Progress { stage, left, proxy: self.running.pid() })
    }

    /// Warm-up, window, and a second for the rest.
    fn whole_s(&self) -> f64 {
        self.point.warm_up_s + self.point.measure_s + 1.0
    }

    fn wait_until_ready(&mut self, udp: Option<std::net::SocketAddr>) -> Result<(), String> {
        let began = now();
        while !self.running.is_ready(udp)? {
            if self.tell(Stage::Starting, self.whole_s()).is_break() {
                return Err(INTERRUPTED.to_owned());
            }
            if now() - began > START {
                let said = self.running.said();
                return Err(format!("the daemon is not ready after {} s. It said:\n{}", START.as_secs(), tail(&said)));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    fn with_phones(&mut self, wire: Wire) -> Result<Measured, String> {
        let mut crew = Crew::start(&self.rig.program, self.rig.phone_processes(self.point.clients))?;
        self.set_up(&mut crew, wire)?;
        self.register(&mut crew)?;
        crew.say_to_all(&Order::Begin)?;
        self.pass(&mut crew, Stage::WarmingUp, self.point.warm_up_s, self.point.measure_s + 1.0)?;

        // Before the first operation counts: who looks at the proxy, too, begins here.
        if self.tell(Stage::Measuring, self.point.measure_s + 1.0).is_break() {
            return Err(INTERRUPTED.to_owned());
        }
        crew.say_to_all(&Order::Open)?;
        let before = self.look(&crew);
        self.pass(&mut crew, Stage::Measuring, self.point.measure_s, 1.0)?;
        let after = self.look(&crew);
        crew.say_to_all(&Order::Close)?;
        let figures = self.figures(&mut crew)?;

        let wall_s = (after.at - before.at).as_secs_f64();
        let phones: Vec<Time> = after.phones.iter().zip(&before.phones).map(|(after, had)| after.since(*had)).collect();
        let proxy = before.proxy.as_ref().zip(after.proxy.as_ref());
        let cpu = proxy.map(|(before, after)| self.running.spent(before, after)).transpose()?;
        let mut sample = self.sample(wall_s, &figures, cpu.clone().unwrap_or_default(), &phones);
        sample.proxy_busy = proxy.map(|(before, after)| busiest(before, after, wall_s));
        if let Some(used) = after.used.zip(before.used).map(|(after, before)| after.since(before)) {
            let share = |seconds: f64| (seconds / (wall_s * f64::from(used.processors))).clamp(0.0, 1.0);
            let all = used.all.as_secs_f64();
            sample.others = share(all - sample.cpu_s - sample.phones_cpu_s);
            sample.interrupts = share(used.interrupts.as_secs_f64());
            sample.idle = Some(1.0 - share(all));
        }
        Ok(Measured { sample, figures, notes: self.running.notes.clone() })
    }

    fn look(&self, crew: &Crew) -> Look {
        Look { at: now(), proxy: self.running.times(), phones: crew.times(), used: Used::now() }
    }

    fn set_up(&mut self, crew: &mut Crew, wire: Wire) -> Result<(), String> {
        let (rig, point, count) = (self.rig, self.point, crew.len());
        let mut seed = [0; 4];
        getrandom::fill(&mut seed).map_err(|e| e.to_string())?;
        for nth in 0..count {
            let share = |all: usize| all / count + usize::from(nth < all % count);
            let pairs = share(point.clients);
            let arrival = match point.arrival {
                Arrival::Closed => Arrival::Closed,
                Arrival::Open { calls_per_s } => {
                    Arrival::Open { calls_per_s: calls_per_s * pairs as f64 / point.clients as f64 }
                }
            };
            let phase_s = match point.arrival {
                Arrival::Closed => 0.0,
                Arrival::Open { calls_per_s } => (nth + 1) as f64 / calls_per_s.max(1e-3),
            };
            let order = words::SetUp {
                process: u8::try_from(nth).map_err(|_| "more than 256 phone processes")?,
                seed: u32::from_ne_bytes(seed),
                wire,
                proxy: self.running.address,
                encapsulation_port: self.running.encapsulation_port,
                domain: rig.domain.clone(),
                // A proxy that is not ours shall not know them for long.
                expires_s: 300 + (point.warm_up_s + point.measure_s) as u32,
                pairs: u32::try_from(pairs).map_err(|_| "too many clients")?,
                first: u32::try_from(nth).unwrap_or(0),
                step: u32::try_from(count).unwrap_or(1),
                trunks: rig.trunks.map(|trunks| u32::try_from(share(trunks as usize)).unwrap_or(1).max(1)),
                renew_every: point.renew_every.filter(|_| wire.is_reliable() && rig.trunks.is_none()),
                connection_per_call: rig.connection_per_call && wire.is_reliable() && rig.trunks.is_none(),
                arrival,
                phase_s,
                patience_ms: u32::try_from(rig.patience.as_millis()).unwrap_or(u32::MAX),
                nice: rig.nice,
                burden_us: rig.burden_us,
            };
            crew.say(nth, &Order::SetUp(Box::new(order)))?;
        }
        let left = self.whole_s();
        let ready = |report| matches!(report, Report::Ready).then_some(());
        crew.hear_from_all(ANSWER, &mut || self.tell(Stage::Registering, left), ready).map(drop)
    }

    fn register(&mut self, crew: &mut Crew) -> Result<(), String> {
        crew.say_to_all(&Order::Register)?;
        let (mut phones, mut failures, left) = (0, BTreeMap::new(), self.whole_s());
        crew.hear_from_all(REGISTER, &mut || self.tell(Stage::Registering, left), |report| {
            let Report::Registered { phones: of, failures: why } = report else { return None };
            phones += u64::from(of);
            why.into_iter().for_each(|(why, n)| *failures.entry(why).or_default() += n);
            Some(())
        })?;
        let failed: u64 = failures.values().sum();
        if failed * 100 > phones * REFUSED_PERCENT {
            let hint = match self.rig.proxy {
                Proxy::Own { .. } => String::new(),
                Proxy::Foreign { address, .. } => {
                    format!("; does the proxy at {address} register phones of the domain {}?", self.rig.domain)
                }
            };
            return Err(format!("{failed} of {phones} phones could not register: {}{hint}", reasons(&failures)));
        }
        Ok(())
    }

    fn pass(&mut self, crew: &mut Crew, stage: Stage, seconds: f64, then_s: f64) -> Result<(), String> {
        let time = Duration::from_secs_f64(seconds.max(0.0));
        let began = now();
        crew.wait(time, &mut || self.tell(stage, (time.saturating_sub(now() - began)).as_secs_f64() + then_s))?;
        self.running.check()
    }

    fn figures(&mut self, crew: &mut Crew) -> Result<Figures, String> {
        let (mut all, mut set_up) = (Figures::default(), words::histogram());
        let mut drained = 0;
        let count = crew.len();
        let mut heard = Vec::new();
        // The second report of one process may come before the first of another.
        let mut take = |report: Report| {
            match report {
                Report::Figures(figures) => {
                    all.add(&figures);
                    words::add_to(&mut set_up, &figures.set_up);
                }
                Report::Drained { unfinished, mut failures, set_up: late } => {
                    words::add_to(&mut set_up, &late);
                    drained += 1;
                    if unfinished > 0 {
                        failures.insert(NO_END.to_owned(), unfinished);
                    }
                    all.failed_calls += failures.values().sum::<u64>();
                    failures.into_iter().for_each(|(why, n)| *all.failures.entry(why).or_default() += n);
                }
                _ => return None,
            }
            Some(())
        };
        for _ in 0..2 {
            heard.extend(crew.hear_from_all(ANSWER, &mut || self.tell(Stage::Ending, 1.0), &mut take)?);
        }
        debug_assert!(heard.len() == 2 * count && drained == count);
        all.set_up = set_up.iter_recorded().map(|v| (v.value_iterated_to(), v.count_at_value())).collect();
        Ok(all)
    }

    fn sample(&self, wall_s: f64, figures: &Figures, cpu_by_process: BTreeMap<String, f64>, phones: &[Time]) -> Sample {
        let phones_busy = phones.iter().map(|time| time.busy(wall_s)).fold(0.0, f64::max);
        let mut set_up = words::histogram();
        words::add_to(&mut set_up, &figures.set_up);
        let at = |quantile| set_up.value_at_quantile(quantile) as f64;
        let operations = figures.invites + figures.byes;
        Sample {
            wall_s,
            operations,
            failed_calls: figures.failed_calls,
            failures: figures.failures.clone(),
            retransmissions: figures.retransmissions,
            connections: figures.connections,
            cpu_s: cpu_by_process.values().sum(),
            cpu_unknown: cpu_by_process.is_empty(),
            cpu_by_process,
            phones_busy,
            proxy_busy: None,
            phones_cpu_s: phones.iter().map(|time| time.run.as_secs_f64()).sum(),
            limit: limit(self.point.arrival, operations as f64 / 2.0 / wall_s, phones_busy),
            set_up: SetUp { p50_us: at(0.5), p99_us: at(0.99), p999_us: at(0.999) },
            others: 0.0,
            interrupts: 0.0,
            idle: None,
            round: None,
        }
    }
}

fn limit(arrival: Arrival, calls_per_s: f64, phones_busy: f64) -> Limit {
    match arrival {
        // Also where an open loop's rate was reached: such phones place and answer calls late, and the times are theirs.
        _ if phones_busy >= BUSY => Limit::Phones,
        Arrival::Open { calls_per_s: asked } if calls_per_s >= REACHED * asked => Limit::Rate,
        _ => Limit::Proxy,
    }
}

/// Of the proxy's processes.
fn busiest(before: &Times, after: &Times, wall_s: f64) -> f64 {
    let busy = |(pid, time): (&u32, &Time)| time.since(before.get(pid).copied().unwrap_or_default()).busy(wall_s);
    after.iter().map(busy).fold(0.0, f64::max)
}

/// `3 × 503 Service Unavailable, 1 × connection lost`
#[must_use]
pub fn reasons(failures: &BTreeMap<String, u64>) -> String {
    failures.iter().map(|(why, n)| format!("{n} × {why}")).collect::<Vec<_>>().join(", ")
}

/// The last lines of a log.
fn tail(said: &str) -> String {
    let lines: Vec<&str> = said.trim_end().lines().collect();
    lines.get(lines.len().saturating_sub(20)..).unwrap_or_default().join("\n")
}

#[allow(clippy::disallowed_methods, reason = "a measurement is outside the message path")]
fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_could_do_no_more_was_the_limit() {
        let open = Arrival::Open { calls_per_s: 100.0 };
        for (arrival, calls, busy, expected) in [
            (Arrival::Closed, 100.0, 0.94, Limit::Proxy),
            (Arrival::Closed, 100.0, 0.95, Limit::Phones),
            (open, 98.0, 0.94, Limit::Rate),
            (open, 98.0, 0.95, Limit::Phones),
            (open, 97.0, 1.0, Limit::Phones),
            (open, 97.0, 0.5, Limit::Proxy),
        ] {
            assert_eq!(limit(arrival, calls, busy), expected);
        }
    }
}
