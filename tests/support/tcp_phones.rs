//! Phones by hand over TCP that outlive their connections: a caller with a connection of its own for each call, of which is
//! known what became of it and when; a callee that takes every connection.
//!
//! SIPp 3.6.1 cannot do this job: as a connection ends, a caller (`-t tn`) aborts in its own `pollset_process` ("Assertion
//! `sock' failed"), and a callee ends with "Unable to get a SCTP socket".

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::DOMAIN;
use super::raw::answer;

/// How a call ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// BYE was answered 200.
    Good,
    /// The connection was ended by the other side, or could not be made.
    Closed,
    /// Nothing came for too long.
    Silent,
    /// A final response that was not 200, or what was no response at all.
    Refused(String),
}

/// One call that is over.
#[derive(Clone, Debug)]
pub struct Call {
    /// The caller's port: 0 when there never was a connection.
    pub port: u16,
    pub began: Instant,
    pub over: Instant,
    pub end: End,
}

impl Call {
    /// Was it under way at some moment between these two?
    pub fn overlaps(&self, from: Instant, to: Instant) -> bool {
        self.began <= to && self.over >= from
    }
}

/// What a row of calls is like.
#[derive(Clone, Copy)]
pub struct Row {
    pub toward: SocketAddr,
    pub calls: u64,
    /// Calls that begin each second, evenly.
    pub rate: u32,
    pub talk: Duration,
    /// So long a caller waits for any message.
    pub patience: Duration,
}

/// Places the calls, to `users` in turn; the answer has one entry for each, in the order of their beginning.
pub fn place(row: Row, users: &[String]) -> JoinHandle<Vec<Call>> {
    let users = users.to_vec();
    std::thread::spawn(move || {
        let start = Instant::now();
        let callers: Vec<_> = (0..row.calls)
            .map(|number| {
                let due = start + Duration::from_secs(1) * u32::try_from(number).expect("few calls") / row.rate;
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
                let user = users[usize::try_from(number).expect("few calls") % users.len()].clone();
                std::thread::spawn(move || one_call(row, &user, number))
            })
            .collect();
        callers.into_iter().map(|caller| caller.join().expect("a caller")).collect()
    })
}

fn one_call(row: Row, user: &str, number: u64) -> Call {
    let began = Instant::now();
    let mut port = 0;
    let end = match Line::open(row).and_then(|mut line| {
        port = line.local.port();
        line.call(row, user, number)
    }) {
        Ok(end) => end,
        Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => End::Silent,
        Err(_) => End::Closed,
    };
    Call { port, began, over: Instant::now(), end }
}

/// Takes every call at once, on as many connections as come, until it is dropped.
pub struct Callee {
    pub local: SocketAddr,
    end: Arc<AtomicBool>,
    door: Option<JoinHandle<()>>,
}

impl Callee {
    pub fn open(local: SocketAddr) -> Callee {
        let listener = TcpListener::bind(local).expect("a listener");
        listener.set_nonblocking(true).expect("a listener that does not wait");
        let end = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&end);
        let door = std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                match listener.accept() {
                    // Its thread ends with the connection, at the latest with the daemon.
                    Ok((stream, _)) => drop(std::thread::spawn(move || Line::of(stream, None).map(Line::take_calls))),
                    Err(_) => std::thread::sleep(Duration::from_millis(2)),
                }
            }
        });
        Callee { local, end, door: Some(door) }
    }
}

impl Drop for Callee {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
        if let Some(door) = self.door.take() {
            let _ = door.join();
        }
    }
}

struct Line {
    stream: TcpStream,
    local: SocketAddr,
    read: Vec<u8>,
}

impl Line {
    fn open(row: Row) -> io::Result<Line> {
        Line::of(TcpStream::connect_timeout(&row.toward, row.patience)?, Some(row.patience))
    }

    fn of(stream: TcpStream, patience: Option<Duration>) -> io::Result<Line> {
        stream.set_nonblocking(false)?;
        stream.set_read_timeout(patience)?;
        stream.set_nodelay(true)?;
        Ok(Line { local: stream.local_addr()?, stream, read: Vec::new() })
    }

    fn take_calls(mut self) {
        let contact = format!("Contact: <sip:{};transport=tcp>\r\n", self.local);
        while let Ok(request) = self.message() {
            let answers: &[&str] = match request.split(' ').next() {
                Some("INVITE") => &["180 Ringing", "200 OK"],
                Some("ACK") => &[],
                _ => &["200 OK"],
            };
            for status in answers {
                if self.stream.write_all(answer(&request, status, &contact).as_bytes()).is_err() {
                    return;
                }
            }
        }
    }

    fn call(&mut self, row: Row, user: &str, number: u64) -> io::Result<End> {
        let to = format!("<sip:{user}@{DOMAIN}>");
        self.send("INVITE", &format!("sip:{user}@{DOMAIN}"), number, 1, &to, "")?;
        let answer = self.final_response()?;
        if !answer.starts_with("SIP/2.0 200 ") {
            return Ok(End::Refused(first_line(&answer)));
        }
        let to = value(&answer, "To:").unwrap_or_default().to_owned();
        let contact = value(&answer, "Contact:").unwrap_or_default().trim_matches(['<', '>']).to_owned();
        let mut routes = values(&answer, "Record-Route:");
        routes.reverse();
        let routes: String = routes.iter().map(|route| format!("Route: {route}\r\n")).collect();
        self.send("ACK", &contact, number, 1, &to, &routes)?;
        std::thread::sleep(row.talk);
        self.send("BYE", &contact, number, 2, &to, &routes)?;
        let answer = self.final_response()?;
        Ok(if answer.starts_with("SIP/2.0 200 ") { End::Good } else { End::Refused(first_line(&answer)) })
    }

    fn send(&mut self, method: &str, uri: &str, number: u64, cseq: u32, to: &str, routes: &str) -> io::Result<()> {
        let (local, run) = (self.local, std::process::id());
        let text = format!(
            "{method} {uri} SIP/2.0\r\nVia: SIP/2.0/TCP {local};branch=z9hG4bK-{run}-{number}-{method}\r\n\
             Max-Forwards: 70\r\n{routes}From: <sip:caller@{DOMAIN}>;tag=c{number}\r\nTo: {to}\r\n\
             Call-ID: {run}-{number}@caller\r\nCSeq: {cseq} {method}\r\n\
             Contact: <sip:caller@{local};transport=tcp>\r\nContent-Length: 0\r\n\r\n"
        );
        self.stream.write_all(text.as_bytes())
    }

    fn final_response(&mut self) -> io::Result<String> {
        loop {
            let message = self.message()?;
            if !message.starts_with("SIP/2.0 1") {
                return Ok(message);
            }
        }
    }

    /// The next whole message on the stream.
    fn message(&mut self) -> io::Result<String> {
        loop {
            let text = String::from_utf8_lossy(&self.read).into_owned();
            if let Some(head) = text.find("\r\n\r\n") {
                let length: usize = value(&text[..head], "Content-Length:").and_then(|n| n.parse().ok()).unwrap_or(0);
                let whole = head + 4 + length;
                if self.read.len() >= whole {
                    self.read.drain(..whole);
                    return Ok(text[..whole].to_owned());
                }
            }
            let mut buffer = [0; 4096];
            let n = self.stream.read(&mut buffer)?;
            if n == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.read.extend_from_slice(&buffer[..n]);
        }
    }
}

fn first_line(message: &str) -> String {
    message.lines().next().unwrap_or_default().to_owned()
}

fn value<'m>(message: &'m str, name: &str) -> Option<&'m str> {
    message.lines().take_while(|line| !line.is_empty()).find_map(|line| line.strip_prefix(name)).map(str::trim)
}

/// Every value of a header, also those that share a line.
fn values(message: &str, name: &str) -> Vec<String> {
    message
        .lines()
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.strip_prefix(name))
        .flat_map(|line| line.split(',').map(|value| value.trim().to_owned()))
        .collect()
}
