//! The proxy that is measured: this daemon, started fresh for each sample, or another one that runs already.
//!
//! Owns: its beginning and end where it is ours, and its processor time, by kind of process. Never touches one that is not ours.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::configuration::{Configuration, Machine, Ports};
use super::demand;
use super::results::Point;
use super::time::Time;
use super::words::Wire;
use crate::config::Config;
use crate::master::status::{self, Status};
use crate::phone::daemon::{self, Daemon};

/// Phones shall not wait for a processor while the proxy has one: what they cost is not the question. It takes CAP_SYS_NICE.
pub const PHONES_NICE: i32 = -15;

/// With what, and how, is measured.
#[derive(Clone, Debug)]
pub struct Rig {
    /// This program, which is the daemon and the phones.
    pub program: PathBuf,
    pub proxy: Proxy,
    /// Phone processes; 0: one per processor, at most 4.
    pub processes: usize,
    /// Of the phones, where they may.
    pub nice: i32,
    /// Connections that carry all calls, on each side. None: each phone has its own.
    pub trunks: Option<u32>,
    /// Every call comes over a connection of its own, which the caller closes.
    pub connection_per_call: bool,
    pub domain: String,
    /// A call without an answer for so long has failed: 64*T1 (RFC 3261 §17.1.1.2, timer B).
    pub patience: Duration,
    /// Processor time that the phones waste for each message, microseconds: for tests.
    pub burden_us: u64,
}

#[derive(Clone, Debug)]
pub enum Proxy {
    /// This daemon; `file`: its configuration, over the generated one.
    Own { file: Option<PathBuf> },
    /// Whatever listens there; `pid`: the process whose processor time, with that of all its descendants, is its own.
    Foreign { address: SocketAddr, encapsulation_port: u16, pid: Option<u32> },
}

impl Rig {
    /// This daemon as `program`, measured with the usual phones.
    #[must_use]
    pub fn own(program: PathBuf) -> Rig {
        Rig {
            program,
            proxy: Proxy::Own { file: None },
            processes: 0,
            nice: PHONES_NICE,
            trunks: None,
            connection_per_call: false,
            domain: "example.test".to_owned(),
            patience: Duration::from_secs(32),
            burden_us: 0,
        }
    }

    /// Phone processes: with trunks not more than these, and not more than callers.
    #[must_use]
    pub fn phone_processes(&self, clients: usize) -> usize {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let wanted = if self.processes == 0 { processors.min(4) } else { self.processes };
        let most = self.trunks.map_or(usize::MAX, |trunks| trunks as usize);
        wanted.min(most).min(clients).max(1)
    }

    /// Lays the daemon's file and the points' tables over what was asked.
    ///
    /// # Errors
    /// One of them cannot be read, or has no listener for the phones.
    pub(super) fn plan(&self, points: Vec<Point>) -> Result<Vec<Planned>, String> {
        let machine = Machine::prepare()?;
        let plan = |mut point: Point| -> Result<Planned, String> {
            let (Proxy::Own { file }, Some(wire)) = (&self.proxy, Wire::of(&point.subject.transport)) else {
                return Ok(Planned { point, read: None });
            };
            let made = self.configuration(&point, wire, file.as_deref(), machine)?;
            made.fill(&mut point, wire);
            Ok(Planned { point, read: made.read })
        };
        points.into_iter().map(plan).collect()
    }

    /// With ports that are free now.
    fn configuration(
        &self,
        point: &Point,
        wire: Wire,
        file: Option<&Path>,
        machine: Machine,
    ) -> Result<Configuration, String> {
        let file = file.map(|path| std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display())));
        let file = file.transpose()?;
        let free = || daemon::free_port().map_err(|e| format!("no free port: {e}"));
        let ports = Ports { sip: free()?, admin: free()?, encapsulation: free()? };
        Configuration::make(point, wire, &self.domain, file.as_deref(), ports, machine)
    }
}

/// A point as it will be measured.
#[derive(Debug)]
pub(super) struct Planned {
    /// With what file and tables say.
    pub point: Point,
    /// The configuration as the daemon will read it. None: the proxy is not ours, or the daemon will refuse it.
    pub read: Option<Config>,
}

/// A proxy that can be called.
pub(super) struct Running {
    daemon: Option<Daemon>,
    pid: Option<u32>,
    pub address: SocketAddr,
    pub encapsulation_port: u16,
    /// Kinds of the daemon's processes.
    kinds: BTreeMap<u32, String>,
    admin: Option<SocketAddr>,
    /// What else is to be known of it.
    pub notes: Vec<String>,
}

/// Processor time of each process.
pub(super) type Times = BTreeMap<u32, Time>;

impl Running {
    /// Starts the daemon, or takes what is there; `is_ready` says whether it can be called.
    pub(super) fn start(point: &Point, wire: Wire, rig: &Rig) -> Result<(Running, Option<SocketAddr>), String> {
        let file = match &rig.proxy {
            Proxy::Foreign { address, encapsulation_port, pid } => {
                let running = Running {
                    daemon: None,
                    pid: *pid,
                    address: *address,
                    encapsulation_port: *encapsulation_port,
                    kinds: BTreeMap::new(),
                    admin: None,
                    notes: Vec::new(),
                };
                return match pid.filter(|pid| !std::path::Path::new(&format!("/proc/{pid}")).exists()) {
                    Some(pid) => Err(format!("there is no process {pid} (--target-pid)")),
                    None => Ok((running, None)),
                };
            }
            Proxy::Own { file } => file,
        };
        let machine = Machine::prepare()?;
        let made = rig.configuration(point, wire, file.as_deref(), machine)?;
        if let Some(config) = &made.read {
            demand::files(point, wire, rig, config, machine.processors, machine.files)?;
        }
        let daemon = Daemon::start(&rig.program, &made.text)
            .map_err(|e| format!("the daemon could not be started ({}): {e}", rig.program.display()))?;
        let running = Running {
            pid: Some(daemon.pid()),
            daemon: Some(daemon),
            address: made.address,
            encapsulation_port: made.encapsulation_port,
            kinds: BTreeMap::new(),
            admin: made.admin,
            notes: made.notes,
        };
        Ok((running, made.udp))
    }

    /// Has everything come up? A proxy that is not ours is believed to be there.
    pub(super) fn is_ready(&mut self, udp: Option<SocketAddr>) -> Result<bool, String> {
        if self.daemon.is_none() {
            return Ok(true);
        }
        self.check()?;
        if let Some(admin) = self.admin {
            let Some(status) = ask(admin).filter(|status| status.processes.iter().all(|process| process.ready)) else {
                return Ok(false);
            };
            self.kinds = kinds(&status);
            return Ok(true);
        }
        match udp {
            Some(address) => daemon::is_there(address, Duration::from_millis(50)).map_err(|e| e.to_string()),
            None => Ok(std::net::TcpStream::connect(self.address).is_ok()),
        }
    }

    /// # Errors
    /// The daemon has ended; what it said.
    pub(super) fn check(&mut self) -> Result<(), String> {
        match self.daemon.as_mut().and_then(|daemon| Some((daemon.ended()?, daemon.said()))) {
            Some((status, said)) => {
                Err(format!("the daemon ended with {}. It said:\n{}", daemon::describe(status), said.trim_end()))
            }
            None => Ok(()),
        }
    }

    /// What the daemon wrote to its log.
    pub(super) fn said(&self) -> String {
        self.daemon.as_ref().map(Daemon::said).unwrap_or_default()
    }

    pub(super) fn pid(&self) -> Option<u32> {
        self.pid
    }

    /// Processor time of all processes of the proxy. None: nobody said which they are.
    pub(super) fn times(&self) -> Option<Times> {
        let time = |pid| Some((pid, Time::of(pid)?));
        Some(daemon::family(self.pid?).into_iter().filter_map(time).collect())
    }

    /// Seconds spent between two looks, by kind of process: `worker` and so on for ours, else the process's name.
    ///
    /// # Errors
    /// A process has ended: what it used is known to nobody, and a successor began with nothing.
    pub(super) fn spent(&self, before: &Times, after: &Times) -> Result<BTreeMap<String, f64>, String> {
        if let Some(gone) = before.keys().find(|pid| !after.contains_key(pid)) {
            let kind = self.kinds.get(gone).map_or("process", String::as_str);
            return Err(format!(
                "a {kind} of the proxy (pid {gone}) ended while it was measured: the figures mean nothing"
            ));
        }
        let mut spent = BTreeMap::new();
        for (pid, time) in after {
            let had = before.get(pid).copied().unwrap_or_default();
            let kind = self.kinds.get(pid).cloned().unwrap_or_else(|| name_of(*pid));
            *spent.entry(kind).or_default() += time.since(had).run.as_secs_f64();
        }
        Ok(spent)
    }

    /// Ends the daemon, if it is ours.
    pub(super) fn stop(self) -> Result<(), String> {
        match self.daemon.map(Daemon::stop) {
            Some(Ok(status)) if !status.success() => Err(format!("the daemon ended with {}", daemon::describe(status))),
            Some(Err(e)) => Err(format!("the daemon: {e}")),
            _ => Ok(()),
        }
    }
}

fn ask(admin: SocketAddr) -> Option<Status> {
    serde_json::from_str(&status::ask(admin, status::QUESTION).ok()?).ok()
}

fn kinds(status: &Status) -> BTreeMap<u32, String> {
    let children = status.processes.iter().map(|process| (process.pid, process.role.name().to_owned()));
    let all = children.chain([(status.pid, "master".to_owned())]);
    all.filter_map(|(pid, kind)| Some((u32::try_from(pid).ok()?, kind))).collect()
}

fn name_of(pid: u32) -> String {
    let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    if name.trim().is_empty() { "gone".to_owned() } else { name.trim().to_owned() }
}
