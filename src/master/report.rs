//! The status document of a running daemon.
//!
//! Owns: where each of its figures comes from. Reads atomics and /proc only, never a lock: the master must not wait for a worker.

use std::fs;

use super::status::{Fill, Listener, Process, Status};
use crate::shared::phase::Occupant;
use crate::timer::Tick;
use crate::worker::House;

/// Clock ticks per second in /proc/PID/stat (USER_HZ, proc_pid_stat(5)); 100 on every architecture that Linux and we run on.
const USER_HZ: u64 = 100;

/// What the master knows of itself.
pub(super) struct About {
    pub(super) pid: i32,
    pub(super) since: Tick,
    /// What could not be had at the start.
    pub(super) warnings: Vec<String>,
}

/// The answer to one question of an admin client, a line of JSON.
pub(super) fn answer(question: &[u8], house: &House, about: &About, now: Tick) -> Vec<u8> {
    let document = match question {
        b"status" => serde_json::to_vec(&status(house, about, now)),
        _ => serde_json::to_vec(&serde_json::json!({ "error": "unknown question; ask: status" })),
    };
    let mut answer = document.unwrap_or_default();
    answer.push(b'\n');
    answer
}

fn status(house: &House, about: &About, now: Tick) -> Status {
    let shared = &house.shared;
    Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        uptime_s: now.since(about.since) / 1000,
        pid: about.pid,
        phase: shared.phases.current(),
        processes: (0..shared.phases.seats())
            .filter_map(|seat| Some(process(house, seat, &shared.phases.occupant(seat)?, now)))
            .collect(),
        counters: shared.counters.iter().map(|(counter, n)| (counter.name().to_owned(), n)).collect(),
        tables: shared
            .fill()
            .into_iter()
            .map(|fill| (fill.table.to_owned(), Fill { used: fill.used, size: fill.size }))
            .collect(),
        flows: Vec::new(), // shared.flows: a snapshot without waiting for a lock
        listeners: house
            .config
            .listen
            .iter()
            .map(|listen| Listener {
                name: listen.name.clone(),
                transport: listen.transport,
                addresses: listen.addresses.clone(),
                receive_buffer_bytes: None, // house.sockets: what was granted
                send_buffer_bytes: None,
                warnings: Vec::new(),
            })
            .collect(),
        warnings: about.warnings.clone(),
    }
}

fn process(house: &House, seat: usize, occupant: &Occupant, now: Tick) -> Process {
    Process {
        role: house.duty(seat),
        seat,
        pid: occupant.pid,
        uid: effective_uid(occupant.pid),
        restarts: occupant.restarts,
        up_s: now.since(occupant.since) / 1000,
        cpu_ms: cpu_ms(occupant.pid),
    }
}

/// From the kernel, not from what we believe: the line `Uid:` has real, effective, saved and file system id (proc_pid_status(5)).
fn effective_uid(pid: i32) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("Uid:"))?.split_ascii_whitespace().nth(1)?.parse().ok()
}

/// User and system time of all threads: fields 14 and 15 of /proc/PID/stat; field 2, the name in parentheses, may hold blanks.
fn cpu_ms(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace().skip(11).map(|field| field.parse::<u64>().ok());
    Some((fields.next()?? + fields.next()??) * 1000 / USER_HZ)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uid_and_time_of_a_process_come_from_the_kernel() {
        let ourselves = i32::try_from(std::process::id()).unwrap();
        assert_eq!(effective_uid(ourselves), Some(nix::unistd::geteuid().as_raw()));
        assert!(cpu_ms(ourselves).is_some());
        assert_eq!(effective_uid(0), None);
    }
}
