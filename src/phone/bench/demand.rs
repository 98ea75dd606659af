//! What a measurement will need: transactions, connections, open files.
//!
//! Owns: the arithmetic, from rates and times. A closed loop has no rate before it was measured, so it is taken from the number of
//! processors. Never asks the machine.

use super::results::{Arrival, Point};
use super::rig::Rig;
use super::words::Wire;
use crate::config::{Architecture, Config};

/// Operations a second for each processor, proxy and phones together, that no closed loop was seen to exceed: tables are made for these.
const FASTEST: f64 = 30_000.0;
/// ... and those that one may expect.
const USUAL: f64 = 10_000.0;
/// A finished transaction stays for 32 s: INVITE over any transport (timers L and M, RFC 6026), BYE over UDP (timer J). A quarter more,
/// for not every part of the table is as full as another.
const STAYS_S: f64 = 32.0 * 1.25;
/// After this warm-up as many transactions end as begin, and their places in the table are used again: no call pays for memory that is
/// touched for the first time. Two seconds for the calls to get going.
pub(super) const WARM_UP_S: u32 = 34;
/// The default of the configuration, and never less.
const LEAST_TRANSACTIONS: u64 = 286_720;
const MOST_TRANSACTIONS: u64 = 33_554_432;
/// Room for connections that are opened anew is never less. The supervisor's scan goes up to the highest index that was ever in
/// use, however large the table.
const LEAST_RENEWED: u64 = 131_072;
const LEAST_FLOWS: u64 = 16_384;
pub(super) const MOST_FLOWS: u64 = 1_048_576;
/// `tcp.idle_s` and `sctp.autoclose_s` when nobody says anything.
const IDLE_S: u64 = 300;
/// Open files of a process, as many as it may have.
pub(super) const MOST_FILES: u64 = 1_000_000;
/// A smaller cache of descriptors is not worth having.
const LEAST_CACHED: usize = 1_024;
/// All phones began at once, so they renew their connections in waves, that high above the mean.
const WAVES: f64 = 2.0;
/// Of a process, for what is no connection.
const SPARE_FILES: f64 = 512.0;

/// `memory.transactions`, for all transports alike.
pub(super) fn transactions(point: &Point, processors: usize) -> u64 {
    let operations = operations_per_s(point, processors, FASTEST);
    ((operations * STAYS_S) as u64).clamp(LEAST_TRANSACTIONS, MOST_TRANSACTIONS)
}

/// `memory.flows`: half as many again as one may expect.
pub(super) fn flows(point: &Point, processors: usize) -> u64 {
    // The supervisor keeps a connection for two idle times, and looks for idle ones at times only.
    let stay_s = (2 * point.idle_s.unwrap_or(IDLE_S).max(32)) as f64;
    let opened = 1.5 * opened_per_s(point, processors) * stay_s.min(lasts_s(point));
    let least = if point.renew_every.is_some() { LEAST_RENEWED } else { LEAST_FLOWS };
    (4 * point.clients as u64 + (opened as u64).max(least)).min(MOST_FLOWS)
}

/// `tcp.descriptor_cache_size`, where a worker has no files for as many as the configuration would let it keep, beside the connections
/// that it owns.
pub(super) fn cached(point: &Point, config: &Config, processors: usize, files: u64) -> Option<usize> {
    let tcp = &config.tcp;
    if tcp.architecture != Architecture::Supervisor || !tcp.descriptor_cache {
        return None;
    }
    let owned = open_at_once(point, processors, tcp.idle_s as f64) / config.workers as f64;
    let room = (files as f64 - SPARE_FILES - WAVES * owned) as usize;
    Some(room.max(LEAST_CACHED)).filter(|room| *room < tcp.descriptor_cache_size)
}

/// Will the connections that are open at once be more than a process may have? `allowed`: open files of a process.
///
/// # Errors
/// They will; what can be done.
pub(super) fn files(
    point: &Point,
    wire: Wire,
    rig: &Rig,
    config: &Config,
    processors: usize,
    allowed: u64,
) -> Result<(), String> {
    if rig.trunks.is_some() {
        return Ok(());
    }
    let (tcp, workers) = (&config.tcp, config.workers);
    let stay_s = match (wire, tcp.architecture) {
        (Wire::Tcp, Architecture::Symmetric | Architecture::SingleOwner) => tcp.idle_s,
        (Wire::Tcp, Architecture::Supervisor) => tcp.idle_s + tcp.supervisor_idle_s,
        (Wire::Sctp | Wire::SctpUser, _) => u64::from(config.sctp.autoclose_s),
        (Wire::Udp, _) => 0,
    };
    let per_s = opened_per_s(point, processors);
    let stay_s = (stay_s as f64).min(lasts_s(point));
    let open = open_at_once(point, processors, stay_s);
    // How many processes, and how many connections each of them has.
    let mut holders = match (wire, tcp.architecture) {
        (Wire::Tcp, Architecture::Symmetric) => vec![("worker", workers, open / workers as f64)],
        (Wire::Tcp, Architecture::SingleOwner) => vec![("owner", 1, open)],
        (Wire::Tcp, Architecture::Supervisor) => {
            // A worker owns its share until it returns it, and keeps descriptors of any.
            let owned = open_at_once(point, processors, tcp.idle_s as f64) / workers as f64;
            let kept = if tcp.descriptor_cache { open.min(tcp.descriptor_cache_size as f64) } else { 0.0 };
            vec![("supervisor", 1, open), ("worker", workers, owned + kept)]
        }
        // One socket for all.
        (Wire::Sctp | Wire::SctpUser | Wire::Udp, _) => vec![],
    };
    let phones = rig.phone_processes(point.clients);
    holders.push(("phone process", phones, open / phones as f64));
    for (who, count, its) in holders {
        let each = its + SPARE_FILES;
        if each > allowed as f64 {
            let renewed = match per_s {
                0.0 => String::new(),
                _ => format!(" ({per_s:.0} new ones a second, each there for {stay_s:.0} s)"),
            };
            let less = match per_s {
                0.0 => "Take fewer clients",
                _ => "Take a shorter --idle-s, a greater --renew-every or a shorter window",
            };
            return Err(format!(
                "{open:.0} connections would be open at once{renewed}: {each:.0} files in each {who} ({count} of them), and a process may \
                 have {allowed}. {less}, more --phones and --workers, or raise the limit: `ulimit -Hn`, which only root may \
                 (CAP_SYS_RESOURCE; systemd's LimitNOFILE=, nofile in limits.conf)"
            ));
        }
    }
    if per_s * stay_s > MOST_FLOWS as f64 {
        return Err(format!(
            "{open:.0} connections would be open at once, and the daemon knows {MOST_FLOWS} at most: take a shorter --idle-s or a \
             greater --renew-every"
        ));
    }
    Ok(())
}

fn operations_per_s(point: &Point, processors: usize, of_each: f64) -> f64 {
    match point.arrival {
        Arrival::Closed => processors as f64 * of_each,
        Arrival::Open { calls_per_s } => 2.0 * calls_per_s,
    }
}

/// New connections: with each operation, caller and callee come nearer to theirs.
fn opened_per_s(point: &Point, processors: usize) -> f64 {
    let every = point.renew_every.unwrap_or(u64::MAX) as f64;
    if point.renew_every.is_none() { 0.0 } else { 2.0 * operations_per_s(point, processors, USUAL) / every }
}

/// Of connections that stay for so long. Callers and callees register with one each, and renew it from then on.
fn open_at_once(point: &Point, processors: usize, stay_s: f64) -> f64 {
    2.0 * point.clients as f64 + opened_per_s(point, processors) * stay_s.min(lasts_s(point))
}

/// Calls begin, and with them connections, for so long.
fn lasts_s(point: &Point) -> f64 {
    point.warm_up_s + point.measure_s
}

#[cfg(test)]
mod tests {
    use super::super::results::Subject;
    use super::*;

    fn point(transport: &str, arrival: Arrival, renew_every: Option<u64>, idle_s: u64) -> Point {
        Point {
            subject: Subject { name: "TCP".into(), transport: transport.into(), tables: String::new() },
            clients: 100,
            renew_every,
            arrival,
            workers: 2,
            supervisor_nice: 0,
            idle_s: Some(idle_s),
            warm_up_s: 120.0,
            measure_s: 360.0,
        }
    }

    #[test]
    fn finished_transactions_have_room_over_every_transport_and_with_every_arrival() {
        for transport in ["udp", "tcp", "sctp", "sctp-user"] {
            let closed = point(transport, Arrival::Closed, None, 10);
            // 60,000 operations a second on two processors, 32 s.
            assert!((1_920_000..3_000_000).contains(&transactions(&closed, 2)), "{}", transactions(&closed, 2));
            assert_eq!(transactions(&closed, 64), MOST_TRANSACTIONS);
            let open = |calls_per_s| transactions(&point(transport, Arrival::Open { calls_per_s }, None, 10), 2);
            assert_eq!(open(1.0), LEAST_TRANSACTIONS);
            assert!((640_000..1_000_000).contains(&open(10_000.0)), "{}", open(10_000.0));
        }
    }

    #[test]
    fn renewed_connections_have_room_for_as_long_as_the_supervisor_keeps_them() {
        // 20,000 operations a second, a new connection for 25, 240 s: 192,000.
        let long = flows(&point("tcp", Arrival::Closed, Some(50), 120), 2);
        assert!((192_400..400_000).contains(&long), "{long}");
        assert_eq!(flows(&point("tcp", Arrival::Closed, Some(50), 10), 2), 131_472);
        assert_eq!(flows(&point("tcp", Arrival::Closed, None, 120), 2), 16_784);
        assert_eq!(flows(&point("tcp", Arrival::Closed, Some(2), 86_400), 64), MOST_FLOWS);
        // Nothing stays longer than the measurement lasts.
        let brief = Point { warm_up_s: 6.0, measure_s: 10.0, ..point("tcp", Arrival::Closed, Some(50), 3_600) };
        assert_eq!(flows(&brief, 2), 131_472);
    }

    #[test]
    fn too_few_open_files_are_said_before_the_run() {
        let rig = Rig { processes: 2, ..Rig::own("strowger".into()) };
        let refused = |wire: Wire, idle_s, tables: &str, allowed| {
            let text = format!("{tables}[[listen]]\ntransport = \"tcp\"\naddress = \"127.0.0.1:5060\"\n");
            let config = Config::from_text(&text).unwrap();
            files(&point(wire.name(), Arrival::Closed, Some(50), idle_s), wire, &rig, &config, 2, allowed).err()
        };
        // 800 a second.
        let supervisor = "[tcp]\narchitecture = \"supervisor\"\nidle_s = 10\nsupervisor_idle_s = 10\n";
        assert_eq!(refused(Wire::Tcp, 10, supervisor, 20_000), None);
        let one = refused(Wire::Tcp, 10, supervisor, 10_000).unwrap();
        assert!(one.contains("in each supervisor (1 of them)") && one.contains("ulimit -Hn"), "{one}");
        // A worker with a cache has its own, and descriptors of all.
        let cache = format!("{supervisor}descriptor_cache = true\n");
        assert_eq!(refused(Wire::Tcp, 10, supervisor, 17_000), None);
        let kept = refused(Wire::Tcp, 10, &cache, 17_000).unwrap();
        assert!(kept.contains("in each worker"), "{kept}");
        assert_eq!(refused(Wire::Tcp, 10, &format!("{cache}descriptor_cache_size = 1000\n"), 17_000), None);
        let symmetric = "[tcp]\nidle_s = 120\n";
        let many = refused(Wire::Tcp, 120, symmetric, 20_000).unwrap();
        assert!(many.contains("in each worker (2 of them)") && many.contains("800 new ones a second"), "{many}");
        assert_eq!(refused(Wire::Tcp, 120, symmetric, 60_000), None);
        // The kernel's SCTP has one socket, the phones have one for each association.
        let phones = refused(Wire::Sctp, 120, "[sctp]\nautoclose_s = 120\n", 20_000).unwrap();
        assert!(phones.contains("in each phone process"), "{phones}");
    }
}
