//! The command line of `strowger bench run`, and the help that teaches it.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::demand::WARM_UP_S;
use super::rig::PHONES_NICE;
use super::words::Wire;

/// What `bench run` can be told.
#[derive(Clone, Debug, clap::Args)]
#[command(after_long_help = MORE)]
pub struct Options {
    /// What the phones speak; several are measured beside each other
    #[arg(long, value_enum, value_delimiter = ',', default_value = "udp")]
    pub transport: Vec<Wire>,
    /// Callers, and as many callees; several are measured beside each other
    #[arg(long, value_delimiter = ',', default_value = "100", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub clients: Vec<u32>,
    /// Open loop: so many calls a second begin, whatever becomes of them [default: closed loop]
    #[arg(long, value_name = "CALLS/S", value_parser = positive)]
    pub rate: Option<f64>,
    /// Seconds of the measured window
    #[arg(long, default_value = "10", value_parser = positive)]
    pub seconds: f64,
    /// Seconds of calls before it: below 34 it is a sketch, for a finished transaction stays for 32. With --renew-every give at least as
    /// long as a connection lives without calls: --idle-s, twice that behind the TCP supervisor
    #[arg(long, default_value_t = f64::from(WARM_UP_S), value_parser = not_negative)]
    pub warm_up: f64,
    /// How often everything is measured
    #[arg(long, default_value = "3", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub rounds: u32,
    /// Operations after which a phone goes on over a new connection; it leaves the old one open (UDP has no connections; its
    /// row is measured without this)
    #[arg(long, value_name = "OPERATIONS", value_parser = clap::value_parser!(u64).range(1..))]
    pub renew_every: Option<u64>,
    /// Each call comes over a connection of its own, which the caller closes
    #[arg(long, conflicts_with_all = ["renew_every", "trunks"])]
    pub connection_per_call: bool,
    /// All calls travel over so many connections or associations on each side
    #[arg(long, conflicts_with = "renew_every", value_parser = clap::value_parser!(u32).range(1..=64))]
    pub trunks: Option<u32>,
    /// Phone processes [default: one per processor, at most 4]
    #[arg(long, default_value = "0", hide_default_value = true, value_parser = clap::value_parser!(u32).range(0..=64))]
    pub phones: u32,
    /// Nice value that the phones ask for; below 0 takes root; see below what it changes
    #[arg(long, value_name = "N", default_value_t = PHONES_NICE, allow_negative_numbers = true,
          value_parser = clap::value_parser!(i32).range(-20..=19))]
    pub phones_nice: i32,
    /// The domain that the phones are of: this daemon's, or the one that --target registers them for
    #[arg(long, default_value = "example.test")]
    pub domain: String,
    /// Writes everything to this file, also what there is of a measurement that fails or is interrupted
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    #[command(flatten)]
    pub own: Own,
    #[command(flatten)]
    pub target: Target,
    /// For tests: processor time that the phones waste for each message, microseconds
    #[arg(long, default_value = "0", hide = true)]
    pub burden_us: u64,
}

/// Of this daemon.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "This daemon (started and ended by the measurement)")]
pub struct Own {
    /// Its configuration; options are over it, and what it does not say and the measurement needs is generated
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// More of its configuration, TOML, over everything else; it may not contradict what names a row, such as --architecture
    #[arg(long, value_name = "TOML")]
    pub tables: Option<String>,
    /// Worker processes [default: what the file says, else 2]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=128))]
    pub workers: Option<u32>,
    /// TCP: symmetric, single_owner, supervisor; several are measured beside each other
    #[arg(long, value_delimiter = ',', value_parser = ["symmetric", "single_owner", "supervisor"], hide_possible_values = true)]
    pub architecture: Vec<String>,
    /// TCP supervisor: each worker keeps descriptors
    #[arg(long, requires = "architecture")]
    pub descriptor_cache: bool,
    /// TCP supervisor: idle connections in the order of their deadlines
    #[arg(long, requires = "architecture")]
    pub priority_queue: bool,
    /// TCP supervisor: its nice value [default: what the file says, else 0]
    #[arg(long, requires = "architecture", allow_negative_numbers = true,
          value_parser = clap::value_parser!(i32).range(-20..=19))]
    pub supervisor_nice: Option<i32>,
    /// Seconds until an idle connection is closed (SCTP: 32 at least); the TCP supervisor closes it after another as many
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub idle_s: Option<u64>,
    /// The kernel's SCTP: shared or per_worker
    #[arg(long, value_parser = ["shared", "per_worker"], hide_possible_values = true)]
    pub layout: Option<String>,
}

/// Of another proxy.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Any other proxy (running already)")]
pub struct Target {
    /// Where it listens, over every transport that is measured
    #[arg(long, value_name = "IP:PORT", conflicts_with_all = [
        "config", "tables", "workers", "architecture", "descriptor_cache", "priority_queue", "supervisor_nice", "layout", "idle_s",
    ])]
    pub target: Option<SocketAddr>,
    /// Its process: the CPU of this one and of all its descendants is measured. Without it nothing is said about CPU
    #[arg(long, value_name = "PID", requires = "target")]
    pub target_pid: Option<u32>,
    /// What the table calls it
    #[arg(long, value_name = "NAME", default_value = "target", requires = "target", hide_default_value = true)]
    pub target_name: String,
    /// Its UDP port for SCTP in user space (RFC 6951)
    #[arg(long, default_value = "9899", requires = "target", hide_default_value = true)]
    pub encapsulation_port: u16,
}

pub(super) const MORE: &str = "\
An operation is an INVITE or a BYE transaction; a call has one of each. CPU is that of all processes of the proxy, from the kernel.
Each phone has its own socket, connection or association. Only what happens within the window counts.

Columns:
  phones µs/op   CPU of all phone processes, beside the proxy's
  busy           the share of the window in which the busiest phone process ran or waited for a processor
  idle           the share of all processors that had nothing to do
  failed, again  calls that failed, and messages that the phones sent again, in all rounds
  p50, p99 ...   set-up time: from INVITE to 200, from the moment when the call was due (with --rate; without, when the last ended)
  limit          phones: a phone process was busy for 95 % of the window or more. rate: an open loop that reached its rate, so nobody.
                 proxy: neither. nobody: neither, and more than 10 % of the processors were idle: the proxy waited for itself, as
                 workers do for a supervisor, or for the phones. A row of a closed loop says what the proxy can do where it is proxy

A call that fails counts among the set-up times as one that waited until the phones' patience ends, or as long as it waited, if that
is longer: a proxy that refuses calls quickly does not have the better times.

Phones ask for nice -15 (--phones-nice), which root gets, so that they do not wait for a processor while the proxy has one. In a closed
loop that costs the proxy: each answer takes the processor from the worker that sent it. Seen over UDP with 100 clients: 26 µs per
operation with the phones at nice 0, 35 at -15. Compare only rows with phones at the same nice value.

Examples:
  strowger bench run --transport udp,tcp,sctp-user
      Three transports beside each other, 100 clients each, closed loop, three rounds: about 7 minutes.
  strowger bench run --transport tcp --rate 4000 --clients 500
      4,000 calls a second: CPU per operation, and set-up times from the moment when each call was due.
  strowger bench run --transport tcp --architecture symmetric,supervisor --renew-every 50 --idle-s 10 --seconds 30
      Two architectures, connections renewed; behind the supervisor one lives for two idle time-outs. A callee registers its new
      connection first; these REGISTERs are no operations.
  strowger bench run --transport sctp --trunks 2 --clients 1000
      All calls over two associations on each side, as between proxies.
  strowger bench run --target 127.0.0.1:5060 --target-pid $(cat /run/kamailio.pid) --target-name Kamailio
      Another proxy, which must take REGISTERs for example.test (or --domain) from this machine without a password.

The first sample that fails ends a measurement; those that were taken before are shown and written, and so after Ctrl-C.

A process may have as many open files as `ulimit -Hn` says: root raises that by itself (CAP_SYS_RESOURCE), others ask root for
LimitNOFILE= (systemd) or nofile (limits.conf). A measurement that would need more is refused before it begins.

Exit status:
   0  measured
   1  more than one call in a thousand failed (the lines below the table say why), or it could not be measured
   2  the command line is wrong
 130  interrupted (128 and the signal, as shells have it)";

pub(super) fn positive(text: &str) -> Result<f64, String> {
    text.parse().ok().filter(|n: &f64| n.is_finite() && *n > 0.0).ok_or_else(|| "a number above 0".to_owned())
}

fn not_negative(text: &str) -> Result<f64, String> {
    text.parse().ok().filter(|n: &f64| n.is_finite() && *n >= 0.0).ok_or_else(|| "a number, 0 or more".to_owned())
}

/// As the command line would have them: words, and arguments with spaces in them.
#[cfg(test)]
pub(super) fn typed(words: &str, more: &[&str]) -> Options {
    use clap::{Args, FromArgMatches};
    let words = ["run"].into_iter().chain(words.split_whitespace()).chain(more.iter().copied());
    let matches = Options::augment_args(clap::Command::new("run")).try_get_matches_from(words).unwrap();
    Options::from_arg_matches(&matches).unwrap()
}
