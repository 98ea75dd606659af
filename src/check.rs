//! `strowger check`: what a configuration would serve, what it costs, and what one should know before serving it.
//!
//! Owns: the report and its warnings (a warning leaves the exit status 0). Opens no socket and changes nothing.

mod open;
mod pages;
mod room;
#[cfg(test)]
mod tests;

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;

pub use room::Room;

use crate::config::{Architecture, Config, ENCAPSULATION_PORT, Listen, Mistake, Stack, Target, exit};
use crate::transport::Transport;
use crate::transport::sctp::sysctls::Sysctls;
use crate::transport::sctp::user::settings::room as sctp_room;
use crate::transport::sockets::{in_user_space, is_kernel_sctp};

/// Runs the command: report on stdout, mistakes and warnings on stderr. `memory_bytes`: the most shared memory that a
/// configuration can touch, as `shared` plans it. A reader that left early (`| head`) changes nothing of the exit status.
#[must_use]
pub fn run(path: Option<&Path>, memory_bytes: impl Fn(&Config) -> u64) -> ExitCode {
    let checked = Config::load(path).and_then(|config| {
        let bytes = memory_bytes(&config);
        let room = Room::of_this_machine();
        match room.refuses(bytes) {
            Some(mistake) => Err(vec![mistake]),
            None => {
                let supported = sys::sctp::supported();
                let mut report = report(&config, bytes, &room, supported);
                if let Some(advice) = pages::advice().filter(|_| config.memory.huge_pages) {
                    let _ = writeln!(report, "pages    {advice}");
                }
                let mut warnings = warnings(&config, supported);
                if config.listen.iter().any(|listen| is_kernel_sctp(listen, supported)) {
                    let sysctls = Sysctls::read();
                    let _ = writeln!(report, "kernel   {}", sysctls.summary());
                    warnings.extend(sysctls.warnings(&config));
                }
                Ok((report, warnings))
            }
        }
    });
    match checked {
        Ok((report, warnings)) => {
            let _ = io::stdout().write_all(report.as_bytes());
            for warning in warnings {
                let _ = writeln!(io::stderr(), "warning: {warning}");
            }
            ExitCode::from(exit::OK)
        }
        Err(mistakes) => {
            say(&mistakes);
            ExitCode::from(exit::WRONG)
        }
    }
}

/// The mistakes, one line each on stderr, whether somebody reads them or not.
pub fn say(mistakes: &[Mistake]) {
    for mistake in mistakes {
        let _ = writeln!(io::stderr(), "strowger: {mistake}");
    }
}

/// What would be served, for people.
#[must_use]
pub fn report(config: &Config, bytes: u64, room: &Room, kernel_has_sctp: bool) -> String {
    let mut text = String::new();
    for listen in &config.listen {
        let addresses = listen.addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let (token, host, port) = (listen.transport.uri_token(), &listen.sent_by.host, listen.sent_by.port);
        let tunnel = tunnel(listen, kernel_has_sctp);
        let _ = writeln!(text, "listen   {token:4} {addresses}{tunnel}, as {host}:{port} in Via ({})", listen.name);
    }
    if let Some(address) = config.admin.address {
        let _ = writeln!(text, "admin    {address}");
    }
    let _ = writeln!(text, "domains  {}", config.live.domains.join(", "));
    for hop in &config.live.next_hop {
        let place = |target: &Target| format!("{}:{}", target.transport.uri_token(), target.address);
        let targets = hop.targets.iter().map(place).collect::<Vec<_>>().join(", ");
        let _ = writeln!(text, "to       {}: {targets}", hop.domain);
    }
    let user = config.user.as_deref().unwrap_or("whoever starts it");
    let extra = match config.tcp.architecture {
        Architecture::Symmetric => "",
        Architecture::SingleOwner => ", 1 owner of all TCP connections",
        Architecture::Supervisor => ", 1 TCP supervisor",
    };
    let _ = writeln!(text, "run as   {user}: {} workers, 1 timer process{extra}", config.workers);
    let _ = writeln!(text, "memory   up to {} MiB shared, of {} MiB", mebibytes(bytes), mebibytes(room.bytes()));
    if config.listen.iter().any(|listen| is_in_user_space(listen, kernel_has_sctp)) {
        let limits = &config.live.limits;
        let all = (limits.associations.min(config.memory.flows) * sctp_room(limits)) as u64;
        let _ =
            writeln!(text, "         up to {} MiB of workers' own, if every SCTP association stalls", mebibytes(all));
    }
    text
}

fn is_in_user_space(listen: &Listen, kernel_has_sctp: bool) -> bool {
    match listen.stack {
        Stack::User => true,
        Stack::Auto => listen.transport == Transport::Sctp && !kernel_has_sctp,
        Stack::Kernel => false,
    }
}

/// How its SCTP goes inside UDP, if it does.
fn tunnel(listen: &Listen, kernel_has_sctp: bool) -> String {
    match listen.encapsulation_port {
        port if is_in_user_space(listen, kernel_has_sctp) => {
            format!(", in user space inside UDP port {}", port.unwrap_or(ENCAPSULATION_PORT))
        }
        Some(port) => format!(", also inside UDP port {port}"),
        None => String::new(),
    }
}

fn mebibytes(bytes: u64) -> u64 {
    bytes.div_ceil(1 << 20)
}

/// What works, but perhaps not as meant. `serve` logs the same lines.
#[must_use]
pub fn warnings(config: &Config, kernel_has_sctp: bool) -> Vec<String> {
    let mut lines = Vec::new();
    if !kernel_has_sctp {
        absent_sctp(config, &mut lines);
    }
    open::warn(config, &mut lines);
    lengths(config, &mut lines);
    lines
}

fn absent_sctp(config: &Config, lines: &mut Vec<String>) {
    for listen in config.listen.iter().filter(|listen| listen.transport == Transport::Sctp) {
        lines.extend(match listen.stack {
            Stack::Kernel => Some(format!(
                "listener {:?}: this machine's kernel has no SCTP, so `serve` cannot open it: load it (as root: modprobe sctp) \
                 or set stack = \"auto\" or \"user\"",
                listen.name
            )),
            Stack::Auto => Some(in_user_space(listen)),
            Stack::User => None,
        });
    }
}

fn lengths(config: &Config, lines: &mut Vec<String>) {
    let transaction_ms = 64 * config.live.timers.t1_ms;
    let (new, known) = config.sctp.dead_peer_ms();
    // Each retry sets an association up anew.
    let slow = new.max(known) + u64::from(config.sctp.send_retries) * new;
    let serves = |transport| config.serves(transport);
    if serves(Transport::Sctp) && slow >= transaction_ms {
        lines.push(format!(
            "a dead SCTP peer is found after {slow} ms, later than timers B and F ({transaction_ms} ms) end its \
             transactions: lower sctp.send_retries, sctp.init_max_attempts, sctp.asocmaxrxt or sctp.srto_max_ms"
        ));
    }
    if serves(Transport::Sctp) && u64::from(config.sctp.autoclose_s) * 1_000 < config.live.timers.c_ms {
        lines.push(format!(
            "sctp.autoclose_s = {} is shorter than timer C (timers.c_ms = {}): an association may close while a call rings",
            config.sctp.autoclose_s, config.live.timers.c_ms
        ));
    }
    if serves(Transport::Tcp) && config.tcp.idle_s * 1_000 < transaction_ms {
        lines.push(format!(
            "tcp.idle_s = {} is shorter than a transaction ({transaction_ms} ms): responses may have to open a connection",
            config.tcp.idle_s
        ));
    }
    let limits = &config.live.limits;
    for (transport, key, limit) in
        [(Transport::Sctp, "associations", limits.associations), (Transport::Tcp, "connections", limits.connections)]
    {
        if serves(transport) && config.memory.flows < limit {
            lines.push(format!(
                "memory.flows = {} is less than limits.{key} ({limit}): the flows run out first",
                config.memory.flows
            ));
        }
    }
}

impl Room {
    /// The mistake of wanting more than there is.
    #[must_use]
    pub fn refuses(&self, bytes: u64) -> Option<Mistake> {
        let right = || {
            let (given, whose) = (mebibytes(self.bytes()), self.whose());
            format!("at most the {given} MiB of {whose}: lower memory.transactions, memory.bindings or memory.flows")
        };
        (bytes > self.bytes()).then(|| Mistake::new("memory", format!("{} MiB", mebibytes(bytes)), right()))
    }
}
