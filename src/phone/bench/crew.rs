//! The phone processes of a sample: started, spoken to, watched, ended.
//!
//! Owns: the processes. None outlives its `Crew`; one that dies is told, with how. What they say is bounded: a line each time they
//! are asked.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::ops::ControlFlow;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, bounded};

use super::time::Time;
use super::words::{Order, Report};
use crate::phone::daemon::describe;

/// The longest report: set-up times are some thousand pairs of numbers.
const LONGEST: u64 = 4 << 20;
/// They have so long to end after their stdin has.
const END: Duration = Duration::from_secs(2);
/// The watch is asked so often.
const STEP: Duration = Duration::from_millis(50);

pub(super) struct Crew {
    members: Vec<Member>,
    reports: Receiver<(usize, Heard)>,
}

struct Member {
    child: Child,
    stdin: Option<ChildStdin>,
}

enum Heard {
    Report(Report),
    /// Its stdout ended, or said something strange.
    Silence,
}

/// Asked between two looks; `Break` ends the waiting.
pub(super) type Watch<'w> = &'w mut dyn FnMut() -> ControlFlow<()>;

/// What was told to whoever broke off.
pub(super) const INTERRUPTED: &str = "interrupted";

impl Crew {
    /// Starts `count` processes.
    pub(super) fn start(program: &Path, count: usize) -> Result<Crew, String> {
        let (tell, reports) = bounded(64);
        let mut crew = Crew { members: Vec::new(), reports };
        for nth in 0..count {
            let spawned = Command::new(program)
                .args(["bench", "phones"])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::inherit())
                .spawn();
            let mut child = spawned.map_err(|e| format!("no phone process ({}): {e}", program.display()))?;
            let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
            crew.members.push(Member { child, stdin });
            if let Some(stdout) = stdout {
                let tell = tell.clone();
                // It ends with the process, whose stdout it reads.
                std::thread::Builder::new()
                    .name("reports".to_owned())
                    .spawn(move || listen(nth, stdout, &tell))
                    .map_err(|e| format!("no thread: {e}"))?;
            }
        }
        Ok(crew)
    }

    pub(super) fn len(&self) -> usize {
        self.members.len()
    }

    /// Tells one of them.
    pub(super) fn say(&mut self, nth: usize, order: &Order) -> Result<(), String> {
        let mut line = serde_json::to_vec(order).map_err(|e| e.to_string())?;
        line.push(b'\n');
        let said = match self.members.get_mut(nth).and_then(|member| member.stdin.as_mut()) {
            Some(stdin) => stdin.write_all(&line),
            None => Err(io::ErrorKind::NotFound.into()),
        };
        said.map_err(|_| self.how_it_ended(nth))
    }

    pub(super) fn say_to_all(&mut self, order: &Order) -> Result<(), String> {
        (0..self.members.len()).try_for_each(|nth| self.say(nth, order))
    }

    /// One report of each that `take` recognises.
    pub(super) fn hear_from_all<T>(
        &mut self,
        patience: Duration,
        watch: Watch,
        mut take: impl FnMut(Report) -> Option<T>,
    ) -> Result<Vec<T>, String> {
        let until = now() + patience;
        let mut heard = Vec::new();
        while heard.len() < self.members.len() {
            if let Some(report) = self.hear(STEP, watch)? {
                heard.extend(take(report));
            }
            if now() > until {
                let (said, all) = (heard.len(), self.members.len());
                return Err(format!("only {said} of {all} phone processes answered within {} s", patience.as_secs()));
            }
        }
        Ok(heard)
    }

    /// Waits, and hears of trouble meanwhile.
    pub(super) fn wait(&mut self, time: Duration, watch: Watch) -> Result<(), String> {
        let until = now() + time;
        loop {
            let left = until.saturating_duration_since(now());
            if left.is_zero() {
                return Ok(());
            }
            self.hear(left.min(STEP), watch)?;
        }
    }

    fn hear(&mut self, patience: Duration, watch: Watch) -> Result<Option<Report>, String> {
        let heard = self.reports.recv_timeout(patience);
        if watch().is_break() {
            return Err(INTERRUPTED.to_owned());
        }
        match heard {
            Ok((_, Heard::Report(Report::Trouble(text)))) => Err(format!("the phones: {text}")),
            Ok((_, Heard::Report(report))) => Ok(Some(report)),
            Ok((nth, Heard::Silence)) => Err(self.how_it_ended(nth)),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => Err("no phone process is left".to_owned()),
        }
    }

    fn how_it_ended(&mut self, nth: usize) -> String {
        let Some(member) = self.members.get_mut(nth) else { return "no such phone process".to_owned() };
        let until = now() + STEP;
        while now() < until {
            if let Ok(Some(status)) = member.child.try_wait() {
                return format!("phone process {} ended with {}", member.child.id(), describe(status));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        format!("phone process {} says nothing more", member.child.id())
    }

    /// Of each process.
    pub(super) fn times(&self) -> Vec<Time> {
        self.members.iter().map(|member| Time::of(member.child.id()).unwrap_or_default()).collect()
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        // The end of stdin is the end of the phones.
        self.members.iter_mut().for_each(|member| drop(member.stdin.take()));
        let until = now() + END;
        for member in &mut self.members {
            while matches!(member.child.try_wait(), Ok(None)) && now() < until {
                std::thread::sleep(Duration::from_millis(2));
            }
            let _ = member.child.kill();
            let _ = member.child.wait();
        }
    }
}

fn listen(nth: usize, stdout: ChildStdout, tell: &Sender<(usize, Heard)>) {
    let mut reader = BufReader::new(stdout);
    loop {
        let mut line = Vec::new();
        let read = reader.by_ref().take(LONGEST).read_until(b'\n', &mut line);
        let report = read.ok().filter(|length| *length > 0).and_then(|_| serde_json::from_slice(&line).ok());
        let ends = report.is_none();
        if tell.send((nth, report.map_or(Heard::Silence, Heard::Report))).is_err() || ends {
            return;
        }
    }
}

#[allow(clippy::disallowed_methods, reason = "a measurement is outside the message path")]
fn now() -> Instant {
    Instant::now()
}
