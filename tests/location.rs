//! The registrar in several processes: RFC 3261 §10.3 says that REGISTERs are processed atomically and in order (F15), and no process
//! may leave something half done when it is killed.
//!
//! Its own main function: `fork` wants a process without further threads.

use std::process::exit;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use nix::sys::signal::{Signal, kill, raise};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;
use strowger::config::{Limits, Registrar};
use strowger::location::{Found, Location};
use strowger::message::{Uri, scan};
use strowger::shared::bindings::{Bindings, New};
use strowger::timer::Tick;
use sys::memory::Plan;
use sys::process::{Fork, fork};

const NOW: Tick = Tick(1_000_000);

fn main() {
    let tests: [(&str, fn()); 3] = [
        ("two_processes_register_one_address_of_record_and_nothing_is_torn", two_processes),
        ("an_owner_that_dies_in_a_change_leaves_that_record_dropped_and_the_others_whole", dies_in_a_change),
        ("owners_killed_at_any_instant_leave_each_record_old_or_dropped_and_lose_nothing", killed_at_any_instant),
    ];
    let wanted: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    let list = std::env::args().any(|a| a == "--list");
    for (name, test) in tests.iter().filter(|(name, _)| wanted.is_empty() || wanted.iter().any(|w| name.contains(w))) {
        if list {
            println!("{name}: test");
            continue;
        }
        test();
        println!("test {name} ... ok");
    }
}

fn two_processes() {
    const REQUESTS: u32 = 100_000;
    let mut plan = Plan::new();
    let (spans, next) = (Bindings::plan(&mut plan, 1), plan.array::<AtomicU32>(1));
    let mapping = plan.map().unwrap();
    let location = Location::new(Bindings::take(&mapping, &spans).unwrap());
    let next = &mapping.array(&next)[0];

    let work = || {
        loop {
            let cseq = next.fetch_add(1, Ordering::Relaxed) + 1;
            if cseq > REQUESTS {
                break;
            }
            let (code, lists) = register(&location, "a", cseq);
            // Whoever comes second with the lower number is refused.
            assert!(code == 200 || code == 500, "{code}");
            if code == 200 {
                assert_eq!(lists, [cseq, cseq]);
            }
        }
    };
    let z = child(work);
    work();
    joined(z);
    assert_eq!(state(&location, "a"), [REQUESTS, REQUESTS]);
    assert_eq!((location.count(), location.audit().lost), (2, 0));
}

fn dies_in_a_change() {
    let mut plan = Plan::new();
    let spans = Bindings::plan(&mut plan, 1);
    let bindings = Bindings::take(&plan.map().unwrap(), &spans).unwrap();
    let location = Location::new(bindings);
    for user in ["a", "y", "z"] {
        assert_eq!(register(&location, user, 1).0, 200);
    }
    let free = location.audit().free;
    let key = bindings.key(b"a@example.test");
    let dying = child(|| {
        let mut bucket = bindings.enter(key);
        let record = bucket.open(key).unwrap();
        let uri = b"sip:half@192.0.2.1";
        let new = New { uri, params: b"", call_id: b"", cseq: 2, q: 1000, expires: NOW + 1 };
        assert!(bucket.put(record, None, &new));
        raise(Signal::SIGKILL).unwrap();
    });
    assert_eq!(wait(dying), WaitStatus::Signaled(Pid::from_raw(dying), Signal::SIGKILL, false));

    let uri = Uri::parse(b"sip:a@example.test").unwrap();
    assert_eq!(location.targets(&uri, NOW, &mut |_, _| {}), Found::Unknown);
    assert_eq!((state(&location, "y"), state(&location, "z")), (vec![1, 1], vec![1, 1]));
    let audit = location.audit();
    // The record, its two bindings and their blocks are free again.
    assert_eq!((audit.lost, audit.free), (0, free + 1 + 2 + 2 * blocks("a", 1)));
    assert_eq!((bindings.recovered(), location.count()), (1, 4));
    assert_eq!(register(&location, "a", 1).0, 200, "a phone that registers again is well");
}

fn killed_at_any_instant() {
    const ROUNDS: u32 = 300;
    const USERS: u32 = 40;
    let mut plan = Plan::new();
    let (spans, done) = (Bindings::plan(&mut plan, 1), plan.array::<AtomicU32>(USERS as usize));
    let mapping = plan.map().unwrap();
    let bindings = Bindings::take(&mapping, &spans).unwrap();
    let (location, done) = (Location::new(bindings), mapping.array(&done));

    let mut dropped = 0;
    for round in 0..ROUNDS {
        let worker = child(|| {
            for cseq in round * 100_000 + 1.. {
                let nth = cseq * 7 % USERS;
                let user = format!("user{nth}");
                if cseq % 5 == 0 {
                    remove(&location, &user, cseq);
                    done[nth as usize].store(0, Ordering::Relaxed);
                } else {
                    assert_eq!(register(&location, &user, cseq).0, 200);
                    done[nth as usize].store(cseq, Ordering::Relaxed);
                }
            }
        });
        // A different instant each time; the loop above takes some microseconds.
        std::thread::sleep(Duration::from_micros(1_000 + u64::from(round) * 13 % 1_000));
        kill(Pid::from_raw(worker), Signal::SIGKILL).unwrap();
        assert_eq!(wait(worker), WaitStatus::Signaled(Pid::from_raw(worker), Signal::SIGKILL, false));

        assert_eq!(location.audit().lost, 0, "round {round}");
        let mut odd = 0;
        for nth in 0..USERS {
            let (state, done) = (state(&location, &format!("user{nth}")), done[nth as usize].load(Ordering::Relaxed));
            match state[..] {
                [] => odd += u32::from(done != 0),
                [one, other] => {
                    assert_eq!(one, other, "round {round}: half a change");
                    odd += u32::from(one != done);
                }
                _ => panic!("round {round}: {state:?}"),
            }
        }
        // The one being changed was dropped, or it was done but not yet noted.
        assert!(odd <= 1, "round {round}: {odd}");
        dropped += odd;
        // What is noted starts from what is there.
        for nth in 0..USERS {
            let state = state(&location, &format!("user{nth}"));
            done[nth as usize].store(state.first().copied().unwrap_or(0), Ordering::Relaxed);
        }
    }
    println!("{ROUNDS} killed, {} of them with the lock, {dropped} records dropped", bindings.recovered());
    assert!(bindings.recovered() > 0, "the instants were badly chosen");
}

/// Registers two contacts whose parameters say the CSeq, and whose length depends on it. Returns the code and what the 200 lists.
fn register(location: &Location, user: &str, cseq: u32) -> (u16, Vec<u32>) {
    let (one, other) = (contact(user, cseq, 1), contact(user, cseq, 2));
    send(location, user, cseq, &format!("Contact: {one}, {other}\r\nExpires: 3600\r\n"))
}

fn contact(user: &str, cseq: u32, nth: u32) -> String {
    format!("<sip:{user}{nth}@192.0.2.1>;x={cseq:0width$}", width = 10 + (cseq % 150) as usize)
}

/// Blocks of text of one binding that `register` makes.
fn blocks(user: &str, cseq: u32) -> usize {
    (contact(user, cseq, 1).len() - 2 + "one".len()).div_ceil(64)
}

fn remove(location: &Location, user: &str, cseq: u32) {
    assert_eq!(send(location, user, cseq, "Contact: *\r\nExpires: 0\r\n"), (200, vec![]));
}

fn state(location: &Location, user: &str) -> Vec<u32> {
    send(location, user, 1, "").1
}

fn send(location: &Location, user: &str, cseq: u32, lines: &str) -> (u16, Vec<u32>) {
    let request = format!(
        "REGISTER sip:example.test SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK1\r\nFrom: <sip:{user}@example.test>;tag=1\r\n\
         To: <sip:{user}@example.test>\r\nCall-ID: one\r\nCSeq: {cseq} REGISTER\r\n{lines}\r\n"
    );
    let registrar = Registrar { default_expires_s: 3600, min_expires_s: 60, max_expires_s: 7200 };
    let limits = Limits {
        message_bytes: 65_535,
        contacts: 10,
        associations: 1,
        associations_per_peer: 1,
        association_queue_bytes: 1,
        connections: 1,
        connections_per_peer: 1,
        connection_queue_bytes: 1,
    };
    let mut extra = Vec::new();
    let m = scan(request.as_bytes()).unwrap();
    let (code, _) = location.register(&m, NOW, 0, &registrar, &limits, &mut extra);
    let extra = String::from_utf8(extra).unwrap();
    let lists = extra.lines().filter(|line| line.starts_with("Contact: "));
    let number = |line: &str| line.split(";x=").nth(1)?.split(';').next()?.parse().ok();
    (code, lists.map(|line| number(line).unwrap()).collect())
}

fn child(work: impl FnOnce()) -> i32 {
    match fork().unwrap() {
        Fork::Parent { child } => child,
        Fork::Child => {
            work();
            exit(0);
        }
    }
}

fn wait(child: i32) -> WaitStatus {
    waitpid(Pid::from_raw(child), None).unwrap()
}

fn joined(child: i32) {
    assert_eq!(wait(child), WaitStatus::Exited(Pid::from_raw(child), 0));
}
