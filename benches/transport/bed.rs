//! One forwarder with its load, measured in rounds.
//!
//! Owns: which ports they have, and what a round tells.

use std::io;
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use crate::ends::{Back, Sctp, Tcp, Udp};
use crate::forwarder;
use crate::kind::{APART, Forwarding, Kind};
use crate::load::{Load, Messages, Pace, Traffic};
use crate::processors;
use crate::user::User;

/// What one round told.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// Microseconds of the forwarder's CPU per message.
    pub cpu: f64,
    pub per_second: f64,
    /// Messages of one receiving call that brought some.
    pub batch: f64,
    /// Wake-ups per message.
    pub wakes: f64,
}

pub struct Bed {
    forwarding: Forwarding,
    load: Load,
}

/// Ports of one bed: bit 10 of all is clear, so that the far side's (^ `APART`) are others.
#[derive(Clone, Copy, Debug)]
pub struct Ports {
    pub near: u16,
    pub forwarder: u16,
    pub encapsulation: u16,
}

impl Ports {
    /// Of bed `number`; another run at the same time has, most likely, others.
    pub fn of(number: u16) -> Ports {
        let base = 20_480 + 2 * APART * (std::process::id() % 5) as u16;
        Ports { near: base + 32 * number, forwarder: base + 900 + number, encapsulation: base + 960 + number }
    }
}

impl Bed {
    pub fn ours(kind: Kind, flows: u16, ports: Ports) -> io::Result<Bed> {
        let forwarding = Forwarding::ours(kind, ports.forwarder, ports.encapsulation, ports.near ^ APART)?;
        Bed::with(forwarding, kind, flows, ports)
    }

    pub fn plain(floor: &Path, kind: Kind, flows: u16, ports: Ports) -> io::Result<Bed> {
        let config = forwarder::config(kind, ports.forwarder, 1, 1);
        let buffers = match kind {
            Kind::Udp | Kind::UserSctp => (config.udp.receive_buffer_bytes, config.udp.send_buffer_bytes),
            Kind::KernelSctp => (config.sctp.socket_rcvbuf_bytes, config.sctp.socket_sndbuf_bytes),
            Kind::Tcp => (0, 0),
        };
        Bed::with(Forwarding::plain(floor, kind, ports.forwarder, buffers)?, kind, flows, ports)
    }

    /// The plain UDP loop with the packets that SCTP in user space had.
    pub fn packets(floor: &Path, ports: Ports, bytes: usize, back: Back) -> io::Result<Bed> {
        let config = forwarder::config(Kind::Udp, ports.forwarder, 1, 1);
        let buffers = (config.udp.receive_buffer_bytes, config.udp.send_buffer_bytes);
        let forwarding = Forwarding::plain(floor, Kind::Udp, ports.forwarder, buffers)?;
        let load = Load::new(Messages::packets(bytes), |epoll| {
            Ok(Box::new(Udp::open(epoll, ports.near, ports.forwarder, Some(back))?))
        })?;
        Ok(Bed { forwarding, load })
    }

    fn with(forwarding: Forwarding, kind: Kind, flows: u16, ports: Ports) -> io::Result<Bed> {
        processors::apart(&[forwarding.pid()]);
        let messages = Messages::invites();
        let bytes = messages.len();
        let Ports { near, forwarder: to, encapsulation } = ports;
        let load = Load::new(messages, |epoll| {
            Ok(match kind {
                Kind::Udp => Box::new(Udp::open(epoll, near, to, None)?),
                Kind::Tcp => Box::new(Tcp::open(epoll, near, to, flows, bytes)?),
                Kind::KernelSctp => Box::new(Sctp::open(epoll, near, to, flows)?),
                Kind::UserSctp => Box::new(User::open(epoll, near, to, encapsulation)?),
            })
        })?;
        Ok(Bed { forwarding, load })
    }

    pub fn round(&mut self, pace: Pace, count: u64) -> io::Result<Sample> {
        let counts = self.forwarding.counts()?;
        sleep(Duration::from_millis(5));
        let cpu = self.forwarding.cpu()?;
        let wall = self.load.run(pace, count)?;
        // It goes back to sleep, and acknowledges what it has got.
        sleep(Duration::from_millis(20));
        let cpu = self.forwarding.cpu()?.saturating_sub(cpu);
        let now = self.forwarding.counts()?;
        let (messages, batches) = (now.messages - counts.messages, now.batches - counts.batches);
        if messages < count {
            return Err(io::Error::other(format!("{count} messages arrived and {messages} were forwarded")));
        }
        Ok(Sample {
            cpu: cpu.as_secs_f64() * 1e6 / count as f64,
            per_second: count as f64 / wall.as_secs_f64(),
            batch: messages as f64 / batches.max(1) as f64,
            wakes: (now.waits - counts.waits) as f64 / count as f64,
        })
    }

    pub fn traffic(&self) -> Traffic {
        self.load.ends.traffic()
    }
}
