//! Calls of which each has a connection or association of its own, by SIPp (Debian: sip-tester), which closes it after the call.
//!
//! Owns: the caller, the callee (whom the proxy reaches over one connection), the scenarios of `tests/sipp` and what SIPp counted.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};
use std::{fs, io};

use strowger::phone::daemon::free_port;
use strowger::transport::Transport;

use crate::phones::Calls;
use crate::proxy::{DOMAIN, LOOPBACK};

pub struct Fresh {
    proxy: SocketAddr,
    transport: Transport,
    folder: PathBuf,
    callee: Child,
    rounds: u32,
}

const USER: &str = "fresh";
/// Sockets of one SIPp at most; it must not have to use one again.
const SOCKETS: u64 = 8_000;

impl Fresh {
    pub fn new(proxy: SocketAddr, transport: Transport) -> io::Result<Fresh> {
        let folder = std::env::temp_dir().join(format!("sipp-{}-{}", std::process::id(), proxy.port()));
        fs::create_dir_all(&folder)?;
        fs::write(folder.join("users"), format!("SEQUENTIAL\n{USER};\n"))?;
        fs::write(folder.join("caller"), include_str!("../../tests/sipp/caller.xml"))?;
        fs::write(folder.join("register"), include_str!("../../tests/sipp/register.xml"))?;
        // It answers at once.
        let callee = include_str!("../../tests/sipp/callee.xml").replace("<pause milliseconds=\"40\"/>", "");
        fs::write(folder.join("callee"), callee)?;
        let contact = SocketAddr::new(LOOPBACK, free_port()?);
        let mut command = sipp(&folder, proxy, transport, "callee", '1');
        let callee = command.args(["-p", &contact.port().to_string()]).spawn()?;
        let fresh = Fresh { proxy, transport, folder, callee, rounds: 0 };
        let mut command = fresh.sipp("register", '1');
        command.args(["-key", "contact", &contact.to_string(), "-m", "1", "-timeout", "20s", "-timeout_error"]);
        let status = command.args(["-key", "contact_transport", transport.uri_token()]).status()?;
        fresh.well(status, "register")?;
        Ok(fresh)
    }

    /// So many calls a second for so long.
    pub fn call(&mut self, rate: f64, longest: Duration) -> io::Result<Calls> {
        self.rounds += 1;
        let calls = (rate * longest.as_secs_f64()) as u64;
        let counts = self.folder.join(format!("counts-{}", self.rounds));
        let mut command = self.sipp("caller", 'n');
        command.args(["-r", &rate.to_string(), "-m", &calls.to_string(), "-l", &SOCKETS.to_string()]);
        command.args(["-max_socket", &SOCKETS.to_string(), "-d", "0", "-timeout", "120s"]);
        command.args(["-trace_stat", "-fd", "1", "-stf"]).arg(&counts);
        let began = Instant::now();
        let status = command.status()?;
        let took = began.elapsed();
        // 1: some calls failed; they are counted.
        if status.code() != Some(1) {
            self.well(status, "caller")?;
        }
        let counted = fs::read_to_string(&counts)?;
        let count = |name: &str| column(&counted, name).unwrap_or(0);
        let good = count("SuccessfulCall(C)");
        let (failed, retransmitted) = (calls - good.min(calls), count("Retransmissions(C)"));
        Ok(Calls { operations: 2 * good, took, failed, retransmitted, ..Calls::default() })
    }

    fn sipp(&self, scenario: &str, sockets: char) -> Command {
        sipp(&self.folder, self.proxy, self.transport, scenario, sockets)
    }

    fn well(&self, status: ExitStatus, what: &str) -> io::Result<()> {
        if status.success() {
            return Ok(());
        }
        let said = fs::read_to_string(self.folder.join(format!("{what}.log"))).unwrap_or_default();
        Err(io::Error::other(format!("sipp {what}: {status}: {said}")))
    }
}

impl Drop for Fresh {
    fn drop(&mut self) {
        let _ = self.callee.kill();
        let _ = self.callee.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// `sockets`: `1` for all calls one, `n` for each its own.
fn sipp(folder: &Path, proxy: SocketAddr, transport: Transport, scenario: &str, sockets: char) -> Command {
    let letter = match transport {
        Transport::Udp => 'u',
        Transport::Tcp => 't',
        Transport::Sctp => 's',
    };
    let mut command = Command::new("sipp");
    command.arg(proxy.to_string()).arg("-sf").arg(folder.join(scenario)).arg("-inf").arg(folder.join("users"));
    command.args(["-t", &format!("{letter}{sockets}"), "-i", &LOOPBACK.to_string(), "-key", "domain", DOMAIN]);
    command.args(["-nostdin", "-nd", "-buff_size", "4194304", "-deadcall_wait", "500", "-timer_resol", "1"]);
    command.args(["-max_recv_loops", "1000", "-max_sched_loops", "1000"]);
    let log = fs::File::create(folder.join(format!("{scenario}.log"))).ok();
    command.current_dir(folder).env("TERM", "dumb").stdin(Stdio::null()).stderr(Stdio::null());
    command.stdout(log.map_or_else(Stdio::null, Stdio::from));
    command
}

/// Of the last row of SIPp's counts.
fn column(text: &str, name: &str) -> Option<u64> {
    let (head, last) = (text.lines().next()?, text.lines().next_back()?);
    let at = head.split(';').position(|title| title == name)?;
    last.split(';').nth(at)?.parse().ok()
}
