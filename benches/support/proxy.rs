//! The proxies that are measured: our daemon, and Kamailio beside it.
//!
//! Owns: how each is started (two workers, one transport), and what it has used so far. Never places a call.

use std::fs::{self, File};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use strowger::master::status::{self, Status};
use strowger::phone::daemon::{Daemon, family, free_port, is_there};
use strowger::transport::Transport;

pub const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
pub const WORKERS: usize = 2;

/// Of a round of phones: their contacts are nobody's any more when they have gone.
pub fn domain(round: usize) -> String {
    format!("r{}.example.test", round % DOMAINS)
}

/// More than one benchmark has rounds.
const DOMAINS: usize = 200;

/// A running proxy; dropping it ends it.
pub struct Proxy {
    pub address: SocketAddr,
    /// Of ours: where its status is asked for.
    admin: Option<SocketAddr>,
    process: Process,
}

enum Process {
    Strowger(Daemon),
    Kamailio(Kamailio),
}

/// Of all processes of a proxy, so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct Spent {
    pub cpu: Duration,
    /// How often one of them went to sleep.
    pub sleeps: u64,
}

impl std::ops::Sub for Spent {
    type Output = Spent;

    fn sub(self, before: Spent) -> Spent {
        Spent { cpu: self.cpu.saturating_sub(before.cpu), sleeps: self.sleeps.saturating_sub(before.sleeps) }
    }
}

impl Proxy {
    /// Our daemon, with room for so many transactions: a finished one stays for up to 32 s. `tables`: more of the configuration.
    pub fn strowger(program: &Path, transport: Transport, transactions: usize, tables: &str) -> Proxy {
        let limits = "[limits]\nconnections_per_peer = 10000\nassociations_per_peer = 10000\n";
        let memory = format!("[memory]\ntransactions = {transactions}\n");
        Proxy::strowger_with(program, transport, WORKERS, &(memory + limits + tables))
    }

    /// The same with as many workers, and limits and sizes in `tables`.
    pub fn strowger_with(program: &Path, transport: Transport, workers: usize, tables: &str) -> Proxy {
        let free = || SocketAddr::new(LOOPBACK, free_port().expect("a free port"));
        let (address, admin) = (free(), free());
        // UDP is always listened on: it tells when the daemon is ready.
        let listen = |token| format!("[[listen]]\ntransport = \"{token}\"\naddress = \"{address}\"\n");
        let domains: Vec<String> = (0..DOMAINS).map(domain).collect();
        let mut text = format!("workers = {workers}\ndomains = {domains:?}\n[admin]\naddress = \"{admin}\"\n");
        text += &listen("udp");
        if transport != Transport::Udp {
            text += &listen(transport.uri_token());
        }
        text += tables;
        let daemon = Daemon::start(program, &text).expect("the daemon");
        let began = Instant::now();
        while !is_there(address, Duration::from_millis(50)).expect("a probe") {
            assert!(began.elapsed() < Duration::from_secs(20), "the daemon is not ready: {}", daemon.said());
        }
        Proxy { address, admin: Some(admin), process: Process::Strowger(daemon) }
    }

    /// Kamailio with benches/peers/kamailio.cfg, and so many MB of shared memory.
    pub fn kamailio(transport: Transport, shared_mb: usize) -> io::Result<Proxy> {
        let address = SocketAddr::new(LOOPBACK, free_port()?);
        Ok(Proxy { address, admin: None, process: Process::Kamailio(Kamailio::start(transport, address, shared_mb)?) })
    }

    pub fn pid(&self) -> u32 {
        match &self.process {
            Process::Strowger(daemon) => daemon.pid(),
            Process::Kamailio(kamailio) => kamailio.child.id(),
        }
    }

    /// Of all its processes.
    pub fn pids(&self) -> Vec<u32> {
        family(self.pid())
    }

    /// Of a table of our daemon's status: how much of it is in use.
    pub fn used(&self, table: &str) -> io::Result<usize> {
        let admin = self.admin.ok_or_else(|| io::Error::other("no admin listener"))?;
        let status: Status = serde_json::from_str(&status::ask(admin, status::QUESTION)?)?;
        let fill = status.tables.get(table).ok_or_else(|| io::Error::other(format!("no table {table}")))?;
        Ok(fill.used)
    }

    pub fn spent(&self) -> Spent {
        let mut spent = Spent::default();
        for pid in self.pids() {
            spent.cpu += sys::process::cpu_time_of(pid.cast_signed()).unwrap_or_default();
            spent.sleeps += sleeps(pid);
        }
        spent
    }
}

/// Of a process's first thread: the one that moves messages.
fn sleeps(pid: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
    line.and_then(|number| number.trim().parse().ok()).unwrap_or(0)
}

struct Kamailio {
    child: Child,
    folder: PathBuf,
}

impl Kamailio {
    fn start(transport: Transport, address: SocketAddr, shared_mb: usize) -> io::Result<Kamailio> {
        let folder = std::env::temp_dir().join(format!("kamailio-{}-{}", std::process::id(), address.port()));
        fs::create_dir_all(&folder)?;
        let file = folder.join("kamailio.cfg");
        fs::write(&file, include_str!("../peers/kamailio.cfg"))?;
        let log = File::create(folder.join("log"))?;
        let (workers, shared) = (WORKERS.to_string(), shared_mb.to_string());
        // util-linux's: Kamailio ends with us, however we end.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "TERM", "kamailio", "-DD", "-E", "-m", &shared, "-M", "16", "-f"]).arg(&file);
        command.arg("-Y").arg(&folder).arg("-w").arg(&folder).arg("-P").arg(folder.join("pid"));
        command.args(["-l", &format!("{}:{address}", transport.uri_token())]);
        // Largest socket buffer that it asks for.
        command.args(["-b", "4194304"]);
        match transport {
            Transport::Udp => command.args(["-n", &workers]),
            Transport::Tcp => command.args(["-n", "1", "-N", &workers, "-A", "TCP"]),
            Transport::Sctp => command.args(["-n", "1", "-Q", &workers, "-A", "SCTP"]),
        };
        let child = command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn()?;
        let mut kamailio = Kamailio { child, folder };
        kamailio.wait_until_ready()?;
        Ok(kamailio)
    }

    /// It says nothing when it is ready; its processes have come up when their number stays the same for a second.
    fn wait_until_ready(&mut self) -> io::Result<()> {
        let (mut last, mut same) = (0, 0);
        for _ in 0..240 {
            sleep(Duration::from_millis(250));
            if let Some(status) = self.child.try_wait()? {
                let said = fs::read_to_string(self.folder.join("log")).unwrap_or_default();
                return Err(io::Error::other(format!("Kamailio ended, {status}: {said}")));
            }
            let now = family(self.child.id()).len();
            same = if now == last && now > WORKERS { same + 1 } else { 0 };
            last = now;
            if same == 4 {
                return Ok(());
            }
        }
        Err(io::Error::other("Kamailio does not come up"))
    }
}

impl Drop for Kamailio {
    fn drop(&mut self) {
        // Its main process ends the others.
        let _ = kill(Pid::from_raw(self.child.id().cast_signed()), Signal::SIGTERM);
        let began = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) {
            if began.elapsed() > Duration::from_secs(20) {
                let _ = self.child.kill();
                let _ = self.child.wait();
            }
            sleep(Duration::from_millis(20));
        }
        let _ = fs::remove_dir_all(&self.folder);
    }
}
