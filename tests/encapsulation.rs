//! SCTP in user space meets the kernel's, inside UDP (RFC 6951): calls, large messages, ends and restarts from either side, loss, a
//! crowd. It sets the kernel's encapsulation ports for the whole machine, so only in the virtual machine. All of the kernel's
//! associations are our peers' there, so its counters tell how they fared.

mod support;

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::Command;
use std::time::Duration;

use strowger::transport::Transport;
use support::callee::Callee;
use support::daemon::{Daemon, counter};
use support::kernel::{Sysctl, grown, sctp_counters};
use support::proxy::Setup;
use support::raw::Peer;
use support::sipp::{Scenario, Sipp, names, register};
use support::{Room, only_in_the_vm, patience, say, tally_sctp, wait_for};
use sys::datagram::To;

const HOME: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// The kernel's own tunnel port; the daemon has another.
const KERNEL: u16 = 9899;
const LARGE: [usize; 2] = [20_000, 60_000];
const CROWD: usize = 200;

/// A daemon in user space, and a kernel that reaches it.
struct House {
    room: Room,
    setup: Setup,
    daemon: Daemon,
    /// With both set, all SCTP of the machine goes through UDP.
    _ports: [Sysctl; 2],
}

impl House {
    fn new(name: &str) -> Option<House> {
        House::with(name, "")
    }

    /// With further tables of its configuration.
    fn with(name: &str, tables: &str) -> Option<House> {
        if only_in_the_vm(name) {
            return None;
        }
        let room = Room::new(name);
        let setup = Setup {
            next_hop_tunnel: Some(KERNEL),
            next_hop: vec![("kernel.test".to_owned(), Transport::Sctp, support::free_port(HOME))],
            tables: tables.to_owned(),
            ..Setup::in_user_space(HOME, &[Transport::Sctp, Transport::Udp])
        };
        let ports = [Sysctl::set("encap_port", setup.tunnel.expect("a tunnel")), Sysctl::set("udp_port", KERNEL)];
        let daemon = Daemon::start(&room, &setup);
        Some(House { room, setup, daemon, _ports: ports })
    }

    fn toward(&self) -> SocketAddr {
        self.setup.address(Transport::Sctp)
    }

    fn peer(&self) -> Peer {
        Peer::connect(Transport::Sctp, self.toward()).expect("the kernel sets an association up")
    }

    fn count(&self, name: &str) -> u64 {
        counter(&self.daemon.status(), name)
    }

    fn until(&self, name: &str, at_least: u64) {
        let there = wait_for(patience(5), || (self.count(name) >= at_least).then_some(()));
        assert!(there.is_some(), "{name} is {}, not {at_least}", self.count(name));
    }

    fn associations(&self) -> Vec<Figures> {
        let status = self.daemon.status();
        let flows = status["flows"].as_array().cloned().unwrap_or_default();
        let figures = |flow: &serde_json::Value| {
            let association = &flow["association"];
            Some(Figures {
                id: association["id"].as_u64()?,
                peer: flow["peers"][0].as_str()?.to_owned(),
                sent_again: association["retransmitted"].as_u64()?,
            })
        };
        flows.iter().filter_map(figures).collect()
    }

    /// `calls` calls by SIPp over each of these pairs. How many packets the daemon sent again meanwhile.
    fn call(&self, pairs: &[(Transport, Transport)], calls: u64) -> u64 {
        let mut sent_again = HashMap::new();
        for (from, to) in pairs.iter().copied() {
            let toward = |transport| self.setup.address(transport);
            let limit = patience(60);
            let callee = Sipp::new(Scenario::Callee, to, toward(to)).limit(limit).start(&self.room);
            let phones = names(&format!("{}-{}-", from.uri_token(), to.uri_token()), 5);
            register(&self.room, (to, toward(to)), &phones, callee.local, to);
            let caller =
                Sipp::new(Scenario::Caller, from, toward(from)).users(&phones).calls(calls).rate(30).at_once(60);
            let mut caller = caller.limit(limit).start(&self.room);
            // What is known of an association goes with it.
            while caller.is_running() {
                sent_again.extend(self.associations().iter().map(|one| (one.id, one.sent_again)));
                std::thread::sleep(Duration::from_millis(200));
            }
            let report = caller.finish();
            say(&format!("{} to {}, kernel and user space: {report}", from.uri_token(), to.uri_token()));
            report.must_be_whole(calls);
            tally_sctp(calls);
        }
        sent_again.values().sum()
    }
}

/// What `status` says of an association.
struct Figures {
    id: u64,
    peer: String,
    sent_again: u64,
}

fn tc(arguments: &str) -> String {
    let output = Command::new("tc").args(arguments.split_whitespace()).output().expect("tc");
    assert!(output.status.success(), "tc {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The kernel's numbers of the associations on a local port. One that began anew keeps its number.
fn kernel_associations(port: u16) -> Vec<String> {
    kernel_column(port, "ASSOC-ID")
}

/// Waits until the peers of a local port have acknowledged all that the kernel sent them.
fn until_all_is_acknowledged(port: u16) {
    let all = || kernel_column(port, "TX_QUEUE").iter().all(|bytes| bytes == "0").then_some(());
    wait_for(patience(5), all).expect("the rest is acknowledged");
}

/// One column of `/proc/net/sctp/assocs`, of the associations on a local port.
fn kernel_column(port: u16, title: &str) -> Vec<String> {
    let table = std::fs::read_to_string("/proc/net/sctp/assocs").expect("the kernel has SCTP");
    let mut lines = table.lines().map(|line| line.split_ascii_whitespace().collect::<Vec<_>>());
    let titles = lines.next().expect("titles");
    let column = |title| titles.iter().position(|of| *of == title).expect(title);
    let (wanted, local) = (column(title), column("LPORT"));
    lines.filter(|line| line[local] == port.to_string()).map(|line| line[wanted].to_owned()).collect()
}

/// How many associations the kernel has seen end in good order, and how many aborted, by whichever side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Ends {
    good: u64,
    aborted: u64,
}

impl Ends {
    fn now() -> Ends {
        let counters = sctp_counters();
        Ends { good: counters["SctpShutdowns"], aborted: counters["SctpAborteds"] }
    }

    /// So many more have ended since, and so.
    fn become_more(self, good: u64, aborted: u64) {
        let due = Ends { good: self.good + good, aborted: self.aborted + aborted };
        let there = wait_for(patience(3), || (Ends::now() == due).then_some(()));
        assert!(there.is_some(), "{good} good ends and {aborted} aborts should make {due:?}, not {:?}", Ends::now());
    }
}

/// As long as it lives, nothing comes through to this UDP port, and nobody is told.
struct Cut;

impl Cut {
    fn toward(port: u16) -> Cut {
        tc("qdisc add dev lo ingress");
        tc(&format!(
            "filter add dev lo parent ffff: protocol ip u32 match ip protocol 17 0xff match ip dport {port} 0xffff \
                     action drop"
        ));
        Cut
    }
}

impl Drop for Cut {
    fn drop(&mut self) {
        let _ = Command::new("tc").args(["qdisc", "del", "dev", "lo", "ingress"]).status();
    }
}

#[test]
fn calls_cross_between_kernel_and_user_space() {
    let Some(house) = House::new("encapsulated-calls") else { return };
    let (sctp, udp) = (Transport::Sctp, Transport::Udp);
    house.call(&[(sctp, udp), (udp, sctp), (sctp, sctp)], 100);
    assert_eq!((house.count("associations_lost"), house.count("sctp_damaged")), (0, 0));
    house.daemon.stop();
}

/// The kernel's SCTP reaches one next hop inside UDP (M37) and everybody else plainly, at the same time.
#[test]
fn the_kernels_sctp_goes_inside_udp_where_the_configuration_says_so() {
    if only_in_the_vm("encapsulated-next-hop") {
        return;
    }
    let room = Room::new("encapsulated-next-hop");
    let (sctp, udp) = (Transport::Sctp, Transport::Udp);
    let far = Setup::in_user_space(HOME, &[sctp, udp]);
    let there = Daemon::start(&room, &far);
    let phones = names("tunnel", 5);
    let callee = Sipp::new(Scenario::Callee, udp, far.address(udp)).start(&room);
    register(&room, (udp, far.address(udp)), &phones, callee.local, udp);
    let plain = support::free_port(HOME);
    let _answering = Sipp::new(Scenario::Callee, sctp, plain).from(plain).start(&room);
    for layout in ["shared", "per_worker"] {
        let hop = format!("[[next_hop]]\ndomain = \"plain.test\"\ntargets = [\"sctp:{plain}\"]\n");
        let near = Setup {
            kernel_tunnel: Some(KERNEL),
            domain: "near.test".to_owned(),
            next_hop: vec![(support::DOMAIN.to_owned(), sctp, far.address(sctp))],
            next_hop_tunnel: far.tunnel,
            tables: format!("{hop}[sctp]\nlayout = \"{layout}\"\n"),
            ..Setup::on(HOME, &[sctp, udp])
        };
        // The daemon opens the kernel's port by itself.
        let _closed = Sysctl::set("udp_port", 0);
        let daemon = Daemon::start(&room, &near);
        let of_there = |name| counter(&there.status(), name);
        let (up, packets) = (of_there("associations_up"), of_there("sctp_packets"));
        for domain in [support::DOMAIN, "plain.test"] {
            let caller = Sipp::new(Scenario::Caller, udp, near.address(udp)).domain(domain).users(&phones).calls(50);
            let report = caller.rate(20).limit(patience(60)).start(&room).finish();
            say(&format!("{layout}: to {domain}: {report}"));
            report.must_be_whole(50);
            tally_sctp(50);
        }
        let (up, packets) = (of_there("associations_up") - up, of_there("sctp_packets") - packets);
        assert!(up == 1 && packets > 100, "{up} associations, {packets} packets inside UDP");
        daemon.stop();
    }
    drop(callee);
    there.stop();
}

/// Over SCTP on both sides: a 180 that UDP loses is lost.
#[test]
fn calls_survive_three_percent_loss() {
    let Some(house) = House::new("loss") else { return };
    let before = sctp_counters();
    tc("qdisc add dev lo root netem loss 3% duplicate 1% reorder 5% delay 2ms");
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        house.call(&[(Transport::Sctp, Transport::Sctp)], 200)
    }));
    let said = tc("-s qdisc show dev lo root");
    tc("qdisc del dev lo root");
    let by_us = result.unwrap_or_else(|cause| std::panic::resume_unwind(cause));
    let after = sctp_counters();
    let by_kernel: u64 =
        ["SctpT3Retransmits", "SctpFastRetransmits"].iter().map(|name| grown(&before, &after, name)).sum();
    let dropped = said.split_once("dropped ").and_then(|(_, rest)| rest.split_once(',')?.0.parse::<u64>().ok());
    say(&format!("{dropped:?} packets lost; sent again: {by_us} packets by us, {by_kernel} chunks by the kernel"));
    assert!(
        dropped.is_some_and(|n| n > 0) && by_us > 0 && by_kernel > 0,
        "nothing was lost, or not in both directions: {said}"
    );
    house.daemon.stop();
}

/// Both ways over associations that the kernel opened, and over one that we opened.
#[test]
fn messages_of_20_and_60_kilobytes_pass_both_ways() {
    let Some(house) = House::new("large") else { return };
    let (caller, phone) = (house.peer(), house.peer());
    phone.register("large");
    let mut hop = Callee::at(house.setup.next_hop[0].2);
    for bytes in LARGE {
        let body = "x".repeat(bytes);
        let message = |id: &str| {
            let id = format!("{id}{bytes}");
            caller.request_with("MESSAGE", "large", &id, "Content-Type: text/plain\r\n", &body)
        };
        let is_whole =
            |text: &str| assert!(text.ends_with(&format!("\r\n\r\n{body}")), "{bytes} became {}", text.len());
        let phone_gets_it = || {
            let arrived = phone.receive_starting("MESSAGE", patience(5)).expect("it arrives");
            is_whole(&arrived);
            phone.send(phone.answer(&arrived, "200 OK").as_bytes()).expect("200 is sent");
        };
        caller.send(message("in").as_bytes()).expect("the kernel takes it");
        phone_gets_it();
        assert!(caller.receive_starting("SIP/2.0 200", patience(5)).is_some(), "no 200");

        let to_hop = message("out").replacen("sip:large@example.test", "sip:large@kernel.test", 1);
        caller.send(to_hop.as_bytes()).expect("the kernel takes it");
        let heard = hop.hears("MESSAGE", patience(5));
        is_whole(&heard.text);
        assert!(hop.answers(&heard, "200 OK"));
        assert!(caller.receive_starting("SIP/2.0 200", patience(5)).is_some(), "no 200");

        let back = message("back").replace(&caller.local.to_string(), &hop.at.to_string());
        assert!(hop.sends(To::Association(heard.association), &back));
        phone_gets_it();
        hop.hears("SIP/2.0 200", patience(5));
    }
    assert_eq!((house.count("associations_up"), house.count("associations_lost")), (3, 0));
    house.daemon.stop();
}

/// SHUTDOWN and ABORT, from the kernel's side and from ours.
#[test]
fn either_side_may_end_an_association() {
    let Some(house) = House::new("ends") else { return };
    let before = Ends::now();
    let peer = house.peer();
    peer.register("ends");
    drop(peer);
    house.until("associations_closed", 1);
    before.become_more(1, 0);

    let before = Ends::now();
    let peer = house.peer();
    peer.register("aborts");
    peer.socket().set_linger(Some(Duration::ZERO)).expect("SO_LINGER");
    drop(peer);
    house.until("associations_lost", 1);
    before.become_more(0, 1);

    // A worker's death: its successor aborts what it had.
    let before = Ends::now();
    let peers: Vec<Peer> = (0..4).map(|_| house.peer()).collect();
    peers.iter().enumerate().for_each(|(n, peer)| peer.register(&format!("dies{n}")));
    for worker in house.daemon.workers() {
        house.daemon.kill_and_time_replacement(worker);
    }
    for peer in &peers {
        assert!(peer.is_closed_within(patience(3)), "an association lives on without its owner");
    }
    before.become_more(0, 4);

    // Our own end: SHUTDOWN for all, whoever opened them.
    let before = Ends::now();
    let last = house.peer();
    last.register("last");
    let mut hop = Callee::at(house.setup.next_hop[0].2);
    let text = last.request("MESSAGE", "hop", "hop").replacen("sip:hop@example.test", "sip:hop@kernel.test", 1);
    last.send(text.as_bytes()).expect("the kernel takes it");
    let heard = hop.hears("MESSAGE", patience(5));
    assert!(hop.answers(&heard, "200 OK"));
    assert!(last.receive_starting("SIP/2.0 200", patience(5)).is_some(), "no 200");
    house.daemon.stop();
    assert!(last.is_closed_within(patience(3)), "the daemon ended without a word");
    before.become_more(2, 0);
}

/// A daemon that comes back on the same ports is, to the kernel, a peer that restarted (RFC 9260 §5.2.4).
#[test]
fn a_restarted_daemon_is_a_restarted_peer() {
    let Some(house) = House::new("restart") else { return };
    let listening = house.setup.next_hop[0].2;
    let callee = Sipp::new(Scenario::Callee, Transport::Sctp, house.toward()).from(listening).start(&house.room);
    let call = |setup: &Setup| {
        let toward = setup.address(Transport::Udp);
        let phones = names("restart", 1);
        let caller = Sipp::new(Scenario::Caller, Transport::Udp, toward).domain("kernel.test").users(&phones).calls(20);
        caller.rate(20).start(&house.room).finish().must_be_whole(20);
    };
    call(&house.setup);
    let before = kernel_associations(listening.port());
    assert_eq!(before.len(), 1);
    // Whatever the callee sends of its own, a heartbeat or its last response once more, is out of the blue to the new daemon, which
    // ends the association by ABORT. So nothing may be left to send again, and heartbeats are cut off.
    until_all_is_acknowledged(listening.port());
    let cut = Cut::toward(house.setup.tunnel.expect("a tunnel"));
    for pid in house.daemon.children().into_iter().chain([house.daemon.pid()]) {
        let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
    }
    std::thread::sleep(patience(1) / 2);
    let again = Daemon::start(&house.room, &house.setup);
    drop(cut);
    call(&house.setup);
    // The callee still has the one association, which did not end.
    assert_eq!(kernel_associations(listening.port()), before);
    drop(callee);
    again.stop();
}

/// The same of a kernel peer (RFC 9260 §5.2.2): it comes from the same address and port, and of what was before it knows nothing. No
/// second association is made beside the first, what it had of ours has failed (M38), and what is meant for it goes over the new one.
#[test]
fn a_kernel_peer_that_restarts_goes_on() {
    let Some(house) = House::new("kernel-restart") else { return };
    let caller = Peer::connect(Transport::Udp, house.setup.address(Transport::Udp)).expect("a caller");
    let phone = house.peer();
    phone.register("phone");
    let local = phone.local;
    let ids = || -> Vec<u64> {
        let all = house.associations();
        all.iter().filter(|one| one.peer == local.to_string()).map(|one| one.id).collect()
    };
    let first = ids();
    caller.send(caller.request("MESSAGE", "phone", "before").as_bytes()).expect("MESSAGE is sent");
    assert!(phone.receive_starting("MESSAGE", patience(3)).is_some(), "it does not arrive");
    {
        // Its ABORT gets nowhere: so it is gone as if its machine had lost power.
        let _cut = Cut::toward(house.setup.tunnel.expect("a tunnel"));
        phone.socket().set_linger(Some(Duration::ZERO)).expect("SO_LINGER");
        drop(phone);
    }
    assert_eq!(house.count("associations_lost"), 0, "its ABORT came through");
    let phone = Peer::connect_from(Transport::Sctp, house.toward(), local, |_| Ok(())).expect("it comes back");
    phone.send(phone.request("OPTIONS", "", "again").as_bytes()).expect("OPTIONS is sent");
    assert!(phone.receive_starting("SIP/2.0 200", patience(3)).is_some(), "no 200 after the restart");
    assert!(caller.receive_starting("SIP/2.0 500", patience(3)).is_some(), "the request it forgot has not failed");
    let second = ids();
    assert!(first.len() == 1 && second.len() == 1 && first != second, "{first:?} became {second:?}");
    assert_eq!((house.count("associations_up"), house.count("associations_lost")), (1, 0));

    caller.send(caller.request("MESSAGE", "phone", "after").as_bytes()).expect("MESSAGE is sent");
    let arrived = phone.receive_starting("MESSAGE", patience(3)).expect("it arrives");
    phone.send(phone.answer(&arrived, "200 OK").as_bytes()).expect("200 is sent");
    assert!(caller.receive_starting("SIP/2.0 200", patience(3)).is_some(), "no 200 to what came after");
    house.daemon.stop();
}

/// RFC 3758, M30: what could not be delivered in `send_ttl_ms` is not delivered late, and the association goes on.
#[test]
fn a_message_that_outlived_its_time_never_comes() {
    for (ttl, late) in [(300, false), (0, true)] {
        let sctp = format!("[sctp]\nsend_ttl_ms = {ttl}\n");
        let Some(house) = House::with("outlived", &sctp) else { return };
        let caller = Peer::connect(Transport::Udp, house.setup.address(Transport::Udp)).expect("a caller");
        let phone = house.peer();
        phone.register("phone");
        let send = |id: &str| caller.send(caller.request("MESSAGE", "phone", id).as_bytes()).expect("MESSAGE is sent");
        {
            let _cut = Cut::toward(KERNEL);
            send("late");
            std::thread::sleep(Duration::from_millis(1_500));
        }
        send("new");
        let mut came: Vec<_> = std::iter::from_fn(|| phone.receive(patience(1) + Duration::from_secs(4))).collect();
        came.retain(|text| text.starts_with("MESSAGE"));
        let has = |id: &str| came.iter().any(|text| text.contains(&format!("Call-ID: {id}@a")));
        assert!(has("new") && has("late") == late, "send_ttl_ms = {ttl}: {came:?}");
        assert_eq!(house.count("associations_lost"), 0);
        house.daemon.stop();
    }
}

/// Both that call us and that we call, at once.
#[test]
fn two_hundred_kernel_peers_are_served_and_as_many_called() {
    // All have one IP address.
    let Some(house) = House::with("crowd", "[limits]\nassociations_per_peer = 1000\n") else { return };
    let before = Ends::now();
    let peers: Vec<Peer> = (0..CROWD).map(|_| house.peer()).collect();
    for (n, peer) in peers.iter().enumerate() {
        peer.send(peer.request("OPTIONS", "", &format!("crowd{n}")).as_bytes()).expect("OPTIONS is sent");
    }
    for peer in &peers {
        assert!(peer.receive_starting("SIP/2.0 200", patience(5)).is_some(), "no 200");
    }
    let crowd = CROWD as u64;
    assert_eq!(house.count("associations_up"), crowd);
    let mut callees: Vec<Callee> = (0..CROWD).map(|_| Callee::at(support::free_port(HOME))).collect();
    let caller = Peer::connect(Transport::Udp, house.setup.address(Transport::Udp)).expect("a caller");
    for (n, callee) in callees.iter().enumerate() {
        let text = caller.request("MESSAGE", "z", &format!("called{n}"));
        let at = format!("sip:z@{};transport=sctp", callee.at);
        caller.send(text.replacen("sip:z@example.test", &at, 1).as_bytes()).expect("MESSAGE is sent");
    }
    let mut answered = HashSet::new();
    for callee in &mut callees {
        let heard = callee.hears("MESSAGE", patience(5));
        assert!(callee.answers(&heard, "200 OK"));
        // Read at once: the caller's socket has no room for all of them.
        let text = caller.receive_starting("SIP/2.0 200", patience(5)).expect("a 200 for each");
        answered.extend(text.lines().find(|line| line.starts_with("Call-ID:")).map(str::to_owned));
    }
    assert_eq!(answered.len(), CROWD);
    assert_eq!(house.count("associations_up"), 2 * crowd);
    drop(peers);
    house.until("associations_closed", crowd);
    house.daemon.stop();
    before.become_more(2 * crowd, 0);
}
