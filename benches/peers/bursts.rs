//! SIPp as the load: its scheduler wakes each millisecond and sends what is due at once, so messages come in bursts as from a busy
//! gateway, where our own phones send them evenly.
//!
//! Owns: one round of such calls, from one socket to one socket. SIPp and its scenarios are those of the tests.

use std::time::{Duration, Instant};

use strowger::transport::Transport;

use crate::phones::{Calls, Meter, next_domain};
use crate::proxy::Proxy;
use crate::support::Room;
use crate::support::sipp::{Scenario, Sipp, names};

/// Called in turn.
const USERS: u32 = 100;
/// Open calls, more than there ever are.
const AT_ONCE: u32 = 5_000;
/// Ten seconds for the answer of the last call.
const PATIENCE: Duration = Duration::from_secs(10);

/// Registers, then calls for so long; the meter runs from the first call on.
pub fn call(transport: Transport, calls_per_s: f64, proxy: &Proxy, meter: &mut Meter, how_long: Duration) -> Calls {
    let (room, domain, users) = (Room::new("bursts"), next_domain(), names("u", USERS));
    let sipp = |scenario| {
        let sipp = Sipp::new(scenario, transport, proxy.address).domain(&domain).users(&users);
        sipp.at_once(AT_ONCE).talk_ms(0).ring_ms(0).limit(how_long + PATIENCE)
    };
    let callee = sipp(Scenario::Callee).start(&room);
    let registering = sipp(Scenario::Register).calls(u64::from(USERS)).rate(500);
    let contact = registering.key("contact", &callee.local.to_string()).key("contact_transport", transport.uri_token());
    contact.start(&room).finish().must_be_whole(u64::from(USERS));

    let calls = (calls_per_s * how_long.as_secs_f64()) as u64;
    meter.begin(proxy);
    let began = Instant::now();
    let mut caller = sipp(Scenario::Caller).rate(calls_per_s as u32).calls(calls).start(&room);
    let cpu_of = |pid| sys::process::cpu_time_of(pid).unwrap_or_default();
    let (callee_before, mut cpu, mut took) = (cpu_of(callee.pid()), [Duration::ZERO; 2], Duration::ZERO);
    while caller.is_running() {
        took = began.elapsed();
        cpu = [cpu_of(caller.pid()), cpu_of(callee.pid()).saturating_sub(callee_before)];
        std::thread::sleep(Duration::from_millis(20));
    }
    let report = caller.finish();
    let busiest = cpu.into_iter().max().unwrap_or_default();
    Calls {
        operations: 2 * report.good,
        took,
        failed: report.failed,
        retransmitted: report.retransmissions,
        busy: busiest.as_secs_f64() / took.as_secs_f64(),
        // SIPp does not say how late a call began.
        ..Calls::default()
    }
}
