//! What a measurement looks like: the bar while it runs, the table at its end.
//!
//! Owns: the layout. On a terminal a bar with the time that is left; else a line for each sample.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use comfy_table::{CellAlignment, Table};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::measure::{AROUND, Stage, Turn};
use super::results::{Arrival, Limit, Point, Row, Sample};
use super::spread::Spread;

/// A comfy-table preset: lines above, below the head and at the end, none between rows.
const ROWS: &str = "  ── ══      ──    ";

/// `TCP supervisor, 500 clients, renewed every 50`
#[must_use]
pub fn name(point: &Point) -> String {
    let mut name = format!("{}, {} clients", point.subject.name, point.clients);
    if let Some(every) = point.renew_every {
        name += &format!(", renewed every {every}");
    }
    if let Arrival::Open { calls_per_s } = point.arrival {
        name += &format!(", {calls_per_s} calls/s");
    }
    if point.supervisor_nice != 0 {
        name += &format!(", nice {}", point.supervisor_nice);
    }
    name
}

/// A row for each point that was measured: medians, and least to greatest of the CPU.
#[must_use]
pub fn table(rows: &[Row]) -> Table {
    let mut table = Table::new();
    table.load_preset(ROWS).set_header([
        "",
        "operations/s",
        "CPU µs/op",
        "min–max",
        "phones µs/op",
        "busy",
        "idle",
        "failed",
        "again",
        "p50 ms",
        "p99 ms",
        "p99.9 ms",
        "limit",
    ]);
    table.column_iter_mut().skip(1).for_each(|column| column.set_cell_alignment(CellAlignment::Right));
    for row in rows.iter().filter(|row| !row.samples.is_empty()) {
        let spread = |of: &dyn Fn(&Sample) -> f64| {
            Spread::over(row, of).map_or([f64::NAN; 3], |spread| [spread.least, spread.median, spread.most])
        };
        let median = |of: &dyn Fn(&Sample) -> f64| spread(of)[1];
        let ms = |of: fn(&Sample) -> f64| format!("{:.2}", median(&of) / 1e3);
        let [least, cpu, most] = spread(&Sample::cpu_us_per_operation);
        let idle = Spread::of(row.samples.iter().filter_map(|sample| sample.idle));
        let known = row.samples.iter().all(Sample::knows_cpu);
        let sum = |of: fn(&Sample) -> u64| row.samples.iter().map(of).sum::<u64>().to_string();
        table.add_row([
            name(&row.point),
            format!("{:.0}", median(&Sample::operations_per_s)),
            if known { format!("{cpu:.1}") } else { "?".to_owned() },
            if known { format!("{least:.1}–{most:.1}") } else { "?".to_owned() },
            format!("{:.1}", median(&|sample| sample.phones_cpu_s * 1e6 / sample.operations.max(1) as f64)),
            format!("{:.0} %", median(&|sample| sample.phones_busy * 100.0)),
            idle.map_or_else(|| "?".to_owned(), |idle| format!("{:.0} %", idle.median * 100.0)),
            sum(|sample| sample.failed_calls),
            sum(|sample| sample.retransmissions),
            ms(|sample| sample.set_up.p50_us),
            ms(|sample| sample.set_up.p99_us),
            ms(|sample| sample.set_up.p999_us),
            limits(row),
        ]);
    }
    table
}

fn limits(row: &Row) -> String {
    let mut words: Vec<String> = Vec::new();
    for sample in &row.samples {
        // Of all that nobody limited the one that idled the most.
        let word = limit(sample.limit, sample.nobody().and(row.nobody()));
        if !words.contains(&word) {
            words.push(word);
        }
    }
    words.join(", ")
}

/// As the table says it. `nobody`: the share of the processors that idled although nobody was busy all the time.
#[must_use]
pub fn limit(limit: Limit, nobody: Option<f64>) -> String {
    match (limit, nobody) {
        (Limit::Proxy, Some(idle)) => format!("nobody ({:.0} % of the processors idle)", idle * 100.0),
        (Limit::Proxy, None) => "proxy".to_owned(),
        (Limit::Phones, _) => "phones".to_owned(),
        (Limit::Rate, _) => "rate".to_owned(),
    }
}

/// The progress of `run_interleaved`.
pub struct Meter {
    bar: ProgressBar,
    /// Seconds of every point.
    seconds: Vec<f64>,
    rounds: usize,
}

impl Meter {
    #[must_use]
    pub fn new(points: &[Point], rounds: usize) -> Meter {
        let of = |point: &Point| point.warm_up_s + point.measure_s + AROUND.as_secs_f64();
        let seconds: Vec<f64> = points.iter().map(of).collect();
        let target = match io::stderr().is_terminal() {
            true => ProgressDrawTarget::stderr(),
            false => ProgressDrawTarget::hidden(),
        };
        let whole = seconds.iter().sum::<f64>() * rounds as f64;
        let bar = ProgressBar::with_draw_target(Some(whole as u64), target);
        if let Ok(style) = ProgressStyle::with_template("{msg:50!} {wide_bar} {prefix} left") {
            bar.set_style(style);
        }
        Meter { bar, seconds, rounds }
    }

    pub fn show(&mut self, turn: &Turn) {
        let name = name(turn.point);
        let of_round: f64 = self.seconds.iter().sum();
        let before = of_round * turn.round as f64 + self.seconds.iter().take(turn.nth).sum::<f64>();
        let this = self.seconds.get(turn.nth).copied().unwrap_or(0.0);
        let whole = of_round * self.rounds as f64;
        if let Some(sample) = turn.measured.map(|measured| &measured.sample) {
            self.bar.set_position((before + this) as u64);
            if self.bar.is_hidden() {
                let cpu = match sample.knows_cpu() {
                    true => format!("{:.1} µs CPU each", sample.cpu_us_per_operation()),
                    false => "CPU unknown".to_owned(),
                };
                let _ = writeln!(
                    io::stderr(),
                    "round {} of {}, {name}: {:.0} operations/s, {cpu}, {} calls failed, limit {}, {} s left",
                    turn.round + 1,
                    self.rounds,
                    sample.operations_per_s(),
                    sample.failed_calls,
                    limit(sample.limit, sample.nobody()),
                    (whole - before - this) as u64
                );
            }
        }
        if let Some(progress) = turn.progress {
            let left = progress.left.as_secs_f64().min(this);
            let what = match progress.stage {
                Stage::Starting => "starting",
                Stage::Registering => "registering",
                Stage::WarmingUp => "warming up",
                Stage::Measuring => "measuring",
                Stage::Ending => "ending",
            };
            self.bar.set_message(format!("{what} {name}"));
            self.bar.set_prefix(
                humantime::format_duration(Duration::from_secs((whole - before - this + left) as u64)).to_string(),
            );
            self.bar.set_position((before + this - left) as u64);
        }
    }

    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_was_the_limit_is_the_proxy_only_where_processors_do_not_idle() {
        assert_eq!(limit(Limit::Proxy, None), "proxy");
        assert_eq!(limit(Limit::Proxy, Some(0.234)), "nobody (23 % of the processors idle)");
        assert_eq!((limit(Limit::Phones, None), limit(Limit::Rate, None)), ("phones".to_owned(), "rate".to_owned()));
    }
}
