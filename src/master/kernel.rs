//! What the kernel grants the daemon: sysctls and limits, asked for before any socket exists (design §2, facts M05, M06, M40).
//!
//! Owns: which settings matter and what to tell the operator when one cannot be had. What it says never ends the daemon.

use std::fs;

use crate::config::{Config, Stack};
use crate::transport::Transport;

/// With 0, all associations of a socket share one buffer, and one peer that stops reading stops everybody (M05, M40).
const POLICIES: [&str; 2] = ["sndbuf_policy", "rcvbuf_policy"];
/// Descriptors of a process beside its connections: sockets, eventfds, log, poll.
const DESCRIPTORS_BESIDE: usize = 256;

/// Asks for everything; gives back what could not be had, one line each, for log and status.
pub(super) fn prepare(config: &Config) -> Vec<String> {
    let mut warnings = Vec::new();
    if kernel_sctp(config) {
        warnings.extend(POLICIES.into_iter().filter_map(set_policy));
    }
    let descriptors =
        (config.live.limits.connections + config.listen.len() * config.workers + DESCRIPTORS_BESIDE) as u64;
    match sys::process::set_open_files(descriptors) {
        Ok(granted) if granted < descriptors => warnings.push(format!(
            "only {granted} open files are allowed and limits.connections wants {descriptors}: \
             raise LimitNOFILE= (systemd) or `ulimit -Hn`"
        )),
        Ok(_) => {}
        Err(error) => warnings.push(format!("cannot set the limit of open files to {descriptors}: {error}")),
    }
    warnings
}

/// Is a kernel SCTP socket going to be opened? Asking also loads the module, without which the sysctls do not exist.
fn kernel_sctp(config: &Config) -> bool {
    let wanted = config.listen.iter().any(|l| l.transport == Transport::Sctp && l.stack != Stack::User);
    wanted && sys::sctp::supported()
}

fn set_policy(name: &str) -> Option<String> {
    let path = format!("/proc/sys/net/sctp/{name}");
    let is_set = || fs::read_to_string(&path).is_ok_and(|value| value.trim() == "1");
    if is_set() {
        return None;
    }
    let error = fs::write(&path, "1").err();
    if is_set() {
        return None;
    }
    let why = error.map_or_else(String::new, |error| format!(" ({error})"));
    Some(format!(
        "net.sctp.{name} is not 1 and cannot be set{why}: one SCTP peer that stops reading can stop all others; \
         `sysctl -w net.sctp.{name}=1` as root before the daemon starts"
    ))
}
