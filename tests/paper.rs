//! `strowger bench paper`, as it is typed: a small matrix, really measured; broken off, gone on with, and drawn.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use strowger::phone::bench::results::{Arrival, Results};

/// A folder that goes with the test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let folder = std::env::temp_dir().join(format!("strowger-bench-paper-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        Folder(folder)
    }

    fn text(&self, file: &str) -> String {
        fs::read_to_string(self.0.join(file)).unwrap_or_else(|e| panic!("{file}: {e}"))
    }

    fn results(&self) -> Results {
        serde_json::from_str(&self.text("results.json")).unwrap()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn paper(out: &Path, words: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_strowger"));
    command.args(["bench", "paper", "--out"]).arg(out).args(words.split_whitespace());
    command.stdin(Stdio::null()).stderr(Stdio::piped());
    command
}

/// Two numbers of clients, twice each.
const SMALL: &str = "--only udp --clients 4,8 --rounds 2 --warm-up-s 1 --measure-s 1";

#[test]
fn a_run_that_is_broken_off_leaves_a_report_and_goes_on() {
    let folder = Folder::new("small");
    let mut child = paper(&folder.0, SMALL).spawn().unwrap();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    let mut said = String::new();
    // The line of the first point ends when it is measured; then the second one's begins.
    while !said.contains("operations/s") {
        assert_ne!(stderr.read_line(&mut said).unwrap(), 0, "{said}");
    }
    kill(Pid::from_raw(child.id() as i32), Signal::SIGINT).unwrap();
    stderr.read_to_string(&mut said).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130), "{said}");
    assert!(said.contains("[1/4, ") && said.contains(" left] UDP, 4 clients, 2 workers: "), "{said}");
    assert_eq!(folder.results().rows.iter().map(|row| row.samples.len()).collect::<Vec<_>>(), [1, 0]);
    assert!(folder.text("report.html").contains("1 of 2 points have no run yet"));

    let other = paper(&folder.0, &format!("{SMALL} --workers 1 --resume")).output().unwrap();
    assert_eq!(other.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&other.stderr).contains("of another run"));

    let on = paper(&folder.0, &format!("{SMALL} --resume")).output().unwrap();
    let said = String::from_utf8_lossy(&on.stderr);
    assert!(on.status.success(), "{said}");
    assert!(said.contains("3 of 4 runs to do"), "{said}");
    let results = folder.results();
    for row in &results.rows {
        assert_eq!((row.samples.len(), row.point.arrival, row.point.workers), (2, Arrival::Closed, 2));
        for sample in &row.samples {
            assert!(sample.operations > 0 && sample.cpu_s > 0.0 && sample.failed_calls == 0, "{sample:?}");
            assert!((0.9..2.0).contains(&sample.wall_s), "{sample:?}");
        }
    }
    assert!(!results.sketch && !results.machine.command.contains("--resume"));
    assert!(folder.text("table.md").contains("| UDP |"));
    assert!(!folder.text("report.html").contains("no run yet"));
}

#[test]
fn a_sketch_is_measured_and_says_what_it_is() {
    let folder = Folder::new("sketch");
    // The kernel's where it has one: in the virtual machine.
    let stack = if sys::sctp::supported() { "sctp-kernel" } else { "sctp-user" };
    let sketch = paper(&folder.0, &format!("--quick --only udp,{stack}")).output().unwrap();
    let said = String::from_utf8_lossy(&sketch.stderr);
    assert!(sketch.status.success(), "{said}");
    let results = folder.results();
    assert!(results.sketch);
    assert_eq!(results.rows.len(), 4, "SCTP renewed and kept, UDP beside each");
    let opened: Vec<bool> = results.rows.iter().map(|row| row.samples[0].connections > 0).collect();
    assert_eq!(opened, [false, true, false, false], "only the renewed row opens associations within its window");
    for file in ["report.html", "table.md", "figure-6-50-per-second.svg", "figure-6-kept-per-cpu-second.svg"] {
        assert!(folder.text(file).contains("A sketch, nothing to quote"), "{file}");
    }
    assert!(said.contains("Not in this run: TCP supervisor"), "{said}");
    assert!(said.contains("what the ends of transactions cost"), "{said}");
    assert_eq!(results.machine.program.len(), 64);
    assert!(results.machine.phones_nice.is_some());
    let twice = paper(&folder.0, "--quick").output().unwrap();
    assert_eq!(twice.status.code(), Some(2), "something lies there, and nobody said --resume");
}
