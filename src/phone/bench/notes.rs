//! What should be known of a measurement beside its table: before it, and after it.
//!
//! Owns: these sentences, for `bench run` and `bench profile` alike.

use super::demand::WARM_UP_S;
use super::measure::{Measured, reasons};
use super::options::Options;
use super::results::{Arrival, OTHERS_TOLD, Row, Sample};
use super::rig::Planned;
use super::show;
use super::words::{Figures, Wire};
use crate::config::{Architecture, Config};

/// What one should know of these points before time is spent on them.
pub(super) fn remarks(options: &Options, plan: &[Planned]) -> Vec<String> {
    let mut remarks = Vec::new();
    let wire = |planned: &Planned| Wire::of(&planned.point.subject.transport);
    let renewed = options.renew_every.is_some() || options.connection_per_call;
    if renewed && plan.iter().any(|planned| wire(planned) == Some(Wire::Udp)) {
        remarks
            .push("UDP has no connections: its row is one without --renew-every and --connection-per-call".to_owned());
    }
    // Of another proxy it is not known how long it keeps them.
    if plan.iter().any(|planned| planned.read.is_some() && planned.point.warm_up_s < f64::from(WARM_UP_S)) {
        remarks.push(format!(
            "a sketch: a finished transaction stays for 32 s, so with --warm-up below {WARM_UP_S} what its end costs is missing, and \
             calls pay for memory that is used for the first time"
        ));
    }
    let mut times: Vec<(u64, u64)> = Vec::new();
    for planned in plan.iter().filter(|planned| planned.point.renew_every.is_some()) {
        // What another proxy does with idle connections is not known.
        let idle = planned.read.as_ref().zip(wire(planned)).and_then(|(read, wire)| idle_times(read, wire));
        let Some((idle_s, lives_s)) = idle else { continue };
        let point = &planned.point;
        if point.measure_s < 3.0 * idle_s as f64 || point.warm_up_s < lives_s as f64 {
            times.push((idle_s, lives_s));
        }
    }
    times.sort_unstable();
    times.dedup();
    for (idle_s, lives_s) in times {
        let whose = if lives_s > idle_s { " behind the supervisor" } else { "" };
        remarks.push(format!(
            "with an idle time-out of {idle_s} s not as many connections end{whose} as begin before {lives_s} s have gone by, so \
             their end is hardly measured: --warm-up {lives_s} --seconds {} would, or a shorter --idle-s",
            3 * idle_s
        ));
    }
    remarks
}

/// The idle time-out, and how long a connection lives without calls: behind the supervisor a worker returns it after one
/// time-out, and the supervisor closes it after another.
fn idle_times(read: &Config, wire: Wire) -> Option<(u64, u64)> {
    let tcp = &read.tcp;
    match wire {
        Wire::Udp => None,
        Wire::Tcp if tcp.architecture == Architecture::Supervisor => {
            Some((tcp.idle_s, tcp.idle_s + tcp.supervisor_idle_s))
        }
        Wire::Tcp => Some((tcp.idle_s, tcp.idle_s)),
        Wire::Sctp | Wire::SctpUser => Some((read.sctp.autoclose_s.into(), read.sctp.autoclose_s.into())),
    }
}

/// What the table does not say, one line for a row.
pub(super) struct Notes {
    rows: Vec<Vec<Measured>>,
}

impl Notes {
    pub(super) fn new(points: usize) -> Notes {
        Notes { rows: vec![Vec::new(); points] }
    }

    /// `nth`: which point.
    pub(super) fn add(&mut self, nth: usize, measured: &Measured) {
        if let Some(row) = self.rows.get_mut(nth) {
            // The set-up times are in the sample already.
            let figures = Figures { set_up: Vec::new(), ..measured.figures.clone() };
            row.push(Measured { figures, ..measured.clone() });
        }
    }

    /// Of all rows that have a sample.
    pub(super) fn lines(&self, rows: &[Row]) -> Vec<String> {
        let measured = rows.iter().zip(&self.rows).filter(|(_, all)| !all.is_empty());
        measured.map(|(row, all)| line(row, all)).collect()
    }
}

fn line(row: &Row, all: &[Measured]) -> String {
    let name = show::name(&row.point);
    let mut sum = Figures::default();
    all.iter().for_each(|measured| sum.add(&measured.figures));
    let mut line = format!("{name}: {} INVITE, {} BYE", sum.invites, sum.byes);
    if row.point.renew_every.is_some() {
        line += &format!(
            "; {} connections opened, {} closed by the proxy, {} REGISTERs for callees' new ones (no operations)",
            sum.connections, sum.closed_by_proxy, sum.registrations
        );
    }
    if sum.failed_calls > 0 {
        line += &format!("; failed: {}", reasons(&sum.failures));
    }
    if matches!(row.point.arrival, Arrival::Open { .. }) {
        line += &format!("; a call began at most {:.1} ms late", sum.behind_us as f64 / 1e3);
    }
    // The same in all rounds.
    all.iter().take(1).flat_map(|measured| &measured.notes).for_each(|note| line += &format!("; {note}"));
    let samples = || all.iter().map(|measured| &measured.sample);
    if samples().any(|sample| sample.cpu_unknown) {
        line += "; CPU unknown without --target-pid";
        return line;
    }
    let others = samples().map(|sample| sample.others).fold(0.0, f64::max);
    if others > OTHERS_TOLD {
        let whose = if samples().any(Sample::interrupts_apart) { ", mostly in interrupts" } else { "" };
        line += &format!("; others used up to {:.0} % of the processors meanwhile{whose}", others * 100.0);
    }
    line
}

#[cfg(test)]
mod tests {
    use super::super::options::typed;
    use super::super::run::{points, rig};
    use super::*;

    fn told(words: &str, more: &[&str]) -> Vec<String> {
        let options = typed(words, more);
        let plan = rig(&options).unwrap().plan(points(&options).unwrap()).unwrap();
        remarks(&options, &plan)
    }

    #[test]
    fn a_warm_up_shorter_than_a_connection_lives_is_told_twice_the_time_out_behind_the_supervisor() {
        let line = "--transport tcp --renew-every 50 --idle-s 20 --seconds 60 --warm-up";
        assert!(told(&format!("{line} 34"), &[]).is_empty());
        let supervised = told(&format!("{line} 34 --architecture symmetric,supervisor"), &[]);
        assert_eq!(supervised.len(), 1, "{supervised:?}");
        assert!(supervised[0].contains("end behind the supervisor as begin before 40 s"), "{supervised:?}");
        assert!(supervised[0].contains("--warm-up 40 --seconds 60"), "{supervised:?}");
        assert!(told(&format!("{line} 40 --architecture symmetric,supervisor"), &[]).is_empty());
        // The example of the help, too.
        assert!(super::super::options::MORE.contains("--renew-every 50 --idle-s 10 --seconds 30\n"));
        let example = "--transport tcp --architecture symmetric,supervisor --renew-every 50 --idle-s 10 --seconds 30";
        assert!(told(example, &[]).is_empty());
    }

    #[test]
    fn a_warm_up_without_the_ends_of_transactions_makes_a_sketch_of_ours_only() {
        assert!(told("--warm-up 34", &[]).is_empty() && told("", &[]).is_empty());
        let sketch = told("--warm-up 33", &[]);
        assert!(sketch.len() == 1 && sketch[0].starts_with("a sketch: "), "{sketch:?}");
        assert!(told("--warm-up 5 --target 127.0.0.1:5060", &[]).is_empty());
    }

    #[test]
    fn a_supervisor_is_known_by_the_configuration_as_it_is_read() {
        let line = "--transport tcp --renew-every 50 --idle-s 20 --seconds 60 --warm-up 34";
        for tables in ["tcp.architecture = 'supervisor'", "[ tcp ]\narchitecture=\"supervisor\" # so"] {
            let told = told(line, &["--tables", tables]);
            assert!(told.len() == 1 && told[0].contains("behind the supervisor as begin before 40 s"), "{told:?}");
        }
        let own = told(line, &["--tables", "[tcp]\narchitecture = 'supervisor'\nsupervisor_idle_s = 23"]);
        assert!(own.len() == 1 && own[0].contains("as begin before 43 s"), "{own:?}");
        // Only spoken of.
        assert!(told(line, &["--tables", "# architecture = \"supervisor\""]).is_empty());
    }
}
