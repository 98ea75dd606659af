//! Limits that the kernel sets the daemon, asked for before any socket exists. The sysctls of SCTP and
//! the buffers are asked for where the sockets are opened (`transport::sockets`).
//!
//! Owns: how many descriptors a process needs. Less than that is said, and never ends the daemon.

use crate::config::Config;

/// Descriptors of a process beside its connections: poll, log, eventfds, epoll.
const DESCRIPTORS_BESIDE: usize = 256;

/// Asks; gives back what could not be had, one line each, for log and status.
pub(super) fn prepare(config: &Config) -> Vec<String> {
    let sockets = config.listen.len().saturating_mul(config.workers) + DESCRIPTORS_BESIDE;
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
    short.into_iter().collect()
}
