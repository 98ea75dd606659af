//! The daemon under test: the real master, and children that only do what a child owes it.

use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use strowger::config::Config;
use strowger::master;
use strowger::shared::{Counter, Phase};
use strowger::worker::{House, Seat, clock};

/// What is wrong with the children: `dies` (at once), `stays` (does not hear of the end), or nothing.
pub const FLAW: &str = "PROCESSES_FLAW";

pub fn daemon(path: PathBuf) -> ExitCode {
    let config = Config::load(Some(&path)).expect("the test's configuration is right");
    strowger::log::start(config.live.log.level).unwrap();
    master::serve(config, Some(path), child)
}

fn child(seat: Seat, house: &House) -> u8 {
    let flaw = std::env::var(FLAW).unwrap_or_default();
    if flaw == "dies" {
        return 3;
    }
    let shared = house.shared;
    tracing::info!("on seat {} successor={}", seat.number, seat.successor);
    let mut poll = Poll::new().unwrap();
    let wake = house.wakes.descriptor(seat.number).unwrap().as_raw_fd();
    poll.registry().register(&mut SourceFd(&wake), Token(0), Interest::READABLE).unwrap();
    let mut events = Events::with_capacity(8);
    let mut version = 0;
    loop {
        shared.phases.beat(seat.number, clock::now());
        if shared.phases.current() == Phase::Closing && flaw != "stays" {
            return 0;
        }
        if shared.settings.version() != version
            && let Some((read, live)) = shared.settings.read()
        {
            version = read;
            // So that the test sees what arrived here.
            shared.counters.add(seat.number, Counter::Registered, live.domains.len() as u64);
        }
        let _ = poll.poll(&mut events, Some(Duration::from_millis(500)));
        house.wakes.clear(seat.number).unwrap();
    }
}
