//! What a profile found, as tables: for the terminal, as Markdown, and (by its types) as JSON.
//!
//! Owns: names and units of the figures. Never measures.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use comfy_table::{CellAlignment, Table, presets};
use serde::{Deserialize, Serialize};

use crate::phone::bench::results::{Machine, Subject};

/// The whole of `profile.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Profiles {
    pub machine: Machine,
    pub profiles: Vec<Profile>,
}

/// One subject's profile. Times are CPU microseconds per operation (INVITE or BYE transaction), of all the proxy's processes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Profile {
    pub subject: Option<Subject>,
    /// Completed while samples were taken.
    pub operations: u64,
    pub operations_per_s: f64,
    pub failed_calls: u64,
    pub samples: u64,
    pub cpu_us: f64,
    pub kernel_us: f64,
    pub user_us: f64,
    /// By kind of process.
    pub processes: Vec<Share>,
    /// User time by room of the house; what was not inlined of others' code under its own name.
    pub rooms: Vec<Share>,
    pub functions: Vec<Share>,
    /// Kernel time by the way into the kernel: system call, interrupt, fault.
    pub ways_in: Vec<Share>,
    /// Kernel time by the kernel's function.
    pub kernel: Vec<Share>,
    /// While system calls were counted.
    pub counted_operations_per_s: f64,
    pub system_calls: Vec<PerOperation>,
}

impl Profile {
    fn name(&self) -> &str {
        self.subject.as_ref().map_or("", |subject| subject.name.as_str())
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Share {
    pub name: String,
    pub us: f64,
}

/// One kind of system call, per operation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PerOperation {
    pub name: String,
    pub calls: f64,
    /// Of them failed, such as those that found nothing to read.
    pub errors: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    Terminal,
    Markdown,
}

/// Lines of a list of functions.
const MOST: usize = 15;

/// All tables.
#[must_use]
pub fn text(profiles: &[Profile], form: Form) -> String {
    let mut text = String::new();
    let mut section = |title: &str, note: &str, table: Table| {
        let head = if form == Form::Markdown { format!("## {title}\n\n") } else { format!("\n{title}\n") };
        let note = if note.is_empty() { String::new() } else { format!("{note}\n") };
        let gap = if form == Form::Markdown { "\n" } else { "" };
        let _ = write!(text, "{head}{note}{}{table}\n{gap}", if note.is_empty() { "" } else { gap });
    };
    section(
        "CPU per operation",
        "Microseconds of all the proxy's processes, while perf sampled them; a call is two operations.",
        totals(profiles, form),
    );
    section(
        "User time by room",
        "Microseconds per operation. Inlined functions are the room's that wrote them; libc, std and crates: what was not inlined.",
        matrix(profiles, form, |profile| shares(&profile.rooms), 0.005),
    );
    section(
        "Kernel time by system call",
        "Microseconds per operation; what interrupts took while our code ran stands under their names.",
        matrix(profiles, form, |profile| shares(&profile.ways_in), 0.005),
    );
    section(
        "System calls per operation",
        "Counted by strace, which slows the proxy down; in brackets those that failed (nothing to read).",
        matrix(profiles, form, system_calls, 0.005),
    );
    for (title, pick) in [
        ("Hottest functions", (|profile: &Profile| profile.functions.as_slice()) as fn(&Profile) -> &[Share]),
        ("Hottest functions of the kernel", |profile| profile.kernel.as_slice()),
    ] {
        for profile in profiles {
            section(&format!("{title}: {}", profile.name()), "", list(pick(profile), form));
        }
    }
    text
}

fn new_table(form: Form) -> Table {
    let mut table = Table::new();
    table.load_preset(if form == Form::Markdown { presets::ASCII_MARKDOWN } else { presets::NOTHING });
    table
}

fn align(table: &mut Table) {
    table.column_iter_mut().skip(1).for_each(|column| column.set_cell_alignment(CellAlignment::Right));
}

fn head(first: &str, profiles: &[Profile]) -> Vec<String> {
    [first.to_owned()].into_iter().chain(profiles.iter().map(|profile| profile.name().to_owned())).collect()
}

fn totals(profiles: &[Profile], form: Form) -> Table {
    let mut table = new_table(form);
    table.set_header(head("", profiles));
    type Pick = fn(&Profile) -> String;
    let rows: [(&str, Pick); 8] = [
        ("CPU", |p| format!("{:.2}", p.cpu_us)),
        ("  kernel", |p| format!("{:.2}", p.kernel_us)),
        ("  user", |p| format!("{:.2}", p.user_us)),
        ("operations/s", |p| format!("{:.0}", p.operations_per_s)),
        ("  under strace", |p| format!("{:.0}", p.counted_operations_per_s)),
        ("operations", |p| p.operations.to_string()),
        ("failed calls", |p| p.failed_calls.to_string()),
        ("samples", |p| p.samples.to_string()),
    ];
    for (name, pick) in rows {
        table.add_row([name.to_owned()].into_iter().chain(profiles.iter().map(pick)));
    }
    let processes = matrix_rows(profiles, |profile| shares(&profile.processes), 0.05);
    for row in processes {
        table.add_row(row);
    }
    align(&mut table);
    table
}

/// A figure and how it is shown.
type Cells = BTreeMap<String, (f64, String)>;

fn shares(shares: &[Share]) -> Cells {
    shares.iter().map(|share| (share.name.clone(), (share.us, format!("{:.2}", share.us)))).collect()
}

fn system_calls(profile: &Profile) -> Cells {
    let cell = |row: &PerOperation| match row.errors > 0.005 {
        true => format!("{:.2} ({:.2})", row.calls, row.errors),
        false => format!("{:.2}", row.calls),
    };
    profile.system_calls.iter().map(|row| (row.name.clone(), (row.calls, cell(row)))).collect()
}

/// A line for each name that anywhere is `least` or more, the greatest first; a column for each subject.
fn matrix(profiles: &[Profile], form: Form, cells: impl Fn(&Profile) -> Cells, least: f64) -> Table {
    let mut table = new_table(form);
    table.set_header(head("", profiles));
    for row in matrix_rows(profiles, cells, least) {
        table.add_row(row);
    }
    align(&mut table);
    table
}

fn matrix_rows(profiles: &[Profile], cells: impl Fn(&Profile) -> Cells, least: f64) -> Vec<Vec<String>> {
    let columns: Vec<Cells> = profiles.iter().map(cells).collect();
    let mut most: BTreeMap<&str, f64> = BTreeMap::new();
    for (name, (figure, _)) in columns.iter().flatten() {
        let greatest = most.entry(name).or_default();
        *greatest = greatest.max(*figure);
    }
    let mut names: Vec<(&str, f64)> = most.into_iter().filter(|(_, figure)| *figure >= least).collect();
    names.sort_by(|a, z| z.1.total_cmp(&a.1));
    let shown = |column: &Cells, name: &str| column.get(name).map_or("-".to_owned(), |(_, shown)| shown.clone());
    names
        .into_iter()
        .map(|(name, _)| {
            [name.to_owned()].into_iter().chain(columns.iter().map(|column| shown(column, name))).collect()
        })
        .collect()
}

fn list(shares: &[Share], form: Form) -> Table {
    let mut table = new_table(form);
    table.set_header(["", "µs", "%"]);
    let all: f64 = shares.iter().map(|share| share.us).sum();
    for share in shares.iter().take(MOST) {
        table.add_row([
            share.name.clone(),
            format!("{:.2}", share.us),
            format!("{:.1}", share.us * 100.0 / all.max(1e-9)),
        ]);
    }
    align(&mut table);
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    fn profile(name: &str, rooms: &[(&str, f64)]) -> Profile {
        let share = |(name, us): &(&str, f64)| Share { name: (*name).to_owned(), us: *us };
        let system_calls = vec![PerOperation { name: "recvmmsg".to_owned(), calls: 3.5, errors: 1.25 }];
        let mut profile = Profile { rooms: rooms.iter().map(share).collect(), system_calls, ..Profile::default() };
        let subject = Subject { name: name.to_owned(), transport: "udp".to_owned(), tables: String::new() };
        profile.subject = Some(subject);
        profile
    }

    #[test]
    fn subjects_stand_side_by_side_the_greatest_room_first() {
        let profiles = [profile("UDP", &[("message", 2.0), ("shared", 1.0)]), profile("TCP", &[("transport", 9.0)])];
        let markdown = text(&profiles, Form::Markdown);
        let lines: Vec<&str> = markdown.lines().collect();
        let at = lines.iter().position(|line| *line == "## User time by room").unwrap();
        let cells = |nth: usize| -> Vec<&str> { lines[at + nth].split('|').map(str::trim).collect() };
        assert_eq!(cells(4), ["", "", "UDP", "TCP", ""]);
        assert_eq!(cells(6), ["", "transport", "-", "9.00", ""]);
        assert_eq!(cells(7), ["", "message", "2.00", "-", ""]);
        assert!(markdown.contains("3.50 (1.25)"), "{markdown}");
        assert!(!text(&profiles, Form::Terminal).contains("##"));
    }

    #[test]
    fn a_profile_survives_json() {
        let profile = profile("UDP", &[("message", 2.0)]);
        let json = serde_json::to_string(&profile).unwrap();
        assert_eq!(serde_json::from_str::<Profile>(&json).unwrap(), profile);
    }
}
