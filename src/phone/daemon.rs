//! The daemon, as a child of the demo: started, waited for, asked for its processor time, ended.
//!
//! Owns: its configuration and log in a folder of their own, both gone at the end. Never leaves it running: dropping a `Daemon`
//! ends it.

use std::fs::{self, File};
use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rsip::Method;

use super::compose::{self, Draft, Identity};
use crate::message::{self, Start};
use crate::transport::Transport;

/// A running daemon.
pub struct Daemon {
    child: Child,
    folder: PathBuf,
}

/// How long the daemon may take to end after SIGTERM; it drains for `drain_s` first. Then it is killed.
const END: Duration = Duration::from_secs(8);

#[allow(clippy::disallowed_methods, reason = "the demo is outside the message path")]
fn now() -> Instant {
    Instant::now()
}

impl Daemon {
    /// Starts `program serve` with this configuration. STROWGER_ variables of our environment are not handed on: they would
    /// change the configuration. It ends with the thread that calls this, however that ends.
    ///
    /// # Errors
    /// The folder could not be made, or the program not be started.
    pub fn start(program: &Path, configuration: &str) -> io::Result<Daemon> {
        let folder = new_folder()?;
        let begin = || {
            let file = folder.join("strowger.toml");
            fs::write(&file, configuration)?;
            let log = File::create(folder.join("log"))?;
            let mut command = Command::new(program);
            command.arg("serve").arg("--config").arg(file);
            for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("STROWGER_")) {
                command.env_remove(name);
            }
            sys::process::end_with_us(&mut command);
            command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn()
        };
        match begin() {
            Ok(child) => Ok(Daemon { child, folder }),
            Err(e) => {
                let _ = fs::remove_dir_all(&folder);
                Err(e)
            }
        }
    }

    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether the daemon still runs; its exit status when it ended by itself.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// What the daemon wrote to its standard output and error.
    #[must_use]
    pub fn said(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.folder.join("log")).unwrap_or_default()).into_owned()
    }

    /// Processor time of all processes of the daemon that live.
    #[must_use]
    pub fn cpu(&self) -> Duration {
        let pids = family(self.child.id());
        let time = |&pid: &u32| sys::process::cpu_time_of(i32::try_from(pid).ok()?).ok();
        pids.iter().filter_map(time).sum()
    }

    /// SIGTERM, then waits for the end.
    ///
    /// # Errors
    /// The daemon had to be killed, or could not be waited for.
    pub fn stop(mut self) -> io::Result<ExitStatus> {
        self.end()
    }

    fn end(&mut self) -> io::Result<ExitStatus> {
        if let Some(status) = self.child.try_wait()? {
            return Ok(status);
        }
        if let Ok(pid) = i32::try_from(self.child.id()) {
            // Not waited for yet, so the id is still its own.
            kill(Pid::from_raw(pid), Signal::SIGTERM)?;
        }
        let until = now() + END;
        while now() < until {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        self.child.kill()?;
        self.child.wait()?;
        Err(io::Error::new(
            io::ErrorKind::TimedOut,
            format!("it did not end {} s after SIGTERM and was killed", END.as_secs()),
        ))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.end();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// A folder that only we may read. One with this name may be left over from a process that was killed.
fn new_folder() -> io::Result<PathBuf> {
    let mut n = 0;
    loop {
        let folder = std::env::temp_dir().join(format!("strowger-{}-{n}", std::process::id()));
        match fs::DirBuilder::new().mode(0o700).create(&folder) {
            Ok(()) => return Ok(folder),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists && n < 1000 => n += 1,
            Err(e) => return Err(e),
        }
    }
}

/// A process and all that descend from it.
#[must_use]
pub fn family(pid: u32) -> Vec<u32> {
    let (mut pids, mut next) = (vec![pid], 0);
    while let Some(&pid) = pids.get(next) {
        pids.extend(children(pid));
        next += 1;
    }
    pids
}

/// Whichever of its threads forked them.
fn children(pid: u32) -> Vec<u32> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let text: String = threads.filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok()).collect();
    text.split_ascii_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

/// Says how a process ended, for people.
#[must_use]
pub fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "an unknown status".to_owned(),
    }
}

/// A port of 127.0.0.1 that is free now for UDP, TCP and, where the kernel has it, SCTP.
///
/// # Errors
/// None was found.
pub fn free_port() -> io::Result<u16> {
    let mut last = io::Error::from(io::ErrorKind::AddrInUse);
    for _ in 0..100 {
        let port = UdpSocket::bind(("127.0.0.1", 0))?.local_addr()?.port();
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let tcp = TcpListener::bind(address).map(drop);
        let sctp = || match sys::sctp::supported() {
            true => sys::sctp::one_to_many(&[address], &sys::sctp::Settings::default(), false).map(drop),
            false => Ok(()),
        };
        match tcp.and_then(|()| sctp()) {
            Ok(()) => return Ok(port),
            Err(e) => last = e,
        }
    }
    Err(last)
}

/// Asks `proxy` with OPTIONS over UDP, once, whether it is there (RFC 3261 §11). True: it answered 200 within `patience`.
///
/// # Errors
/// No socket.
pub fn is_there(proxy: SocketAddr, patience: Duration) -> io::Result<bool> {
    let any = SocketAddr::new(proxy.ip(), 0);
    let socket = UdpSocket::bind(any)?;
    let me = Identity {
        user: "demo".to_owned(),
        domain: proxy.to_string(),
        transport: Transport::Udp,
        local: socket.local_addr()?,
        seed: format!("{:x}", std::process::id()),
    };
    let uri = format!("sip:{proxy}");
    let request = compose::request(
        &me,
        &Draft {
            method: Method::Options,
            uri: &uri,
            branch: &me.branch(u64::from(me.local.port())),
            from: &format!("<{}>;tag={}", me.address_of_record(), me.seed),
            to: &format!("<{uri}>"),
            call_id: &format!("{}-{}", me.seed, me.local.port()),
            cseq: 1,
            routes: &[],
            expires: None,
            body: "",
        },
    );
    // A port where nobody listens yet answers by ICMP: not there.
    if socket.send_to(&request, proxy).is_err() {
        return Ok(false);
    }
    socket.set_read_timeout(Some(patience))?;
    let mut buffer = [0; 4096];
    let Ok((length, _)) = socket.recv_from(&mut buffer) else { return Ok(false) };
    let answer = message::scan(buffer.get(..length).unwrap_or_default());
    Ok(answer.is_ok_and(|m| matches!(m.start, Start::Response { code: 200, .. })))
}
