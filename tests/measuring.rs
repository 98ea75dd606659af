//! `strowger bench run`, as it is typed: small measurements, true in what they count.

mod support;

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Output, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use strowger::phone::bench::results::{Limit, Results, Sample};
use strowger::phone::daemon::{Daemon, free_port, is_there};

const PROGRAM: &str = env!("CARGO_BIN_EXE_strowger");

fn bench(arguments: &[&str]) -> Command {
    let mut command = Command::new(PROGRAM);
    // A variable of the user's must not reach the daemon: this one would be refused.
    command.args(["bench", "run"]).args(arguments).env("STROWGER_WORKERS", "nonsense").stdin(Stdio::null());
    command
}

struct Measured {
    results: Results,
    said: String,
}

impl Measured {
    fn only(&self) -> &Sample {
        assert_eq!((self.results.rows.len(), self.results.rows[0].samples.len()), (1, 1));
        &self.results.rows[0].samples[0]
    }

    /// The number before a word of the notes.
    fn count(&self, word: &str) -> u64 {
        let before = self.said.split_once(word).unwrap_or_else(|| panic!("{word} in {}", self.said)).0;
        before.split_whitespace().last().unwrap().parse().unwrap_or_else(|_| panic!("{word} in {}", self.said))
    }
}

/// Measures for a second, and reads the JSON.
fn measure(name: &str, arguments: &[&str]) -> Measured {
    let file = Scrap::new(name);
    let usual = ["--rounds", "1", "--seconds", "1", "--warm-up", "0.3", "--json"];
    let output = bench(&usual).arg(&file.0).args(arguments).output().unwrap();
    let said = both(&output);
    assert!(output.status.success(), "{said}");
    let text = std::fs::read_to_string(&file.0).unwrap_or_else(|e| panic!("{e}: {said}"));
    Measured { results: serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}")), said }
}

fn both(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// A file that is gone at the end.
struct Scrap(PathBuf);

impl Scrap {
    fn new(name: &str) -> Scrap {
        Scrap(std::env::temp_dir().join(format!("strowger-measuring-{}-{name}", std::process::id())))
    }
}

impl Drop for Scrap {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn seen_well(measured: &Measured) {
    seen_well_in(measured, &["master", "timer", "worker"]);
}

/// `kinds`: of the daemon's processes, all of them.
#[track_caller]
fn seen_well_in(measured: &Measured, kinds: &[&str]) {
    let sample = measured.only();
    assert_eq!(sample.failed_calls, 0, "{}", measured.said);
    assert!(sample.operations > 100 / u64::from(support::slow()), "{}", measured.said);
    let (invites, byes) = (measured.count(" INVITE"), measured.count(" BYE"));
    assert_eq!(invites + byes, sample.operations, "{}", measured.said);
    assert!(invites.abs_diff(byes) <= 20, "{}", measured.said);
    let seen: Vec<&str> = sample.cpu_by_process.keys().map(String::as_str).collect();
    assert_eq!(seen, kinds, "{}", measured.said);
    assert!(sample.knows_cpu() && sample.cpu_s < 3.0 * sample.wall_s, "{sample:?}");
    assert!(sample.phones_cpu_s > 0.0 && sample.set_up.p50_us > 0.0, "{sample:?}");
    assert!(sample.idle.is_some_and(|idle| (0.0..1.0).contains(&idle)) && sample.round == Some(0), "{sample:?}");
    assert!(sample.set_up.p50_us <= sample.set_up.p99_us && sample.set_up.p99_us <= sample.set_up.p999_us);
    assert!(!measured.results.sketch && measured.results.machine.processors > 0);
}

/// The virtual machine is there for the kernel's SCTP; the others have been measured on the host.
fn wires() -> Vec<&'static str> {
    match (support::left_to_the_vm("SCTP by the kernel"), std::env::var_os("IN_VM")) {
        (true, _) => vec!["udp", "tcp", "sctp-user"],
        (false, None) => vec!["udp", "tcp", "sctp-user", "sctp"],
        (false, Some(_)) => vec!["sctp"],
    }
}

/// An emulated machine keeps no rate and closes no hundred connections a second.
fn is_emulated() -> bool {
    support::slow() > 1
}

#[test]
fn every_transport_is_measured_and_as_many_byes_as_invites_are_counted() {
    for wire in wires() {
        let measured = measure(wire, &["--transport", wire, "--clients", "10"]);
        seen_well(&measured);
        // Opened before the window.
        assert_eq!(measured.only().connections, 0, "{}", measured.said);
        let table = format!("{}, 10 clients", measured.results.rows[0].point.subject.name);
        assert!(measured.said.contains(&table), "{}", measured.said);
    }
}

#[test]
fn the_supervisor_and_the_single_owner_are_measured_as_processes_of_their_own() {
    if is_emulated() {
        return;
    }
    for (words, name, process) in [
        ("supervisor", "TCP supervisor", "supervisor"),
        ("supervisor --descriptor-cache --priority-queue", "TCP supervisor + cache + queue", "supervisor"),
        ("single_owner", "TCP single_owner", "owner"),
    ] {
        let mut arguments = vec!["--transport", "tcp", "--clients", "10", "--architecture"];
        arguments.extend(words.split(' '));
        let measured = measure(&format!("{process}-{}", words.len()), &arguments);
        let mut kinds = ["master", "timer", "worker", process];
        kinds.sort_unstable();
        seen_well_in(&measured, &kinds);
        assert_eq!(measured.results.rows[0].point.subject.name, name);
        let cpu = &measured.only().cpu_by_process;
        assert!(cpu.get(process).is_some_and(|seconds| *seconds > 0.0), "{cpu:?}");
    }
}

#[test]
fn an_open_loop_keeps_its_rate_and_says_that_nobody_was_the_limit() {
    if is_emulated() {
        return;
    }
    let rate = 400;
    let measured = measure("rate", &["--rate", &rate.to_string(), "--clients", "20", "--phones-nice", "3"]);
    assert_eq!(measured.results.machine.phones_nice, Some(3));
    let sample = measured.only();
    let calls = sample.operations as f64 / 2.0 / sample.wall_s;
    assert!((calls - f64::from(rate)).abs() < f64::from(rate) * 0.02, "{calls} {}", measured.said);
    assert_eq!((sample.limit, sample.failed_calls), (Limit::Rate, 0), "{}", measured.said);
}

#[test]
fn renewed_connections_are_opened_registered_and_left_to_the_proxy() {
    for wire in wires().into_iter().filter(|wire| *wire != "udp") {
        let measured = measure(
            &format!("renewed-{wire}"),
            &["--transport", wire, "--clients", "4", "--renew-every", "20", "--idle-s", "1"],
        );
        seen_well(&measured);
        let sample = measured.only();
        // A pair's callee and caller both renew every 20 operations, so there is one new connection for 10.
        let expected = sample.operations as f64 / 10.0;
        assert!((sample.connections as f64 - expected).abs() < expected * 0.1 + 10.0, "{expected} {}", measured.said);
        let registered = measured.count(" REGISTERs for") as f64;
        assert!((registered - expected / 2.0).abs() < expected * 0.1 + 10.0, "{expected} {}", measured.said);
    }
}

#[test]
fn idle_connections_are_let_go_when_the_proxy_closes_them() {
    if is_emulated() {
        return;
    }
    let arguments = ["--transport", "tcp", "--clients", "2", "--renew-every", "20", "--idle-s", "1", "--warm-up", "2"];
    let file = Scrap::new("idle");
    let output = bench(&["--rounds", "1", "--seconds", "1", "--json"]).arg(&file.0).args(arguments).output().unwrap();
    let measured = Measured {
        results: serde_json::from_str(&std::fs::read_to_string(&file.0).unwrap()).unwrap(),
        said: both(&output),
    };
    assert_eq!(measured.only().failed_calls, 0, "{}", measured.said);
    assert!(measured.count(" closed by the proxy") > 10, "{}", measured.said);
}

#[test]
fn a_connection_per_call_and_trunks_carry_calls_too() {
    for wire in wires().into_iter().filter(|wire| *wire != "udp") {
        let measured =
            measure(&format!("per-call-{wire}"), &["--transport", wire, "--clients", "4", "--connection-per-call"]);
        seen_well(&measured);
        let (connections, calls) = (measured.only().connections, measured.only().operations / 2);
        assert!(connections.abs_diff(calls) <= 10, "{connections} {calls} {}", measured.said);
    }
    for wire in wires() {
        let measured = measure(&format!("trunks-{wire}"), &["--transport", wire, "--clients", "50", "--trunks", "1"]);
        seen_well(&measured);
        assert_eq!(measured.only().connections, 0, "{}", measured.said);
    }
}

#[test]
fn another_proxy_is_called_and_its_cpu_measured_where_its_process_is_named() {
    let port = free_port().unwrap();
    let text = format!(
        "workers = 1\ndomains = [\"a.test\"]\n[admin]\naddress = \"off\"\n[[listen]]\ntransport = \"udp\"\naddress = \"127.0.0.1:{port}\"\n"
    );
    let daemon = Daemon::start(Path::new(PROGRAM), &text).unwrap();
    let (target, pid) = (format!("127.0.0.1:{port}"), daemon.pid().to_string());
    let is_ready = || {
        std::thread::sleep(Duration::from_millis(20));
        is_there(target.parse().unwrap(), Duration::from_millis(50)).unwrap()
    };
    // Ten seconds at least.
    assert!((0..500 * support::slow()).any(|_| is_ready()), "{}", daemon.said());
    let arguments = ["--clients", "4", "--target", &target, "--domain", "a.test", "--target-name", "Other"];
    let known = measure("target", &[&arguments[..], &["--target-pid", &pid]].concat());
    assert_eq!(known.results.rows[0].point.subject.name, "Other UDP");
    let sample = known.only();
    assert!(sample.operations > 0 && sample.failed_calls == 0 && sample.cpu_s > 0.0, "{}", known.said);
    // By the name of its processes, which are all called alike.
    assert_eq!(sample.cpu_by_process.keys().collect::<Vec<_>>(), ["strowger"], "{}", known.said);
    let unknown = measure("target-cpu", &arguments);
    assert!(unknown.said.contains("CPU unknown without --target-pid"), "{}", unknown.said);
    assert!(unknown.said.contains(" operations/s, CPU unknown, 0 calls failed"), "{}", unknown.said);
    assert!(unknown.only().cpu_unknown && !sample.cpu_unknown);
    assert!(unknown.only().cpu_s == 0.0 && unknown.only().cpu_by_process.is_empty());
    // Phones of a domain that it is not registrar for are refused, and it says which.
    let refused = bench(&["--clients", "4", "--target", &target, "--domain", "z.test"]).output().unwrap();
    assert_eq!(refused.status.code(), Some(1));
    assert!(both(&refused).contains("could not register"), "{}", both(&refused));
    assert!(daemon.stop().unwrap().success());
}

/// The kernel says of each datagram that nobody listens there: no reason to hear nothing else any more.
#[test]
fn a_target_where_nobody_listens_is_told_when_the_registrations_time_out() {
    let target = format!("127.0.0.1:{}", free_port().unwrap());
    let encapsulation_port = free_port().unwrap().to_string();
    let spawn = |wire| {
        let mut command = bench(&["--clients", "2", "--target", &target, "--transport", wire, "--rounds", "1"]);
        if wire == "sctp-user" {
            command.args(["--encapsulation-port", &encapsulation_port]);
        }
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    for running in ["udp", "sctp-user"].map(spawn) {
        let output = running.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{}", both(&output));
        assert!(both(&output).contains("4 of 4 phones could not register"), "{}", both(&output));
    }
}

#[test]
fn slow_phones_are_told_as_the_limit() {
    // Each message costs a phone process far more than the proxy, also where others use the machine.
    let measured = measure("slow", &["--clients", "20", "--phones", "1", "--burden-us", "2000"]);
    let sample = measured.only();
    assert_eq!(sample.limit, Limit::Phones, "{}", measured.said);
    assert!(sample.phones_busy > 0.95, "{sample:?}");
}

#[test]
fn an_interrupted_measurement_leaves_nothing_behind() {
    let mut child =
        bench(&["--clients", "4", "--seconds", "60"]).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let bench_pid = child.id();
    let family = || strowger::phone::daemon::family(bench_pid);
    // Master, two workers, timer; a phone process at least.
    while family().len() < 6 {
        assert!(child.try_wait().unwrap().is_none());
        std::thread::sleep(Duration::from_millis(10));
    }
    std::thread::sleep(Duration::from_millis(300));
    let others = family();
    kill(Pid::from_raw(i32::try_from(bench_pid).unwrap()), Signal::SIGINT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    for pid in others {
        assert!(kill(Pid::from_raw(i32::try_from(pid).unwrap()), None).is_err(), "{pid} is still there");
    }
}

/// A phone process that it has started.
fn phone_of(bench: u32) -> Option<u32> {
    let is_phone = |pid: &u32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.windows(6).any(|word| word == b"phones")
    };
    strowger::phone::daemon::family(bench).into_iter().find(is_phone)
}

#[test]
fn a_phone_process_that_dies_is_told_and_ends_the_measurement() {
    let mut child =
        bench(&["--clients", "4", "--seconds", "60"]).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let phone = loop {
        assert!(child.try_wait().unwrap().is_none());
        if let Some(phone) = phone_of(child.id()) {
            break phone;
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    std::thread::sleep(Duration::from_millis(300));
    kill(Pid::from_raw(i32::try_from(phone).unwrap()), Signal::SIGKILL).unwrap();
    let said: Vec<String> = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap).collect();
    assert_eq!(child.wait().unwrap().code(), Some(1), "{said:?}");
    assert!(said.iter().any(|line| line.contains(&format!("phone process {phone} ended with signal 9"))), "{said:?}");
}

/// Measures round after round until the first is told; what comes after that line can be read from the second.
fn first_round(json: &Path) -> (Child, BufReader<ChildStderr>) {
    let arguments = ["--clients", "4", "--rounds", "50", "--seconds", "1", "--warm-up", "0.3", "--json"];
    let mut child = bench(&arguments).arg(json).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    let mut said = String::new();
    while !said.contains("round 1 of 50") {
        assert_ne!(stderr.read_line(&mut said).unwrap(), 0, "{said}");
    }
    (child, stderr)
}

/// How it ended, and all that it said after the first round; one sample or a second one is in table and file.
fn kept(mut child: Child, mut stderr: BufReader<ChildStderr>, json: &Path) -> (Option<i32>, String) {
    let mut said = String::new();
    child.stdout.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(said.contains("operations/s") && said.contains("UDP, 4 clients: "), "{said}");
    stderr.read_to_string(&mut said).unwrap();
    let results: Results = serde_json::from_str(&std::fs::read_to_string(json).unwrap()).unwrap();
    let samples = results.rows[0].samples.len();
    assert!((1..3).contains(&samples) && results.rounds == 50, "{samples} {said}");
    assert!(said.contains(&format!("not finished: {samples} of 50 samples were taken")), "{said}");
    (child.wait().unwrap().code(), said)
}

#[test]
fn samples_taken_before_an_interruption_are_shown_and_written() {
    let file = Scrap::new("interrupted");
    let (child, stderr) = first_round(&file.0);
    kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), Signal::SIGINT).unwrap();
    let (code, said) = kept(child, stderr, &file.0);
    assert_eq!(code, Some(130), "{said}");
}

#[test]
fn samples_taken_before_one_that_fails_are_shown_and_written() {
    let file = Scrap::new("failed");
    let (child, stderr) = first_round(&file.0);
    let phone = loop {
        if let Some(phone) = phone_of(child.id()) {
            break phone;
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    std::thread::sleep(Duration::from_millis(300));
    kill(Pid::from_raw(i32::try_from(phone).unwrap()), Signal::SIGKILL).unwrap();
    let (code, said) = kept(child, stderr, &file.0);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains(&format!("phone process {phone} ended with signal 9")), "{said}");
}

#[test]
fn a_file_that_cannot_be_written_is_told_before_anything_is_measured() {
    let few = ["--clients", "4", "--rounds", "1", "--seconds", "1", "--json", "/nowhere/results.json"];
    let output = bench(&few).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(both(&output).contains("/nowhere/results.json: No such file or directory"), "{}", both(&output));
    assert!(!both(&output).contains("round 1"), "{}", both(&output));
}

#[test]
fn a_process_of_the_daemon_that_dies_while_it_is_measured_makes_the_figures_worthless() {
    if is_emulated() {
        return;
    }
    let arguments = ["--clients", "4", "--warm-up", "0", "--seconds", "4", "--rounds", "1"];
    let mut child = bench(&arguments).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let bench_pid = child.id();
    let calls_itself = |pid: u32, word: &str| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.split(|byte| *byte == 0).any(|of| of == word.as_bytes())
    };
    let of = |word: &str| -> Vec<u32> {
        strowger::phone::daemon::family(bench_pid).into_iter().filter(|pid| calls_itself(*pid, word)).collect()
    };
    while of("phones").is_empty() {
        assert!(child.try_wait().unwrap().is_none());
        std::thread::sleep(Duration::from_millis(10));
    }
    // The window is open by now, and for some time to come.
    std::thread::sleep(Duration::from_millis(1_500));
    let daemon = of("serve");
    let victim = daemon.last().copied().unwrap();
    assert!(daemon.len() >= 4, "{daemon:?}");
    kill(Pid::from_raw(i32::try_from(victim).unwrap()), Signal::SIGKILL).unwrap();
    let said: Vec<String> = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap).collect();
    assert_eq!(child.wait().unwrap().code(), Some(1), "{said:?}");
    let sentence = format!("of the proxy (pid {victim}) ended while it was measured");
    assert!(said.iter().any(|line| line.contains(&sentence)), "{sentence}: {said:?}");
}

#[test]
fn udp_is_measured_beside_renewed_connections_as_it_is_and_a_window_too_short_for_them_is_told() {
    if is_emulated() {
        return;
    }
    let file = Scrap::new("beside");
    let arguments = ["--transport", "udp,tcp", "--clients", "4", "--renew-every", "20", "--idle-s", "1"];
    let times = ["--rounds", "1", "--seconds", "1", "--warm-up", "0.3", "--json"];
    let output = bench(&times).arg(&file.0).args(arguments).output().unwrap();
    let said = both(&output);
    assert!(output.status.success(), "{said}");
    let results: Results = serde_json::from_str(&std::fs::read_to_string(&file.0).unwrap()).unwrap();
    let renewed: Vec<Option<u64>> = results.rows.iter().map(|row| row.point.renew_every).collect();
    assert_eq!(renewed, [None, Some(20)]);
    assert!(said.contains("UDP has no connections: its row is one without"), "{said}");
    assert!(said.contains("idle time-out of 1 s") && said.contains("--warm-up 1 --seconds 3"), "{said}");
}

#[test]
fn more_connections_than_open_files_are_refused_before_anything_begins() {
    let arguments = ["--transport", "tcp", "--renew-every", "2", "--idle-s", "3600", "--seconds", "3000"];
    let output = bench(&arguments).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(both(&output).contains("a shorter --idle-s") && both(&output).contains("ulimit -Hn"), "{}", both(&output));
}

#[test]
fn what_makes_no_sense_is_refused_with_a_reason() {
    for (arguments, reason) in [
        (&["--renew-every", "50"][..], "UDP has no connections"),
        (&["--architecture", "symmetric"], "--architecture is TCP's"),
        (&["--seconds", "0"], "a number above 0"),
        (&["--target-pid", "1"], "--target"),
        (&["--descriptor-cache"], "--architecture"),
        (
            &["--transport", "tcp", "--priority-queue", "--architecture", "symmetric"],
            "--priority-queue is the supervisor's",
        ),
        (
            &["--transport", "tcp", "--descriptor-cache", "--architecture", "single_owner"],
            "--descriptor-cache is the supervisor's",
        ),
        (
            &["--transport", "tcp", "--supervisor-nice", "-5", "--architecture", "symmetric"],
            "--supervisor-nice is the supervisor's",
        ),
        (&["--transport", "tcp", "--supervisor-nice", "-5"], "--architecture"),
        (&["--transport", "tcp", "--architecture", "central"], "symmetric, single_owner, supervisor"),
        (&["--target", "127.0.0.1:5060", "--workers", "4"], "cannot be used with"),
        (&["--target", "127.0.0.1:5060", "--descriptor-cache"], "cannot be used with"),
        (&["--target", "127.0.0.1:5060", "--supervisor-nice", "-5"], "cannot be used with"),
        (&["--encapsulation-port", "9900"], "--target"),
        (&["--transport", "tcp", "--layout", "shared"], "--layout is that of the kernel's SCTP"),
        (&["--idle-s", "10"], "--idle-s is for tcp"),
        (
            &["--transport", "tcp", "--architecture", "supervisor", "--tables", "tcp.architecture = 'symmetric'"],
            "--tables says otherwise than other options",
        ),
        (&["--tables", "[tcp\n"], "--tables: TOML parse error"),
        (&["--phones-nice", "20"], "-20..=19"),
        (&["--transport", "tcp", "--trunks", "1", "--renew-every", "5"], "cannot be used with"),
    ] {
        let output = bench(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(both(&output).contains(reason), "{arguments:?}: {}", both(&output));
    }
    let wrong = bench(&["--tables", "[tcp]\nidle_s = 0\n", "--transport", "tcp"]).output().unwrap();
    assert_eq!(wrong.status.code(), Some(1));
    assert!(both(&wrong).contains("tcp.idle_s = 0: a whole number"), "{}", both(&wrong));
}
