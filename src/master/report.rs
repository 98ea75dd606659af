//! The status document of a running daemon.
//!
//! Owns: where each of its figures comes from. Reads atomics, /proc, and a table only while nobody else holds it:
//! the master must not wait for a worker.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::net::SocketAddr;
use std::os::fd::AsFd;

use super::status::{Association, Audit, Fill, FlowLine, Listener, Path, Process, Status};
use crate::config::{Layout, Listen};
use crate::shared::flows::{FlowView, State};
use crate::shared::numbers;
use crate::shared::phase::Occupant;
use crate::timer::Tick;
use crate::transport::{Address, Transport, sockets};
use crate::worker::House;

/// Flows in one document at most.
const FLOWS: usize = 1_000;

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
        b"audit" => serde_json::to_vec(&Status { audit: Some(audit(house)), ..status(house, about, now) }),
        _ => serde_json::to_vec(&serde_json::json!({ "error": "unknown question; ask: status, or audit" })),
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
            .fill(&house.config)
            .into_iter()
            .map(|fill| (fill.table.to_owned(), Fill { used: fill.used, size: fill.size }))
            .collect(),
        flows: flow_lines(house),
        listeners: house.config.listen.iter().zip(house.sockets.listeners()).map(listener).collect(),
        warnings: about.warnings.clone(),
        audit: None,
    }
}

fn audit(house: &House) -> BTreeMap<String, Audit> {
    let (slots, texts, skipped) = house.shared.table.audit();
    let (location, unseen) = house.shared.location.audit_now();
    [("transactions", slots, skipped), ("texts", texts, skipped), ("location", location, unseen)]
        .into_iter()
        .map(|(part, numbers::Audit { live, free, lost }, skipped)| {
            (part.to_owned(), Audit { live, free, lost, skipped })
        })
        .collect()
}

fn listener((listen, socket): (&Listen, &sockets::Listener)) -> Listener {
    Listener {
        name: listen.name.clone(),
        transport: listen.transport,
        addresses: socket.addresses.clone(),
        tunnel: socket.tunnel,
        receive_buffer_bytes: socket.granted.map(|granted| granted.receive),
        send_buffer_bytes: socket.granted.map(|granted| granted.send),
    }
}

fn flow_lines(house: &House) -> Vec<FlowLine> {
    let some = |transport| house.shared.flows.some_now(transport, FLOWS / 2);
    let flows: Vec<_> = [Transport::Tcp, Transport::Sctp].into_iter().flat_map(some).collect();
    let any_kernel_sctp = flows.iter().any(is_kernel_sctp);
    let queued = if any_kernel_sctp { kernel_queued(&kernel_associations()) } else { HashMap::new() };
    flows.iter().map(|flow| flow_line(house, flow, &queued)).collect()
}

fn is_kernel_sctp(flow: &FlowView) -> bool {
    flow.transport == Transport::Sctp && flow.encapsulation == 0
}

/// The kernel's SCTP: is its socket read by one worker alone? The owner is the socket's number, and those come first.
fn is_one_workers(house: &House, flow: &FlowView) -> bool {
    house.config.sctp.layout == Layout::PerWorker && flow.owner < house.config.workers
}

fn kernel_associations() -> String {
    fs::read_to_string("/proc/net/sctp/assocs").unwrap_or_default()
}

/// Bytes of the send buffer that each association uses, by its id: no socket option tells. The columns of the kernel's table:
/// ASSOC SOCK STY SST ST HBKT ASSOC-ID TX_QUEUE ...
fn kernel_queued(table: &str) -> HashMap<u32, u64> {
    let line = |line: &str| {
        let mut columns = line.split_ascii_whitespace().skip(6);
        Some((columns.next()?.parse().ok()?, columns.next()?.parse().ok()?))
    };
    table.lines().filter_map(line).collect()
}

/// `queued`: of the kernel's associations.
fn flow_line(house: &House, flow: &FlowView, queued: &HashMap<u32, u64>) -> FlowLine {
    let in_kernel = queued.get(&flow.association).filter(|_| is_kernel_sctp(flow)).copied();
    let peers = flow.peers.iter().filter(|peer| !peer.is_none());
    FlowLine {
        transport: flow.transport,
        peers: peers.map(ToString::to_string).collect(),
        state: format!("{:?}", flow.state).to_ascii_lowercase(),
        seat: (!is_kernel_sctp(flow) || is_one_workers(house, flow)).then_some(flow.owner),
        queued_bytes: u64::from(flow.queued) + in_kernel.unwrap_or(0),
        messages_in: flow.received,
        messages_out: flow.sent + kernel_sent(house, flow),
        association: if flow.transport == Transport::Sctp { association(house, flow) } else { None },
    }
}

/// What went out over the kernel's SCTP is the kernel's to count: DATA chunks, which a message of usual size is one of.
fn kernel_sent(house: &House, flow: &FlowView) -> u64 {
    let socket = house.sockets.listeners().get(usize::from(flow.listener)).filter(|_| is_kernel_sctp(flow));
    let statistics = socket
        .and_then(|socket| sys::sctp::statistics(socket.sockets(0).get(flow.owner)?.as_fd(), flow.association).ok());
    statistics.map_or(0, |sent| sent.unordered_out + sent.ordered_out)
}

/// The kernel is asked; of one in user space its owner has noted what it knows.
fn association(house: &House, flow: &FlowView) -> Option<Association> {
    let peers = flow.peers.iter().filter(|peer| !peer.is_none());
    let id = flow.association;
    if flow.encapsulation != 0 {
        let path = |peer: &Address| Path {
            address: peer.to_string(),
            state: if flow.state == State::Open { "active" } else { "inactive" }.to_owned(),
            primary: true,
            rtt_ms: f64::from(flow.path.srtt_us) / 1000.0,
            cwnd: flow.path.cwnd,
            rto_ms: None,
            mtu: None,
        };
        let retransmitted = u64::from(flow.path.retransmitted);
        let (window, paths) = (flow.path.peer_window, peers.map(path).collect());
        let unacknowledged = Some(flow.path.unacknowledged);
        return Some(Association { id, window, unacknowledged, retransmitted, paths });
    }
    let fd = house.sockets.listeners().get(usize::from(flow.listener))?.sockets(0).get(flow.owner)?.as_fd();
    let status = sys::sctp::status(fd, id).ok()?;
    let addresses = sys::sctp::peer_addresses(fd, id).unwrap_or_default();
    let path = |address: &SocketAddr| {
        let path = sys::sctp::path(fd, id, *address).ok()?;
        Some(Path {
            address: address.to_string(),
            state: format!("{:?}", path.state).to_ascii_lowercase(),
            primary: status.primary == Some(*address),
            rtt_ms: f64::from(path.srtt_ms),
            cwnd: path.cwnd,
            rto_ms: Some(path.rto_ms),
            mtu: Some(path.mtu),
        })
    };
    Some(Association {
        id,
        window: status.peer_window,
        unacknowledged: Some(status.unacknowledged.into()),
        retransmitted: sys::sctp::statistics(fd, id).map_or(0, |statistics| statistics.retransmitted),
        paths: addresses.iter().filter_map(path).collect(),
    })
}

fn process(house: &House, seat: usize, occupant: &Occupant, now: Tick) -> Process {
    Process {
        role: house.duty(seat),
        seat,
        pid: occupant.pid,
        uid: effective_uid(occupant.pid),
        ready: occupant.ready,
        restarts: occupant.restarts,
        up_s: now.since(occupant.since) / 1000,
        cpu_ms: cpu_ms(occupant.pid),
    }
}

/// From the kernel, not from what we believe: the line `Uid:` has real, effective, saved and file system id
/// (proc_pid_status(5)).
fn effective_uid(pid: i32) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("Uid:"))?.split_ascii_whitespace().nth(1)?.parse().ok()
}

/// User and system time of all threads.
fn cpu_ms(pid: i32) -> Option<u64> {
    // 0 would be ourselves.
    let time = sys::process::cpu_time_of(Some(pid).filter(|&pid| pid > 0)?).ok()?;
    u64::try_from(time.as_millis()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As Linux 6.12 writes it.
    #[test]
    fn what_waits_in_the_kernel_is_found_by_the_associations_id() {
        let table = " ASSOC     SOCK   STY SST ST HBKT ASSOC-ID TX_QUEUE RX_QUEUE UID INODE LPORT RPORT LADDRS <-> RADDRS HBINT INS OUTS \
            MAXRT T1X T2X RTXC wmema wmemq sndbuf rcvbuf\n       0        0 2   1   3  0       7     4864        0       0 1234 \
            5060  40123  127.0.0.1 <-> *127.0.0.1 \t   30000    10    10   10    0    0        0     4865    4864  212992   212992\n";
        assert_eq!(kernel_queued(table), HashMap::from([(7, 4864)]));
        assert_eq!(kernel_queued("nothing of the kind\n"), HashMap::new());
    }

    #[test]
    fn uid_and_time_of_a_process_come_from_the_kernel() {
        let ourselves = i32::try_from(std::process::id()).unwrap();
        assert_eq!(effective_uid(ourselves), Some(nix::unistd::geteuid().as_raw()));
        assert!(cpu_ms(ourselves).is_some());
        assert_eq!((effective_uid(0), cpu_ms(0)), (None, None));
    }
}
