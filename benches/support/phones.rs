//! Phones that call through a proxy, in rounds, and what a round cost the proxy.
//!
//! Owns: what is counted, per operation: one INVITE or BYE transaction, so a call is two. The phones are those of `strowger bench`,
//! processes of their own that end with the round; a round has a domain of its own, so that nobody is called who has gone.

use std::cell::Cell;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use strowger::phone::bench::measure::{Stage, measure_all};
use strowger::phone::bench::results::{self, Arrival, BUSY, Point, Subject};
use strowger::phone::bench::rig::{self, Rig};
use strowger::phone::bench::spread::Spread;
use strowger::transport::Transport;

use crate::proxy::{Proxy, Spent, domain};

/// Who calls, and over what.
#[derive(Clone, Debug)]
pub struct Phones {
    /// The program that is also the phones.
    pub program: PathBuf,
    pub transport: Transport,
    /// Callers, and as many callees.
    pub clients: usize,
    pub lines: Lines,
    pub arrival: Arrival,
    /// Calls before those that are measured.
    pub warm_up: Duration,
    pub nice: i32,
}

/// Phones as those of `Rig` are go before the proxy's processes, where they may: each answer takes the processor from a worker, which
/// then costs more CPU. Two proxies, or a proxy and the floor, are compared without that.
pub const NICE: i32 = 0;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lines {
    /// Each phone has its own connection or association.
    Own,
    /// All calls travel over so many, on each side.
    Trunks(u32),
    /// Each call comes over a connection of its own, which the caller closes.
    PerCall,
}

/// What the phones saw of one round.
#[derive(Clone, Copy, Debug, Default)]
pub struct Calls {
    pub operations: u64,
    pub took: Duration,
    pub failed: u64,
    pub retransmitted: u64,
    /// Open loop: the most that a call began late. More than a few ms: these phones could do no more.
    pub behind: Duration,
    /// The busiest phone process, 0 to 1.
    pub busy: f64,
    /// CPU of all the proxy's processes while these calls ran, µs per operation. What comes after them is not in it (`Cost`).
    pub cpu: f64,
    /// 99 of 100 were set up within this.
    pub p99: Duration,
}

/// Less than this share of a rate is another load.
const REACHED: f64 = 0.9;

impl Calls {
    /// Why what these calls cost is no figure: calls failed, the phones could do no more, the rate was not reached.
    pub fn fault(&self, arrival: Arrival) -> Option<String> {
        let calls = self.operations / 2;
        if results::fails(calls, self.failed) {
            return Some(format!("{} calls failed, {calls} did not", self.failed));
        }
        match arrival {
            Arrival::Closed => (self.busy >= BUSY).then(|| "the phones were the limit".to_owned()),
            Arrival::Open { calls_per_s } => {
                let reached = calls as f64 / self.took.as_secs_f64();
                (reached < REACHED * calls_per_s).then(|| format!("{reached:.0} calls/s instead of {calls_per_s}"))
            }
        }
    }
}

/// CPU of a proxy from the first call of a round to the beginning of the next one. What becomes of a finished transaction (ours stay for
/// up to 32 s, Kamailio's for 5 s) is paid when the calls are long over: once rounds have been alike for so long, each pays for one
/// like it.
pub struct Meter {
    began: Instant,
    before: Spent,
    idle: Spent,
    idle_for: Duration,
}

/// What a round cost, per operation.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cost {
    /// CPU of all the proxy's processes, µs; what it uses without calls is taken off for the time without calls.
    pub cpu: f64,
    /// How often one of them went to sleep.
    pub sleeps: f64,
}

/// In an emulated machine, too, whose seconds are 10^9 instructions.
const SETTLES: Duration = Duration::from_secs(2);

thread_local! {
    static ROUNDS: Cell<usize> = const { Cell::new(0) };
}

/// For the next round.
pub fn next_domain() -> String {
    let round = ROUNDS.get();
    ROUNDS.set(round + 1);
    domain(round)
}

impl Phones {
    /// Registers, then calls for so long; the meter runs from the first call on.
    pub fn call(&self, proxy: &Proxy, meter: &mut Meter, how_long: Duration) -> Calls {
        self.watched(proxy, how_long, &mut || meter.begin(proxy))
    }

    /// The same, for who looks at nothing but these calls.
    pub fn measured(&self, proxy: &Proxy, how_long: Duration) -> Calls {
        self.watched(proxy, how_long, &mut || {})
    }

    fn watched(&self, proxy: &Proxy, how_long: Duration, begins: &mut dyn FnMut()) -> Calls {
        let mut rig = Rig::own(self.program.clone());
        rig.proxy = rig::Proxy::Foreign { address: proxy.address, encapsulation_port: 9899, pid: Some(proxy.pid()) };
        rig.nice = self.nice;
        rig.domain = next_domain();
        rig.connection_per_call = self.lines == Lines::PerCall;
        rig.trunks = if let Lines::Trunks(trunks) = self.lines { Some(trunks) } else { None };
        let mut begun = false;
        let measured = measure_all(&self.point(how_long), &rig, &mut |progress| {
            if progress.stage == Stage::Measuring && !begun {
                begun = true;
                begins();
            }
            ControlFlow::Continue(())
        });
        let measured = measured.unwrap_or_else(|error| panic!("calls over {}: {error}", self.transport.via_token()));
        Calls {
            operations: measured.sample.operations,
            took: Duration::from_secs_f64(measured.sample.wall_s),
            failed: measured.sample.failed_calls,
            retransmitted: measured.sample.retransmissions,
            behind: Duration::from_micros(measured.figures.behind_us),
            busy: measured.sample.phones_busy,
            cpu: measured.sample.cpu_us_per_operation(),
            p99: Duration::from_secs_f64(measured.sample.set_up.p99_us / 1e6),
        }
    }

    fn point(&self, how_long: Duration) -> Point {
        Point {
            subject: Subject {
                name: self.transport.via_token().to_owned(),
                transport: self.transport.uri_token().to_owned(),
                tables: String::new(),
            },
            clients: self.clients,
            renew_every: None,
            arrival: self.arrival,
            workers: crate::proxy::WORKERS,
            supervisor_nice: 0,
            idle_s: None,
            warm_up_s: self.warm_up.as_secs_f64(),
            measure_s: how_long.as_secs_f64(),
        }
    }
}

impl Meter {
    /// Looks for so long at what the proxy uses while nobody calls; not before all its processes have begun: one answers before the last is
    /// there, and what they begin with is not what they use idle.
    pub fn of(proxy: &Proxy, idle_for: Duration) -> Meter {
        sleep(SETTLES);
        let (began, before) = (Instant::now(), proxy.spent());
        sleep(idle_for);
        Meter { began, before, idle: proxy.spent() - before, idle_for: began.elapsed() }
    }

    pub fn begin(&mut self, proxy: &Proxy) {
        (self.began, self.before) = (Instant::now(), proxy.spent());
    }

    pub fn end(&self, proxy: &Proxy, calls: &Calls) -> Cost {
        let spent = proxy.spent() - self.before;
        let idle = self.began.elapsed().saturating_sub(calls.took).as_secs_f64() / self.idle_for.as_secs_f64();
        let operations = calls.operations.max(1) as f64;
        Cost {
            cpu: (spent.cpu.as_secs_f64() - idle * self.idle.cpu.as_secs_f64()) * 1e6 / operations,
            sleeps: (spent.sleeps as f64 - idle * self.idle.sleeps as f64) / operations,
        }
    }
}

/// The daemon that was built with the benchmark, or the one that BENCH_DAEMON names.
pub fn daemon(built: &str) -> PathBuf {
    std::env::var_os("BENCH_DAEMON").map_or_else(|| Path::new(built).to_owned(), PathBuf::from)
}

/// Least, median and greatest.
pub fn spread(figures: impl Iterator<Item = f64>) -> [f64; 3] {
    Spread::of(figures).map_or([f64::NAN; 3], |spread| [spread.least, spread.median, spread.most])
}
