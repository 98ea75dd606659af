//! The parts of SCTP in user space that can be measured without a socket: the protocol, and its packet log.
//!
//! Owns: two endpoints that are driven against each other in this process. What one sends and the other receives is what a
//! forwarder does for a message: each message is received once and sent once, each acknowledgement too.

use std::fmt::Write;
use std::hint::black_box;
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use strowger::timer::Tick;
use strowger::transport::sctp::user::endpoint::Endpoint;

use crate::ends::at;
use crate::load::Messages;
use crate::user::endpoint;

/// This process's CPU so far.
fn cpu() -> Duration {
    clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID).map(Duration::from).unwrap_or_default()
}

/// Microseconds per message of the protocol, for messages that come in such batches at such a rate.
pub fn protocol(messages: &mut Messages, count: u64, batch: usize, rate: f64) -> f64 {
    let (mut a, mut z) = (endpoint(1), endpoint(2));
    let tag = a.connect(at(2).into(), at(2), Tick(1000)).expect("an association");
    let mut arrived = carry(&mut a, &mut z, Tick(1000));
    let mut began = cpu();
    for round in 0.. {
        // The first half warms up.
        if arrived >= count && round > 0 {
            break;
        }
        let now = Tick(1000 + (arrived as f64 * 1000.0 / rate) as u64);
        let batch = messages.numbered(arrived..arrived + batch as u64).to_vec();
        assert!(a.send(tag, batch, now).is_ok_and(|failed| failed.is_empty()), "an association that takes messages");
        for side in [&mut a, &mut z] {
            if side.next_tick() <= now {
                side.tick(now);
            }
        }
        let before = arrived;
        arrived += carry(&mut a, &mut z, now);
        assert!(arrived > before, "a message that arrives");
        if before < count / 2 && arrived >= count / 2 {
            began = cpu();
        }
    }
    (cpu() - began).as_secs_f64() * 1e6 / (arrived - count / 2) as f64
}

/// Carries packets until none is under way. Returns how many messages arrived.
fn carry(a: &mut Endpoint, z: &mut Endpoint, now: Tick) -> u64 {
    let mut arrived = 0;
    while !a.packets.is_empty() || !z.packets.is_empty() {
        for (_, bytes) in std::mem::take(&mut a.packets) {
            z.receive(at(1), &bytes, now);
        }
        for (_, bytes) in std::mem::take(&mut z.packets) {
            a.receive(at(2), &bytes, now);
        }
        let messages = z.events.drain(..).filter(|event| matches!(event, super::Event::Message { .. }));
        arrived += messages.count() as u64;
        a.events.clear();
    }
    arrived
}

/// Microseconds that the crate spends on the log line of a packet of this size, whether or not somebody reads it. Its function is not
/// public: this is a copy (dcsctp 0.1.16, `logging::log_packet`) without the last step, which the log crate skips when nobody listens.
pub fn log_line(bytes: usize) -> f64 {
    const LINES: u32 = 2_000;
    let packet = vec![0x5a_u8; bytes];
    let began = cpu();
    for _ in 0..LINES {
        let line = black_box(&packet).iter().fold(String::new(), |mut output, c| {
            let _ = write!(output, " {c:02x}");
            output
        });
        black_box(line);
    }
    (cpu() - began).as_secs_f64() * 1e6 / f64::from(LINES)
}
