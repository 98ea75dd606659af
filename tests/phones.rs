//! The phones against a proxy that is not ours: Kamailio. What they find wrong with Strowger must be Strowger's fault.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use strowger::phone::agent::{Failure, Manner};
use strowger::phone::daemon::{free_port, is_there};
use strowger::phone::load::{Load, Order, Pace, Tally};
use strowger::transport::Transport;

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// A registrar and record-routing stateful proxy on a port of its own.
struct Kamailio {
    child: Child,
    folder: PathBuf,
    address: SocketAddr,
    transports: Vec<Transport>,
}

const ROUTES: &str = r#"
request_route {
    if (method == "OPTIONS" && $rU == $null) { sl_send_reply("200", "OK"); exit; }
    if (method == "REGISTER") { save("location"); exit; }
    if (has_totag()) {
        if (loose_route()) t_relay();
        exit;
    }
    if (method == "CANCEL") { if (t_check_trans()) t_relay(); exit; }
    record_route();
    if (!lookup("location")) { sl_send_reply("404", "Not Found"); exit; }
    t_relay();
}
"#;

impl Kamailio {
    /// None where it is not installed.
    fn start() -> Option<Kamailio> {
        let modules = ["tm", "sl", "rr", "pv", "usrloc", "registrar", "siputils"];
        let sctp =
            sys::sctp::supported() && fs::exists("/usr/lib/x86_64-linux-gnu/kamailio/modules/sctp.so").unwrap_or(false);
        let transports: Vec<_> = Transport::ALL.into_iter().filter(|t| *t != Transport::Sctp || sctp).collect();
        let mut text = "log_stderror=yes\nauto_aliases=no\ndns=no\nrev_dns=no\n".to_owned();
        text += if sctp { "enable_sctp=yes\nloadmodule \"sctp.so\"\n" } else { "enable_sctp=no\n" };
        modules.iter().for_each(|module| text += &format!("loadmodule \"{module}.so\"\n"));
        let address = SocketAddr::new(LOOPBACK, free_port().unwrap());
        let folder = std::env::temp_dir().join(format!("phones-{}-{}", std::process::id(), address.port()));
        fs::create_dir(&folder).unwrap();
        let file = folder.join("kamailio.cfg");
        fs::write(&file, text + ROUTES).unwrap();
        let log = fs::File::create(folder.join("log")).unwrap();
        let mut command = Command::new("kamailio");
        command.args(["-DD", "-E", "-m", "64", "-M", "8", "-n", "2", "-N", "2", "-f"]).arg(file);
        command.arg("-Y").arg(&folder).arg("-w").arg(&folder).arg("-P").arg(folder.join("pid"));
        for transport in &transports {
            command.arg("-l").arg(format!("{}:{address}", transport.uri_token()));
        }
        let spawned = command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn();
        let Ok(child) = spawned else {
            eprintln!("not tried: Kamailio is not installed (apt-get install kamailio kamailio-sctp-modules)");
            let _ = fs::remove_dir_all(&folder);
            return None;
        };
        let mut kamailio = Kamailio { child, folder, address, transports };
        for _ in 0..200 {
            assert!(kamailio.child.try_wait().unwrap().is_none(), "Kamailio ended: {}", kamailio.said());
            if is_there(address, Duration::from_millis(100)).unwrap() {
                return Some(kamailio);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("Kamailio does not answer: {}", kamailio.said());
    }

    fn said(&self) -> String {
        fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }
}

impl Drop for Kamailio {
    fn drop(&mut self) {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.child.id()).unwrap());
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn place(load: &mut Load, order: &Order) -> Tally {
    load.place(order, &mut |_| ControlFlow::Continue(())).unwrap()
}

#[test]
fn every_pair_of_transports_carries_calls_through_a_foreign_proxy() {
    let Some(kamailio) = Kamailio::start() else { return };
    let mut load = Load::new(&kamailio.address.to_string(), Manner::default()).unwrap();
    let mut crowd = |what: &str, transport: Transport| -> Vec<usize> {
        let user = |n| format!("{what}-{}-{n}", transport.uri_token());
        (0..5).map(|n| load.add_phone(&user(n), transport, LOOPBACK, kamailio.address).unwrap()).collect()
    };
    let sides: Vec<_> = kamailio.transports.iter().map(|&t| (t, crowd("a", t), crowd("z", t))).collect();
    let everyone: Vec<usize> = sides.iter().flat_map(|(_, a, z)| a.iter().chain(z).copied()).collect();
    assert_eq!(load.register(&everyone, 600).unwrap().len(), 0, "{}", kamailio.said());

    for (from, callers, _) in &sides {
        for (to, _, callees) in &sides {
            load.watch(callers[0], callees[0]);
            let tally =
                place(&mut load, &Order { calls: 50, longest: Duration::MAX, pace: Pace::AtOnce(5), callers, callees });
            let what = format!("{} to {}: {:?}", from.via_token(), to.via_token(), tally.failures);
            assert_eq!((tally.placed, tally.completed, tally.failed), (50, 50, 0), "{what}\n{}", kamailio.said());
            assert_eq!((tally.set_up.len(), tally.unacknowledged), (50, 0), "{what}");
            let ladder = load.ladder().unwrap().draw(["a", "kamailio", "z"]);
            // Two workers: the 180 may come after the 200 and is dropped then.
            assert!(ladder.contains("<----- 180 Ringing"), "{ladder}");
            let is = |name: &str| ladder.matches(name).count() >= 2;
            assert!(["INVITE", "200 OK -", "ACK", "BYE", "200 OK (BYE)"].into_iter().all(is), "{ladder}");
            println!("{}\n{ladder}", &what[..what.len() - 4]);
        }
    }
}

#[test]
fn an_open_loop_keeps_its_rate_and_a_wrong_number_fails() {
    let Some(kamailio) = Kamailio::start() else { return };
    let mut load = Load::new(&kamailio.address.to_string(), Manner::default()).unwrap();
    let a = load.add_phone("a", Transport::Udp, LOOPBACK, kamailio.address).unwrap();
    let z = load.add_phone("z", Transport::Tcp, LOOPBACK, kamailio.address).unwrap();
    assert_eq!(load.register(&[a, z], 600).unwrap().len(), 0);
    let order =
        Order { calls: 100, longest: Duration::MAX, pace: Pace::PerSecond(100.0), callers: &[a], callees: &[z] };
    let tally = place(&mut load, &order);
    assert_eq!((tally.completed, tally.failed), (100, 0), "{:?}", tally.failures);
    // The hundredth call begins 990 ms after the first; how much later it ends is the machine's affair.
    assert!(tally.took >= Duration::from_millis(990), "{:?}", tally.took);

    let nobody = load.add_phone("nobody", Transport::Udp, LOOPBACK, kamailio.address).unwrap();
    let tally = place(
        &mut load,
        &Order { calls: 3, longest: Duration::MAX, pace: Pace::AtOnce(1), callers: &[a], callees: &[nobody] },
    );
    assert_eq!(tally.failures.into_iter().collect::<Vec<_>>(), [(Failure::Refused(404), 3)]);
}

#[test]
fn a_phone_whose_connection_is_cut_calls_again_over_a_new_one() {
    // The proxy here is a bare listener: it cuts the first connection and then only counts.
    let listener = std::net::TcpListener::bind((LOOPBACK, 0)).unwrap();
    let proxy = listener.local_addr().unwrap();
    let mut load = Load::new("example.test", Manner { patience: Duration::from_secs(1), ..Manner::default() }).unwrap();
    let a = load.add_phone("a", Transport::Tcp, LOOPBACK, proxy).unwrap();
    drop(listener.accept().unwrap());
    let order = Order { calls: 1, longest: Duration::MAX, pace: Pace::AtOnce(1), callers: &[a], callees: &[a] };
    assert_eq!(place(&mut load, &order).failures.into_keys().collect::<Vec<_>>(), [Failure::LineLost]);
    // The new line comes up after a moment, and then the call fails of silence.
    let mut failures = Vec::new();
    for _ in 0..20 {
        failures.extend(place(&mut load, &order).failures.into_keys());
        if failures.contains(&Failure::Silence("INVITE")) {
            break;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(failures.contains(&Failure::Silence("INVITE")), "{failures:?}");
    listener.accept().unwrap();
}
