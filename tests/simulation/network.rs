//! The world: a clock that jumps, a network that loses, delays and doubles, the proxy's corridor, and the agents.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::fmt;

use fastrand::Rng;
use strowger::config::Config;
use strowger::location::Location;
use strowger::message::branch::{self, BranchId};
use strowger::shared::bindings::Bindings;
use strowger::shared::{Counters, Table};
use strowger::timer::{Lengths, Tick};
use strowger::transport::outgoing::Sending;
use strowger::transport::{Address, Flow, Transport};
use strowger::worker::{Arrived, Corridor};
use sys::memory::Plan as Memory;

use crate::agent::{Callee, Caller, Plan, header, headers, reply};

const CALLS: usize = 3;
/// Far beyond every timer of every call.
const END: Tick = Tick(300_000);

pub enum Fault {
    /// The caller did not hear what the callee said.
    CallLost { call: usize, wanted: u16, heard: Option<u16> },
    /// A call was answered, but its BYE was not.
    ByeLost { call: usize },
    /// A message that an RFC 3261 element must not send.
    Wrong { why: &'static str, text: String },
    /// Slots or texts were not given back.
    Left { slots: usize, blocks: usize },
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::CallLost { call, wanted, heard: Some(heard) } => {
                write!(f, "call {call} wanted {wanted}, heard {heard}")
            }
            Fault::CallLost { call, wanted, heard: None } => write!(f, "call {call} wanted {wanted}, heard nothing"),
            Fault::ByeLost { call } => write!(f, "call {call} was answered, its BYE was not"),
            Fault::Wrong { why, text } => write!(f, "{why}:\n{text}"),
            Fault::Left { slots, blocks } => write!(f, "{slots} slots and {blocks} blocks of text were not given back"),
        }
    }
}

/// Where a message goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum To {
    Proxy(Side),
    Agent(Side),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Side {
    A,
    Z,
}

/// When it arrives, its number, where, and what.
type Flying = (Tick, u64, To, Vec<u8>);

pub struct World {
    rng: Rng,
    now: Tick,
    flying: BinaryHeap<Reverse<Flying>>,
    sent: u64,
    loss: f64,
    transports: [Transport; 2],
    corridor: Corridor,
    table: Table,
    callers: Vec<Caller>,
    callees: Vec<Option<Callee>>,
    starts: Vec<Tick>,
    uri: String,
    /// What SCTP gives up, and how often of each request already; none: it gives up nothing.
    giving_up: Option<HashMap<BranchId, u8>>,
    /// The news of it under way to the proxy.
    news: Vec<(Tick, BranchId)>,
    /// Answers to BYE are repeated by whoever gets the BYE again: nothing to remember.
    fault: Option<Fault>,
}

const ADDRESSES: [&str; 2] = ["10.0.0.1:5060", "10.0.0.2:5060"];

fn config() -> Config {
    let text = r#"
        workers = 1
        domains = ["example.test"]
        [[listen]]
        transport = "udp"
        address = "10.0.0.9:5060"
        [[listen]]
        transport = "sctp"
        address = "10.0.0.9:5060"
        [[allow]]
        relay = ["10.0.0.0/8"]
        register = ["10.0.0.0/8"]
        [memory]
        transactions = 2048
        bindings = 1024
    "#;
    Config::from_text(text).expect("the simulation's configuration")
}

impl World {
    pub fn new(seed: u64, lengths: Lengths) -> World {
        let mut rng = Rng::with_seed(seed);
        let config = config();
        let mut memory = Memory::new();
        let table = Table::plan(&mut memory, config.memory.transactions);
        let bindings = Bindings::plan(&mut memory, config.memory.bindings);
        let counters = Counters::plan(&mut memory, 1);
        let mapping = memory.map().expect("memory");
        let table = Table::take(&mapping, &table).expect("table");
        let key = branch::Key([seed, !seed]);
        let location = Location::new(Bindings::take(&mapping, &bindings).expect("bindings"));
        let counters = Counters::take(&mapping, &counters).expect("counters");
        let mut corridor = Corridor::new(table, location, counters, 0, key, &config.listen, &config.live, &[]);
        corridor.set_lengths(lengths);
        let mut pick = || if rng.bool() { Transport::Udp } else { Transport::Sctp };
        let transports = [pick(), pick()];
        let callers = (0..CALLS).map(|number| {
            let plan = match rng.u8(..3) {
                0 => Plan::Answer,
                1 => Plan::Reject(486),
                _ => Plan::Ring,
            };
            Caller::new(number, plan, ADDRESSES[0], transports[0].via_token())
        });
        let callers = callers.collect();
        let starts = (0..CALLS).map(|_| Tick(1_000 + rng.u64(..2_000))).collect();
        let uri = format!("sip:z@{};transport={}", ADDRESSES[1], transports[1].uri_token());
        World {
            loss: f64::from(rng.u8(..10)) / 100.0,
            rng,
            now: Tick(1_000),
            flying: BinaryHeap::new(),
            sent: 0,
            transports,
            corridor,
            table,
            callers,
            callees: (0..CALLS).map(|_| None).collect(),
            starts,
            uri,
            giving_up: None,
            news: Vec::new(),
            fault: None,
        }
    }

    /// Over SCTP toward the callee, every fourth request is given up, twice at most; the proxy may retry so often.
    pub fn giving_up(mut self, send_retries: u8) -> World {
        self.giving_up = Some(HashMap::new());
        self.corridor.send_retries = send_retries;
        self
    }

    pub fn caller_transport(&self) -> Transport {
        self.transports[0]
    }

    pub fn run(mut self) -> Result<(), Fault> {
        while self.now < END && self.fault.is_none() {
            self.agents();
            self.arrivals();
            self.tell_what_was_given_up();
            // As the timer process does while much is due.
            if self.now.0.is_multiple_of(20) {
                while self.corridor.deadlines(self.now, 64) == 64 {}
                self.proxy_sends();
            }
            self.now = self.next_time();
        }
        self.judge()
    }

    /// The next 10 ms step at which anything can happen; far from all calls, the steps are long.
    fn next_time(&self) -> Tick {
        let quiet = self.flying.is_empty() && self.now.0 > 80_000;
        let step = if quiet { 1_000 } else { 10 };
        Tick(self.now.0 / 10 * 10 + step)
    }

    fn agents(&mut self) {
        let now = self.now;
        let mut out = Vec::new();
        for (number, caller) in self.callers.iter_mut().enumerate() {
            if self.starts[number] <= now && caller.invite.is_none() && caller.answer.is_none() && !caller.provisional {
                out.push((Side::A, caller.start(&self.uri, now)));
            }
            out.extend(caller.due(now).into_iter().map(|text| (Side::A, text)));
            if caller.plan == Plan::Ring && self.starts[number] + 5_000 <= now {
                out.extend(caller.give_up(&self.uri, now).map(|text| (Side::A, text)));
            }
        }
        for callee in self.callees.iter_mut().flatten() {
            out.extend(callee.due(now).map(|text| (Side::Z, text)));
        }
        for (side, text) in out {
            self.send(side, To::Proxy(side), text.into_bytes());
        }
    }

    /// Into the network: over UDP it may be lost or doubled; over SCTP it only takes its time.
    fn send(&mut self, side: Side, to: To, bytes: Vec<u8>) {
        let reliable = self.transports[side as usize].is_reliable();
        let copies = match self.rng.f64() {
            _ if reliable => 1,
            chance if chance < self.loss => 0,
            chance if chance > 0.97 => 2,
            _ => 1,
        };
        for _ in 0..copies {
            let at = self.now + 1 + self.rng.u64(..80);
            self.sent += 1;
            self.flying.push(Reverse((at, self.sent, to, bytes.clone())));
        }
    }

    fn arrivals(&mut self) {
        while self.flying.peek().is_some_and(|Reverse((at, ..))| *at <= self.now) {
            let Some(Reverse((_, _, to, bytes))) = self.flying.pop() else { break };
            match to {
                To::Proxy(side) => self.proxy(side, &bytes),
                To::Agent(side) => match String::from_utf8(bytes) {
                    Ok(text) => self.agent(side, &text),
                    Err(_) => self.wrong("not text", ""),
                },
            }
        }
    }

    fn proxy(&mut self, side: Side, bytes: &[u8]) {
        let transport = self.transports[side as usize];
        let from = Flow {
            peer: Address::from(ADDRESSES[side as usize].parse::<std::net::SocketAddr>().expect("address")),
            transport: transport as u8,
            listener: u8::from(transport == Transport::Sctp),
            association: if transport == Transport::Sctp { 1 + side as u32 } else { 0 },
            ..Flow::default()
        };
        self.corridor.frame(Arrived { bytes, slot: 0, start: 0, from }, self.now);
        self.deliver(bytes);
    }

    fn proxy_sends(&mut self) {
        self.deliver(&[]);
    }

    fn tell_what_was_given_up(&mut self) {
        let now = self.now;
        let due: Vec<_> = self.news.extract_if(.., |(at, _)| *at <= now).collect();
        for (_, client) in due {
            self.corridor.undelivered(client, false, now);
            self.proxy_sends();
        }
    }

    /// Is this request given up on its way? The proxy hears of it soon.
    fn is_given_up(
        giving_up: &mut Option<HashMap<BranchId, u8>>,
        rng: &mut Rng,
        sending: &Sending,
    ) -> Option<BranchId> {
        let over_sctp = sending.to.transport == Transport::Sctp as u8;
        let (times, client) = (giving_up.as_mut().filter(|_| over_sctp)?, sending.client?);
        let times = times.entry(client).or_default();
        let is_given_up = *times < 2 && rng.u8(..4) == 0;
        *times += u8::from(is_given_up);
        is_given_up.then_some(client)
    }

    fn deliver(&mut self, arena: &[u8]) {
        let mut out = Vec::new();
        for sending in &self.corridor.outgoing.sendings {
            if let Some(client) = World::is_given_up(&mut self.giving_up, &mut self.rng, sending) {
                self.news.push((self.now + self.rng.u64(1..50), client));
                continue;
            }
            let mut bytes = self.corridor.outgoing.head(sending).to_vec();
            if let strowger::transport::Body::Arena { start, end, .. } = sending.body {
                bytes.extend_from_slice(&arena[start as usize..end as usize]);
            }
            let peer = sending.to.peer.to_string();
            let side = [Side::A, Side::Z].into_iter().zip(ADDRESSES).find(|(_, address)| *address == peer);
            out.push((side.map(|(side, _)| side), bytes));
        }
        self.corridor.outgoing.clear();
        for (side, bytes) in out {
            match side {
                Some(side) => self.send(side, To::Agent(side), bytes),
                None => self.wrong("it went to nobody", &String::from_utf8_lossy(&bytes)),
            }
        }
    }

    fn agent(&mut self, side: Side, text: &str) {
        let Some(call) = header(text, "Call-ID").and_then(|id| id.strip_prefix("call-")?.parse::<usize>().ok()) else {
            return self.wrong("no Call-ID", text);
        };
        match side {
            Side::A if text.starts_with("SIP/2.0") => {
                if headers(text, "Via").count() != 1 {
                    return self.wrong("a response must arrive with the caller's Via alone", text); // C04
                }
                let now = self.now;
                let out = self.callers[call].response(text, &self.uri, now);
                for text in out {
                    self.send(Side::A, To::Proxy(Side::A), text.into_bytes());
                }
            }
            Side::A => self.wrong("a request went to the caller", text),
            Side::Z if text.starts_with("SIP/2.0") => self.wrong("a response went to the callee", text),
            Side::Z => self.callee(call, text),
        }
    }

    fn callee(&mut self, call: usize, text: &str) {
        if header(text, "Max-Forwards") != Some("69") && !text.starts_with("CANCEL") && !text.starts_with("ACK") {
            return self.wrong("Max-Forwards must be one less", text); // B05
        }
        let (now, reliable) = (self.now, self.transports[1].is_reliable());
        let mut out = Vec::new();
        match text.split(' ').next() {
            Some("INVITE") => {
                let (plan, wait) = (self.callers[call].plan, self.rng.u64(..3_000));
                let contact = "sip:z@10.0.0.2:5060";
                let contact = if reliable { "sip:z@10.0.0.2:5060;transport=sctp" } else { contact };
                let callee = self.callees[call]
                    .get_or_insert_with(|| Callee::new(text, plan, now + 50 + wait, contact, reliable));
                if callee.final_response.is_none() {
                    out.push(callee.ringing());
                }
            }
            Some("ACK") => match &mut self.callees[call] {
                Some(callee) => callee.acknowledged = true,
                None => return self.wrong("an ACK without an INVITE", text),
            },
            Some("CANCEL") => match &mut self.callees[call] {
                Some(callee) => {
                    out.extend(callee.cancel(text, now));
                    // Each is answered, and hardly an answer in ten is lost: more of them mean that answers are not heard (D11).
                    if callee.cancels > if reliable { 1 } else { 6 } {
                        return self.wrong("a CANCEL is repeated although it was answered", text);
                    }
                }
                None => return self.wrong("a CANCEL before its INVITE was answered provisionally", text), // C21
            },
            Some("BYE") => {
                if headers(text, "Route").count() != 0 {
                    return self.wrong("our Route must be taken off", text); // B20
                }
                if let Some(callee) = &mut self.callees[call] {
                    callee.ended = true;
                }
                out.push(reply(text, 200, "OK", "sip:z@10.0.0.2"));
            }
            _ => return self.wrong("an unknown method", text),
        }
        for text in out {
            self.send(Side::Z, To::Proxy(Side::Z), text.into_bytes());
        }
    }

    fn wrong(&mut self, why: &'static str, text: &str) {
        self.fault.get_or_insert(Fault::Wrong { why, text: text.to_owned() });
    }

    fn judge(self) -> Result<(), Fault> {
        if let Some(fault) = self.fault {
            return Err(fault);
        }
        for (call, (caller, callee)) in self.callers.iter().zip(&self.callees).enumerate() {
            let wanted = match caller.plan {
                Plan::Answer => 200,
                Plan::Reject(code) => code,
                Plan::Ring => 487,
            };
            if caller.answer != Some(wanted) {
                return Err(Fault::CallLost { call, wanted, heard: caller.answer });
            }
            let acknowledged = callee.as_ref().is_some_and(|callee| callee.acknowledged);
            if !acknowledged {
                return Err(Fault::CallLost { call, wanted, heard: None });
            }
            if caller.plan == Plan::Answer && caller.bye_answer != Some(200) {
                return Err(Fault::ByeLost { call });
            }
        }
        let (slots, blocks, _) = self.table.audit();
        if slots.live + slots.lost + blocks.live + blocks.lost > 0 {
            return Err(Fault::Left { slots: slots.live + slots.lost, blocks: blocks.live + blocks.lost });
        }
        Ok(())
    }
}
