//! A daemon at work: what is profiled.
//!
//! Owns: its configuration, its phones (in this process, which is not profiled), who its processes are.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::phone::agent::Manner;
use crate::phone::bench::results::Subject;
use crate::phone::daemon::{Daemon, free_port, is_there};
use crate::phone::line::Stack;
use crate::phone::load::{Load, Order, Pace, Tally};
use crate::transport::Transport;

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const DOMAIN: &str = "example.test";
/// The daemon has this long to be ready. Generous: a machine may be emulated.
const START: Duration = Duration::from_secs(30);

#[allow(clippy::disallowed_methods, reason = "a benchmark is outside the message path")]
fn now() -> Instant {
    Instant::now()
}

/// One daemon and its phones.
pub struct Stage {
    daemon: Daemon,
    admin: SocketAddr,
    load: Load,
    callers: Vec<usize>,
    callees: Vec<usize>,
}

/// What the daemon says of itself.
#[derive(Clone, Debug, Default)]
pub struct Status {
    /// Kind of process (`worker`, `timer`, ...) by pid.
    pub kinds: BTreeMap<u32, String>,
    pub messages: u64,
    pub wake_ups: u64,
}

impl Stage {
    /// `clients` callers, and as many callees, all registered.
    ///
    /// # Errors
    /// What the daemon said, or which phones could not register.
    pub fn new(subject: &Subject, clients: usize, workers: usize) -> Result<Stage, String> {
        let (transport, in_user_space) = transport(subject)?;
        let port = || free_port().map_err(|e| format!("no free port: {e}"));
        let (proxy, admin) = (SocketAddr::new(LOOPBACK, port()?), SocketAddr::new(LOOPBACK, port()?));
        let tunnel = port()?;
        let stack = match in_user_space {
            true => Stack::User(tunnel),
            false => Stack::Kernel,
        };
        let text = configuration(subject, (transport, stack), (proxy, admin), clients, workers);
        let program = std::env::current_exe().map_err(|e| e.to_string())?;
        let mut daemon = Daemon::start(&program, &text).map_err(|e| format!("the daemon does not start: {e}"))?;
        let began = now();
        while !is_there(proxy, Duration::from_millis(100)).map_err(|e| e.to_string())? {
            if daemon.ended().is_some() || now() - began > START {
                return Err(format!("the daemon does not come up:\n{}", daemon.said()));
            }
        }
        let mut load = Load::new(DOMAIN, Manner::default()).map_err(|e| format!("phones: {e}"))?;
        load.speak(stack);
        let mut crowd = |what: &str| -> Result<Vec<usize>, String> {
            let mut add = |n| load.add_phone(&format!("{what}-{n}"), transport, LOOPBACK, proxy);
            (0..clients).map(|n| add(n).map_err(|e| format!("a phone: {e}"))).collect()
        };
        let (callers, callees) = (crowd("caller")?, crowd("callee")?);
        let everyone: Vec<usize> = callers.iter().chain(&callees).copied().collect();
        let refused = load.register(&everyone, 3_600).map_err(|e| e.to_string())?;
        match refused.is_empty() {
            true => Ok(Stage { daemon, admin, load, callers, callees }),
            false => Err(format!("not all phones could register: {refused:?}")),
        }
    }

    /// Every process of the daemon: the master, then its children.
    #[must_use]
    pub fn pids(&self) -> Vec<u32> {
        let master = self.daemon.pid();
        let children = fs::read_to_string(format!("/proc/{master}/task/{master}/children")).unwrap_or_default();
        [master].into_iter().chain(children.split_ascii_whitespace().filter_map(|pid| pid.parse().ok())).collect()
    }

    /// Processor time of all of them.
    #[must_use]
    pub fn cpu(&self) -> Duration {
        self.daemon.cpu()
    }

    /// Where the program lies in the memory of its processes: they are forks, so in all at one place.
    #[must_use]
    pub fn base(&self) -> Option<u64> {
        let maps = fs::read_to_string(format!("/proc/{}/maps", self.daemon.pid())).ok()?;
        let program = fs::read_link(format!("/proc/{}/exe", self.daemon.pid())).ok()?;
        let first = maps.lines().find(|line| line.ends_with(program.to_string_lossy().as_ref()))?;
        u64::from_str_radix(first.split('-').next()?, 16).ok()
    }

    /// Each caller calls again as soon as its last call is over.
    ///
    /// # Errors
    /// The poll failed.
    pub fn place(&mut self, calls: u64) -> Result<Tally, String> {
        let (callers, callees) = (&self.callers[..], &self.callees[..]);
        let pace = Pace::AtOnce(callers.len());
        let order = Order { calls, longest: Duration::MAX, pace, callers, callees };
        self.load.place(&order, &mut |_| ControlFlow::Continue(())).map_err(|e| e.to_string())
    }

    /// # Errors
    /// It does not answer.
    pub fn status(&self) -> Result<Status, String> {
        let ask = || -> std::io::Result<Value> {
            let mut stream = TcpStream::connect(self.admin)?;
            stream.set_read_timeout(Some(START))?;
            stream.write_all(b"status\n")?;
            let mut text = String::new();
            stream.read_to_string(&mut text)?;
            Ok(serde_json::from_str(&text)?)
        };
        let value = ask().map_err(|e| format!("the daemon says no status: {e}"))?;
        let counter = |name: &str| value["counters"][name].as_u64().unwrap_or(0);
        let processes = value["processes"].as_array().map(Vec::as_slice).unwrap_or_default();
        let kind = |process: &Value| {
            let pid = u32::try_from(process["pid"].as_u64()?).ok()?;
            Some((pid, process["role"].as_str()?.to_owned()))
        };
        let master = (self.daemon.pid(), "master".to_owned());
        Ok(Status {
            kinds: processes.iter().filter_map(kind).chain([master]).collect(),
            messages: ["received_udp", "received_tcp", "received_sctp"].into_iter().map(counter).sum(),
            wake_ups: counter("wake_ups"),
        })
    }

    pub fn stop(self) {
        let _ = self.daemon.stop();
    }
}

fn transport(subject: &Subject) -> Result<(Transport, bool), String> {
    match subject.transport.as_str() {
        "udp" => Ok((Transport::Udp, false)),
        "tcp" => Ok((Transport::Tcp, false)),
        "sctp" => Ok((Transport::Sctp, false)),
        "sctp-user" => Ok((Transport::Sctp, true)),
        other => Err(format!("no transport {other:?}: udp, tcp, sctp or sctp-user")),
    }
}

fn configuration(
    subject: &Subject,
    (transport, stack): (Transport, Stack),
    (proxy, admin): (SocketAddr, SocketAddr),
    clients: usize,
    workers: usize,
) -> String {
    let flows = (4 * clients).clamp(1_000, 1_000_000);
    // UDP is always listened on: it tells when the daemon is ready.
    let mut text = format!(
        "workers = {workers}\ndomains = [\"{DOMAIN}\"]\n[admin]\naddress = \"{admin}\"\n\
         [limits]\nconnections = {flows}\nconnections_per_peer = {flows}\nassociations = {flows}\n\
         associations_per_peer = {flows}\n[memory]\nflows = {flows}\n\
         [[listen]]\ntransport = \"udp\"\naddress = \"{proxy}\"\n"
    );
    if transport != Transport::Udp {
        let _ = write!(text, "[[listen]]\ntransport = \"{}\"\naddress = \"{proxy}\"\n", transport.uri_token());
    }
    if transport == Transport::Sctp {
        text += &match stack {
            Stack::Kernel => "stack = \"kernel\"\n".to_owned(),
            Stack::User(port) => format!("stack = \"user\"\nencapsulation_port = {port}\n"),
        };
    }
    text + &subject.tables
}
