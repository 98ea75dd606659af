//! The load: SIP-sized messages in at one side of a forwarder, out at the other, and each looked at.
//!
//! Owns: the pace (an open loop at a rate, or a closed one with so many messages in flight) and the proof that every message
//! arrived once and unchanged. How a transport sends and receives is in `ends` and `user`.

use std::io;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollTimeout};
use nix::sys::time::TimeSpec;
use std::os::fd::AsFd;

use crate::messages;

/// Messages of one sending call at most.
pub const BATCH: usize = 64;
/// The place of a message's number: digits of its Call-ID.
pub const PLACE: &str = "3848276298220188511";

/// The two sides of the load, on one transport.
pub trait Ends {
    /// Sends the messages `first`, `first + 1`, ...; `count` is at most `BATCH`.
    fn send(&mut self, messages: &mut Messages, first: u64, count: usize) -> io::Result<()>;
    /// Reads what came to the source that was registered as `token`; each message of the far side goes to `each`.
    fn receive(&mut self, token: u64, epoll: &Epoll, each: &mut dyn FnMut(&[u8])) -> io::Result<()>;
    /// Does what is due, and says how long until something is. Only a transport in user space has something.
    fn due(&mut self, _each: &mut dyn FnMut(&[u8])) -> io::Result<Duration> {
        Ok(Duration::MAX)
    }
    /// Packets so far, where the transport is in user space.
    fn traffic(&self) -> Traffic {
        Traffic::default()
    }
}

/// What went over the wire on the load's side, packets and their bytes: with data, and back.
#[derive(Clone, Copy, Debug, Default)]
pub struct Traffic {
    pub data: (u64, u64),
    pub back: (u64, u64),
}

/// INVITEs that differ in their number only.
pub struct Messages {
    at: usize,
    template: Vec<u8>,
    batch: Vec<Vec<u8>>,
}

impl Messages {
    /// Of the INVITE that the other benchmarks use.
    pub fn invites() -> Messages {
        Messages::new(messages::invite().into_bytes())
    }

    /// Datagrams of a packet's size.
    pub fn packets(bytes: usize) -> Messages {
        let mut template = messages::invite().into_bytes();
        template.resize(bytes.max(400), b'x');
        Messages::new(template)
    }

    /// The template has `PLACE` in it.
    pub fn new(template: Vec<u8>) -> Messages {
        let at = memchr::memmem::find(&template, PLACE.as_bytes()).expect("a Call-ID");
        Messages { at, batch: vec![template.clone(); BATCH], template }
    }

    pub fn len(&self) -> usize {
        self.template.len()
    }

    /// The messages with these numbers.
    pub fn numbered(&mut self, numbers: impl Iterator<Item = u64>) -> &[Vec<u8>] {
        let mut count = 0;
        for (message, number) in self.batch.iter_mut().zip(numbers) {
            message[self.at..][..PLACE.len()].copy_from_slice(format!("{number:019}").as_bytes());
            count += 1;
        }
        &self.batch[..count]
    }

    /// A message's number; none: these bytes are not what was sent.
    fn number(&self, bytes: &[u8]) -> Option<u64> {
        let end = self.at + PLACE.len();
        let same = bytes.len() == self.len() && bytes[..self.at] == self.template[..self.at];
        let digits = bytes.get(self.at..end).filter(|_| same && bytes[end..] == self.template[end..])?;
        std::str::from_utf8(digits).ok()?.parse().ok()
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pace {
    /// So many messages a second, whatever comes back.
    Open(f64),
    /// So many messages in flight.
    Closed(u64),
}

pub struct Load {
    pub ends: Box<dyn Ends>,
    epoll: Epoll,
    messages: Messages,
    /// The first number of the next run.
    next: u64,
}

/// Messages in flight of an open loop, too: it may have to catch up where others use the processors, and sockets have bounds.
const MOST: u64 = 1_000;
/// Patience with a message that does not arrive.
const LOST_AFTER: Duration = Duration::from_secs(20);

impl Load {
    pub fn new(messages: Messages, open: impl FnOnce(&Epoll) -> io::Result<Box<dyn Ends>>) -> io::Result<Load> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let ends = open(&epoll)?;
        Ok(Load { ends, epoll, messages, next: 0 })
    }

    /// Sends `count` messages and waits until all have arrived. Returns how long that took.
    pub fn run(&mut self, pace: Pace, count: u64) -> io::Result<Duration> {
        let began = Instant::now();
        let mut seen = vec![false; count as usize];
        let (mut sent, mut arrived, mut wrong) = (0, 0, 0);
        let (mut progress, mut was) = (began, 0);
        let Load { ends, epoll, messages, next } = self;
        let mut arrivals: Vec<Option<u64>> = Vec::new();
        while arrived < count {
            let due = match pace {
                Pace::Open(rate) => ((began.elapsed().as_secs_f64() * rate) as u64 + 1).min(arrived + MOST),
                Pace::Closed(window) => arrived + window,
            };
            while sent < due.min(count) {
                let batch = (due.min(count) - sent).min(BATCH as u64);
                ends.send(messages, *next + sent, batch as usize)?;
                sent += batch;
            }
            let mut wait = ends.due(&mut |bytes| arrivals.push(messages.number(bytes)))?.min(Duration::from_secs(1));
            if let Pace::Open(rate) = pace
                && sent < count
            {
                wait = wait.min(Duration::from_secs_f64(sent as f64 / rate).saturating_sub(began.elapsed()));
            }
            if !arrivals.is_empty() {
                wait = Duration::ZERO;
            }
            let mut watched = [PollFd::new(epoll.0.as_fd(), PollFlags::POLLIN)];
            ppoll(&mut watched, Some(TimeSpec::from_duration(wait)), None)?;
            let mut ready = [EpollEvent::empty(); 64];
            let n = epoll.wait(&mut ready, EpollTimeout::ZERO)?;
            for event in &ready[..n] {
                ends.receive(event.data(), epoll, &mut |bytes| arrivals.push(messages.number(bytes)))?;
            }
            for number in arrivals.drain(..) {
                match number.and_then(|number| seen.get_mut(number.checked_sub(*next)? as usize)) {
                    Some(place) if !*place => {
                        *place = true;
                        arrived += 1;
                    }
                    _ => wrong += 1,
                }
            }
            if wrong != 0 {
                return Err(io::Error::other(format!("{wrong} messages arrived changed, or twice")));
            }
            if arrived != was {
                (progress, was) = (Instant::now(), arrived);
            } else if progress.elapsed() > LOST_AFTER {
                return Err(io::Error::other(format!("{} of {sent} messages did not arrive", sent - arrived)));
            }
        }
        *next += count;
        Ok(began.elapsed())
    }
}
