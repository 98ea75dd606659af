//! SIPp (Debian's sip-tester): phones by the hundred, and what they count.

use std::net::SocketAddr;
use std::process::Command;
use std::time::{Duration, Instant};

use strowger::transport::Transport;

use super::process::Process;
use super::{DOMAIN, Room, free_port, kernel, patience, slow, wait_for};

/// Our scenario files, by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scenario {
    Register,
    Caller,
    Callee,
    RingingCallee,
    CancellingCaller,
}

impl Scenario {
    fn text(self) -> &'static str {
        match self {
            Scenario::Register => include_str!("../sipp/register.xml"),
            Scenario::Caller => include_str!("../sipp/caller.xml"),
            Scenario::Callee => include_str!("../sipp/callee.xml"),
            Scenario::RingingCallee => include_str!("../sipp/ringing_callee.xml"),
            Scenario::CancellingCaller => include_str!("../sipp/cancelling_caller.xml"),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Scenario::Register => "register",
            Scenario::Caller => "caller",
            Scenario::Callee => "callee",
            Scenario::RingingCallee => "ringing_callee",
            Scenario::CancellingCaller => "cancelling_caller",
        }
    }

    fn waits_for_requests(self) -> bool {
        matches!(self, Scenario::Callee | Scenario::RingingCallee)
    }
}

/// One SIPp to be: what it plays, over what, toward whom.
pub struct Sipp {
    scenario: Scenario,
    transport: Transport,
    /// The proxy.
    toward: SocketAddr,
    local: SocketAddr,
    users: Vec<String>,
    domain: String,
    calls: u64,
    counts: bool,
    rate: u32,
    at_once: u32,
    talk_ms: u32,
    ring_ms: u32,
    retransmissions: bool,
    limit: Duration,
    keys: Vec<(String, String)>,
    /// A network namespace.
    inside: Option<String>,
    /// A second local address (SCTP).
    second: Option<std::net::IpAddr>,
    /// A socket of its own for each call.
    socket_per_call: bool,
}

/// A running one.
pub struct Running {
    process: Process,
    folder: std::path::PathBuf,
    name: String,
    limit: Duration,
    started: Instant,
    /// Where it receives.
    pub local: SocketAddr,
}

/// What a caller (or registering phone) counted.
#[derive(Clone, Debug)]
pub struct Report {
    pub good: u64,
    pub failed: u64,
    /// Requests and responses that SIPp sent more than once.
    pub retransmissions: u64,
    /// Calls that saw 180.
    pub ringing: u64,
    pub seconds: f64,
    /// Set-up times (INVITE to 200), milliseconds, ascending.
    pub setup_ms: Vec<f64>,
    errors: String,
}

impl Sipp {
    pub fn new(scenario: Scenario, transport: Transport, toward: SocketAddr) -> Sipp {
        Sipp {
            scenario,
            transport,
            toward,
            local: free_port(toward.ip()),
            users: vec!["u0".to_owned()],
            domain: DOMAIN.to_owned(),
            calls: 1,
            counts: false,
            rate: 50,
            at_once: 50,
            talk_ms: if slow() > 1 { 300 } else { 50 },
            ring_ms: if slow() > 1 { 200 } else { 40 },
            retransmissions: true,
            limit: patience(40),
            keys: Vec::new(),
            inside: None,
            second: None,
            socket_per_call: false,
        }
    }

    /// Runs in this network namespace.
    pub fn inside(mut self, namespace: &str) -> Sipp {
        self.inside = Some(namespace.to_owned());
        self
    }

    /// SIPp's `-multihome`.
    pub fn multihome(mut self, second: std::net::IpAddr) -> Sipp {
        self.second = Some(second);
        self
    }

    /// SIPp's `-t sn` (and `un`, `tn`): every call has a socket, and over SCTP an association, of its own.
    pub fn socket_per_call(mut self) -> Sipp {
        self.socket_per_call = true;
        self
    }

    pub fn from(mut self, local: SocketAddr) -> Sipp {
        self.local = local;
        self
    }

    /// Whom the calls go to, or who registers: one after the other.
    pub fn users(mut self, users: &[String]) -> Sipp {
        self.users = users.to_vec();
        self
    }

    pub fn domain(mut self, domain: &str) -> Sipp {
        domain.clone_into(&mut self.domain);
        self
    }

    /// How many. A callee ends after so many, if it is said.
    pub fn calls(mut self, calls: u64) -> Sipp {
        self.calls = calls;
        self.counts = true;
        self
    }

    /// New calls a second; fewer when `at_once` of them are open.
    pub fn rate(mut self, rate: u32) -> Sipp {
        self.rate = rate;
        self
    }

    pub fn at_once(mut self, calls: u32) -> Sipp {
        self.at_once = calls;
        self
    }

    pub fn talk_ms(mut self, milliseconds: u32) -> Sipp {
        self.talk_ms = milliseconds;
        self
    }

    /// How long a callee rings; 0 where set-up time is measured.
    pub fn ring_ms(mut self, milliseconds: u32) -> Sipp {
        self.ring_ms = milliseconds;
        self
    }

    /// SIPp's `-nr`: what is lost stays lost.
    pub fn without_retransmissions(mut self) -> Sipp {
        self.retransmissions = false;
        self
    }

    pub fn limit(mut self, limit: Duration) -> Sipp {
        self.limit = limit;
        self
    }

    /// A keyword of the scenario file.
    pub fn key(mut self, name: &str, value: &str) -> Sipp {
        self.keys.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Starts it; a callee is bound when this returns.
    pub fn start(self, room: &Room) -> Running {
        let name = format!("{}-{}-{}", self.scenario.name(), self.transport.uri_token(), self.local.port());
        // An emulated machine is late, which is no reason to repeat.
        let t1 = if slow() > 1 { "6000" } else { "500" };
        let text = self.scenario.text().replace("retrans=\"500\"", &format!("retrans=\"{t1}\""));
        let ring = format!("milliseconds=\"{}\"", self.ring_ms);
        let text = text.replace("milliseconds=\"40\"", &ring);
        let file = room.write(&format!("{name}.xml"), &text);
        let users = room.write(&format!("{name}.csv"), &format!("SEQUENTIAL\n{};\n", self.users.join(";\n")));
        let letter = match self.transport {
            Transport::Udp => "u",
            Transport::Tcp => "t",
            Transport::Sctp => "s",
        };
        let sockets = if self.socket_per_call { 'n' } else { '1' };
        let control = if self.inside.is_some() { 8888 } else { free_port(self.toward.ip()).port() };
        let mut command = match &self.inside {
            Some(namespace) => {
                let mut command = Command::new("ip");
                command.args(["netns", "exec", namespace, "sipp"]);
                command
            }
            None => Command::new("sipp"),
        };
        if let Some(second) = self.second {
            command.args(["-multihome", &second.to_string()]);
        }
        command
            .env("TERM", "dumb")
            .arg(self.toward.to_string())
            .arg("-sf")
            .arg(file)
            .args(["-t", &format!("{letter}{sockets}")])
            .args(["-i", &self.local.ip().to_string(), "-p", &self.local.port().to_string()])
            .args(["-cp", &control.to_string()])
            .args(["-key", "domain", &self.domain])
            .args(["-nostdin", "-nd", "-timer_resol", "1", "-max_recv_loops", "1000", "-max_sched_loops", "1000"])
            .args(["-recv_timeout", &patience(10).as_millis().to_string()])
            .args(["-buff_size", "4194304", "-deadcall_wait", "1000"])
            .args(["-trace_err", "-error_file", &format!("{name}.err")])
            .args(["-trace_stat", "-stf", &format!("{name}.stat"), "-fd", "1"])
            .args(["-timeout", &format!("{}s", self.limit.as_secs()), "-timeout_error"]);
        for (key, value) in &self.keys {
            command.args(["-key", key, value]);
        }
        if self.counts || !self.scenario.waits_for_requests() {
            command.args(["-m", &self.calls.to_string()]);
        }
        if !self.scenario.waits_for_requests() {
            command
                .arg("-inf")
                .arg(users)
                .args(["-r", &self.rate.to_string()])
                .args(["-l", &self.at_once.to_string(), "-d", &self.talk_ms.to_string()])
                .args(["-trace_rtt", "-rtt_freq", "1"]);
        }
        if self.transport == Transport::Tcp {
            // A connection that ends costs its calls, not the whole run.
            command.args(["-max_reconnect", "10000", "-reconnect_sleep", "10"]);
        }
        if self.socket_per_call {
            // More than calls at once; SIPp's own 50,000 must be less than it may open files.
            command.args(["-max_socket", "500"]);
        }
        if !self.retransmissions {
            command.arg("-nr");
        }
        let mut process = Process::start(command, room.path(), &name);
        if self.scenario.waits_for_requests() {
            let (transport, port) = (self.transport, self.local.port());
            let up = wait_for(patience(10), || {
                // Another namespace has its own list; a moment must do.
                let there = self.inside.is_some() && !wait_a_moment().is_zero();
                (there || kernel::is_bound(transport, port) || process.ended().is_some()).then_some(())
            });
            assert!(up.is_some() && process.ended().is_none(), "no callee: {}", process.last_words());
        }
        Running {
            process,
            folder: room.path().to_owned(),
            name,
            limit: self.limit,
            started: Instant::now(),
            local: self.local,
        }
    }
}

impl Running {
    pub fn pid(&self) -> i32 {
        self.process.pid()
    }

    /// No new calls; the open ones go on to their end (SIPp's SIGUSR1).
    pub fn no_more(&self) {
        self.process.signal(nix::sys::signal::Signal::SIGUSR1);
    }

    pub fn is_running(&mut self) -> bool {
        self.process.ended().is_none()
    }

    /// Waits for its end and reads what it counted.
    pub fn finish(mut self) -> Report {
        let pid = self.process.pid();
        let ended = self.process.wait(self.limit + patience(10));
        let seconds = self.started.elapsed().as_secs_f64();
        // SIPp may be killed at its limit, and it may crash: what it wrote then counts only the calls until then.
        let whole = ended.is_some_and(|status| status.code().is_some());
        assert!(whole, "{} did not come to its end: {ended:?}\n{}", self.name, self.process.last_words());
        let read = |name: String| {
            std::fs::read(self.folder.join(name)).map(|b| String::from_utf8_lossy(&b).into_owned()).unwrap_or_default()
        };
        let statistics = read(format!("{}.stat", self.name));
        let column = last_row(&statistics);
        let errors = read(format!("{}.err", self.name));
        let mut report = Report {
            good: column("SuccessfulCall(C)"),
            failed: column("FailedCall(C)"),
            retransmissions: column("Retransmissions(C)"),
            ringing: column("ringing(C)"),
            seconds,
            setup_ms: Vec::new(),
            errors: format!("{} (exit {ended:?})\n{errors}\n{}", self.name, self.process.last_words()),
        };
        let times = read(format!("{}_{pid}_rtt.csv", self.name));
        report.setup_ms =
            times.lines().filter_map(|line| line.split(';').nth(1).and_then(|ms| ms.trim().parse().ok())).collect();
        report.setup_ms.sort_by(f64::total_cmp);
        report
    }
}

fn wait_a_moment() -> Duration {
    std::thread::sleep(patience(1));
    patience(1)
}

/// Looks a column up in the last row of SIPp's statistics.
fn last_row(statistics: &str) -> impl Fn(&str) -> u64 {
    let mut lines = statistics.lines();
    let names: Vec<_> = lines.next().unwrap_or_default().split(';').map(str::to_owned).collect();
    let values: Vec<_> = lines.next_back().unwrap_or_default().split(';').map(str::to_owned).collect();
    move |name| {
        let at = names.iter().position(|n| n == name);
        at.and_then(|at| values.get(at)).and_then(|v| v.parse().ok()).unwrap_or(0)
    }
}

impl Report {
    /// Panics with what SIPp complained of unless all of `calls` ended well.
    pub fn must_be_whole(&self, calls: u64) {
        assert!(
            self.good == calls && self.failed == 0,
            "{} of {calls} calls good, {} failed\n{}",
            self.good,
            self.failed,
            self.complaints()
        );
    }

    /// The head of what SIPp wrote about failures.
    pub fn complaints(&self) -> String {
        self.errors.chars().take(4000).collect()
    }

    /// The time within which `share` (0.0 to 1.0) of the calls were set up, milliseconds.
    pub fn percentile(&self, share: f64) -> f64 {
        assert!(!self.setup_ms.is_empty(), "no set-up times: {}", self.complaints());
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
        let at = (self.setup_ms.len() as f64 * share).ceil() as usize;
        self.setup_ms[at.clamp(1, self.setup_ms.len()) - 1]
    }
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} good, {} failed, {} repeats, {:.1} s",
            self.good, self.failed, self.retransmissions, self.seconds
        )?;
        if !self.setup_ms.is_empty() {
            write!(f, ", set-up p50 {:.1} ms p99 {:.1} ms", self.percentile(0.5), self.percentile(0.99))?;
        }
        Ok(())
    }
}

/// Registers `users` at `proxy`, each reachable at `contact` over `contact_transport`.
pub fn register(
    room: &Room,
    proxy: (Transport, SocketAddr),
    users: &[String],
    contact: SocketAddr,
    contact_transport: Transport,
) {
    let report = Sipp::new(Scenario::Register, proxy.0, proxy.1)
        .users(users)
        .calls(users.len() as u64)
        .key("contact", &contact.to_string())
        .key("contact_transport", contact_transport.uri_token())
        .start(room)
        .finish();
    report.must_be_whole(users.len() as u64);
}

/// `count` names of phones that start with `prefix`.
pub fn names(prefix: &str, count: u32) -> Vec<String> {
    (0..count).map(|i| format!("{prefix}{i}")).collect()
}
