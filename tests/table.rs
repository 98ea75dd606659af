//! The transaction table in several processes: one that is killed, wherever it is, costs the context that it was changing and no
//! other, and nothing leaks.
//!
//! Its own main function: `fork` wants a process without further threads.

use std::process::exit;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use fastrand::Rng;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;
use strowger::message::{BranchId, Method};
use strowger::proxy::{Branches, Context};
use strowger::shared::table::{Act, AtHand, Prepared, Table};
use strowger::timer::{Lengths, Tick};
use strowger::transport::{Address, Flow, Transport};
use sys::memory::Plan;
use sys::process::{Fork, fork};

fn main() {
    let tests: [(&str, fn()); 2] = [
        ("owners_killed_at_any_instant_cost_one_context_and_nothing_leaks", killed_at_any_instant),
        ("the_first_create_that_fails_comes_above_90_percent", fills_evenly),
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

/// Slots of one bucket: the table of the first test is one bucket.
const SLOTS: usize = 2_048;
/// Calls that come and go.
const CALLS: usize = 64;
const NOBODY: u32 = u32::MAX;

/// What processes tell each other of one call, beside the table.
#[derive(zerocopy::FromBytes)]
#[repr(C)]
struct Note {
    /// Its server slot; 0: there is none.
    head: AtomicU32,
    unused: AtomicU32,
    /// Its first branch, slot << 32 | generation; 0: ended.
    branch: AtomicU64,
}

/// The table, and the notes beside it, in memory that processes share.
struct World {
    table: Table,
    notes: &'static [Note],
    /// The call whose context is being changed.
    changing: &'static AtomicU32,
    now: &'static AtomicU64,
    lengths: Lengths,
}

fn killed_at_any_instant() {
    const ROUNDS: u64 = 300;
    let mut plan = Plan::new();
    let spans = Table::plan(&mut plan, SLOTS);
    let (notes, changing, now) = (plan.array::<Note>(CALLS), plan.array::<AtomicU32>(1), plan.array::<AtomicU64>(1));
    let mapping = plan.map().unwrap();
    let world = World {
        table: Table::take(&mapping, &spans).unwrap(),
        notes: mapping.array(&notes),
        changing: &mapping.array(&changing)[0],
        now: &mapping.array(&now)[0],
        lengths: Lengths::default(),
    };
    world.now.store(1_000, Ordering::Relaxed);
    world.changing.store(NOBODY, Ordering::Relaxed);

    let (mut recovered, mut ended, mut survivors) = (0, 0, 0);
    for round in 0..ROUNDS {
        let worker = child(|| world.work(&mut Rng::with_seed(round)));
        // A different instant each time; one step of the loop takes some microseconds.
        std::thread::sleep(Duration::from_micros(1_000 + round * 13 % 1_000));
        kill(Pid::from_raw(worker), Signal::SIGKILL).unwrap();
        let killed = WaitStatus::Signaled(Pid::from_raw(worker), Signal::SIGKILL, false);
        assert_eq!(waitpid(Pid::from_raw(worker), None).unwrap(), killed);

        // The next owner puts the bucket right.
        if let Some(contexts) = world.table.lock_any(0).unwrap().recovered() {
            recovered += 1;
            assert!(contexts <= 1, "round {round}: {contexts} contexts ended");
            ended += contexts;
        }
        let (slots, texts, held) = world.table.audit();
        assert_eq!((slots.lost, texts.lost, held), (0, 0, 0), "round {round}");
        survivors += world.survivors(round);
    }
    println!(
        "{ROUNDS} killed, {recovered} of them with the lock; {ended} contexts ended, {survivors} survived a death"
    );
    assert!(recovered > 0 && ended > 0 && survivors > 0, "the instants were badly chosen");

    // Nobody comes any more: what time leaves of them is nothing. Timer C is the longest, then 64*T1 for the CANCEL, then D.
    let mut prepared = Prepared::default();
    assert!(world.table.fill().used > 0);
    for _ in 0..400 {
        world.now.fetch_add(1_000, Ordering::Relaxed);
        while let Some(mut entry) = world.table.lock_due(0, world.tick()) {
            let Some(head) = entry.due(world.tick()) else { break };
            prepared.clear();
            entry.visit(head, world.tick(), &world.lengths, AtHand::Nothing, &mut prepared, |context| context.timers());
        }
    }
    let (slots, texts, _) = world.table.audit();
    assert_eq!((slots.live, slots.lost, texts.live, texts.lost), (0, 0, 0, 0), "something lives for ever");
    assert_eq!((world.table.fill().used, world.table.unanswered()), (0, 0));
}

impl World {
    fn tick(&self) -> Tick {
        Tick(self.now.load(Ordering::Relaxed))
    }

    /// Creates, forks, answers, cancels, times out and frees, until it is killed.
    fn work(&self, rng: &mut Rng) -> ! {
        let mut prepared = Prepared::default();
        loop {
            if rng.u8(..) < 40 {
                self.pass_time(rng, &mut prepared);
            } else {
                let call = rng.usize(..CALLS);
                self.step(rng, call, &mut prepared);
            }
        }
    }

    fn pass_time(&self, rng: &mut Rng, prepared: &mut Prepared) {
        self.now.fetch_add(rng.u64(..3_000), Ordering::Relaxed);
        while let Some(mut entry) = self.table.lock_due(0, self.tick()) {
            let Some(head) = entry.due(self.tick()) else { break };
            let call = self.notes.iter().position(|note| note.head.load(Ordering::Relaxed) == head).unwrap();
            self.changing.store(call as u32, Ordering::SeqCst);
            prepared.clear();
            entry.visit(head, self.tick(), &self.lengths, AtHand::Nothing, prepared, |context| context.timers());
            self.note(call, &entry);
        }
    }

    fn step(&self, rng: &mut Rng, call: usize, prepared: &mut Prepared) {
        let mut entry = self.table.lock(key(call)).unwrap();
        self.changing.store(call as u32, Ordering::SeqCst);
        prepared.clear();
        let invite = !call.is_multiple_of(3);
        match entry.find(key(call)) {
            None => {
                let request = vec![b'r'; rng.usize(200..1_500)];
                let head = entry.create(key(call), flow(call), &[&request]).unwrap();
                for branch in 0..rng.usize(1..=4) {
                    let others = [flow(call + 1), flow(call + 2)];
                    let uri = vec![b'u'; rng.usize(10..300)];
                    assert!(entry.add_branch(head, flow(call + branch), &uri, &others[..rng.usize(..=2)]));
                }
                let method = if invite { Method::Invite } else { Method::Message };
                entry.visit(head, self.tick(), &self.lengths, AtHand::Request, prepared, |c| c.start(method));
                let first = prepared.acts.iter().find_map(|act| match act {
                    Act::Request(branch) => Some(branch.id),
                    _ => None,
                });
                let first = first.unwrap();
                let name = u64::from(first.slot) << 32 | u64::from(first.generation);
                self.notes[call].branch.store(name, Ordering::Relaxed);
            }
            Some(head) => {
                let response = vec![b's'; rng.usize(100..900)];
                let pieces = [&response[..]];
                let at_hand = AtHand::Response(&pieces);
                entry.visit(head, self.tick(), &self.lengths, at_hand, prepared, |c| happen(rng, invite, c));
            }
        }
        self.note(call, &entry);
    }

    /// Notes what is left of a call, then that nobody changes it any more; under the lock.
    fn note(&self, call: usize, entry: &strowger::shared::table::Entry) {
        let note = &self.notes[call];
        note.head.store(entry.find(key(call)).unwrap_or(0), Ordering::Relaxed);
        if branch(note).is_none_or(|id| entry.find_branch(id).is_none()) {
            note.branch.store(0, Ordering::Relaxed);
        }
        self.changing.store(NOBODY, Ordering::SeqCst);
    }

    /// What was not being changed is as it was noted; returns how many contexts that are. What was being changed is noted as it is.
    fn survivors(&self, round: u64) -> usize {
        let changing = self.changing.load(Ordering::Relaxed) as usize;
        let entry = self.table.lock_any(0).unwrap();
        if changing < CALLS {
            self.note(changing, &entry);
        }
        let mut survivors = 0;
        for (call, note) in self.notes.iter().enumerate() {
            let head = note.head.load(Ordering::Relaxed);
            assert_eq!(entry.find(key(call)).unwrap_or(0), head, "round {round}, call {call}");
            if let Some(id) = branch(note) {
                assert_eq!(entry.find_branch(id).map(|(head, _)| head), Some(head), "round {round}, call {call}");
            }
            survivors += usize::from(head != 0 && call != changing);
        }
        survivors
    }
}

/// One thing that can happen to a call.
fn happen<B: Branches>(rng: &mut Rng, invite: bool, context: &mut Context<'_, B>) {
    let n = rng.usize(..context.branches.count().max(1));
    let method = if invite { Method::Invite } else { Method::Message };
    match rng.u8(..12) {
        0..3 => context.response(n, method, 180),
        3..5 => context.response(n, method, 200),
        5..7 => context.response(n, method, 486),
        7 => context.response(n, method, 503),
        8 => context.transport_error(n),
        9 => context.repeated(),
        10 => context.cancel(),
        _ => _ = context.ack(),
    }
}

fn branch(note: &Note) -> Option<BranchId> {
    let name = note.branch.load(Ordering::Relaxed);
    (name != 0).then_some(BranchId { slot: (name >> 32) as u32, generation: name as u32 })
}

fn key(call: usize) -> [u64; 2] {
    // Some calls share a chain.
    [call as u64 % 20, call as u64 + 1]
}

fn flow(call: usize) -> Flow {
    let transport = Transport::ALL[call % 3];
    let peer = std::net::SocketAddr::from(([192, 0, 2, call as u8 % 7], 5060));
    Flow { transport: transport as u8, peer: Address::from(peer), ..Flow::default() }
}

/// Design §5: few, large buckets, so that the first 503 comes when the table is nearly full.
fn fills_evenly() {
    const TRANSACTIONS: usize = 64 * SLOTS;
    let mut plan = Plan::new();
    let spans = Table::plan(&mut plan, TRANSACTIONS);
    let table = Table::take(&plan.map().unwrap(), &spans).unwrap();
    let mut rng = Rng::with_seed(1);
    let (lengths, mut prepared) = (Lengths::default(), Prepared::default());
    // A ringing call: an INVITE of a kilobyte and one branch.
    let request = [b'i'; 1_000];
    let mut created = 0;
    loop {
        let key = [rng.u64(..), rng.u64(..)];
        let mut entry = table.lock(key).unwrap();
        let Some(head) = entry.create(key, flow(0), &[&request]) else { break };
        assert!(
            entry.add_branch(head, flow(1), b"sip:bob@192.0.2.1", &[]),
            "client slots and texts outlast the server slots"
        );
        prepared.clear();
        entry.visit(head, Tick(1), &lengths, AtHand::Request, &mut prepared, |context| context.start(Method::Invite));
        created += 1;
    }
    let percent = created as f64 * 100.0 / TRANSACTIONS as f64;
    println!("full at {percent:.1} % of {TRANSACTIONS} transactions");
    assert!(percent > 90.0);
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
