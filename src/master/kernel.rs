//! Limits that the kernel sets the daemon, asked for before any socket exists. The sysctls of SCTP and
//! the buffers are asked for where the sockets are opened (`transport::sockets`).
//!
//! Owns: how many descriptors a process needs, and how nice the TCP supervisor may be. Less than that is said, and never ends the
//! daemon.

use crate::config::{Architecture, Config};

/// Descriptors of a process beside its connections: poll, log, eventfds, epoll.
const DESCRIPTORS_BESIDE: usize = 256;

/// Of the TCP supervisor with each other process: two pairs of sockets.
const PAIRS: usize = 4;

/// Asks; gives back what could not be had, one line each, for log and status.
pub(super) fn prepare(config: &Config) -> Vec<String> {
    let tcp = &config.tcp;
    let kept = if tcp.descriptor_cache { tcp.descriptor_cache_size } else { 0 };
    let sockets =
        config.listen.len().saturating_mul(config.workers) + DESCRIPTORS_BESIDE + PAIRS * config.seats() + kept;
    let wanted = config.live.limits.connections.saturating_add(sockets) as u64;
    let short = match sys::process::set_open_files(wanted) {
        Ok(granted) if granted >= wanted => None,
        Ok(granted) => Some(format!(
            "only {granted} open files are allowed; limits.connections = {} needs {wanted}: raise LimitNOFILE= (systemd) or \
             `ulimit -Hn`",
            config.live.limits.connections
        )),
        Err(error) => Some(format!("cannot set the limit of open files to {wanted}: {error}")),
    };
    short.into_iter().chain(niceness(config)).collect()
}

/// The TCP supervisor takes its nice value itself, perhaps as a successor and as another user than we are now: what it may is a limit.
fn niceness(config: &Config) -> Option<String> {
    let nice = config.tcp.supervisor_nice;
    if config.tcp.architecture != Architecture::Supervisor || nice >= 0 {
        return None;
    }
    let error = sys::process::allow_nice(nice).err()?;
    Some(format!("tcp.supervisor_nice = {nice} may be lost with `user` or a restart of the supervisor: {error}"))
}
