//! Kamailio (Debian's kamailio and kamailio-sctp-modules), as a neighbour or as the proxy that the test house checks itself with.

use std::process::Command;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use strowger::transport::Transport;

use super::process::{Process, children};
use super::proxy::Setup;
use super::{Room, kernel, patience, wait_for};

pub struct Kamailio {
    process: Process,
}

impl Kamailio {
    /// Runs tests/kamailio/proxy.cfg; it listens when this returns. Of several next hops only the first counts, for
    /// every domain.
    pub fn start(room: &Room, setup: &Setup) -> Kamailio {
        let name = format!("kamailio-{}", setup.listen[0].1[0].port());
        let folder = room.path().join(&name);
        std::fs::create_dir_all(&folder).expect("a folder for Kamailio");
        let file = room.write(&format!("{name}.cfg"), include_str!("../kamailio/proxy.cfg"));
        let workers = if setup.workers == 0 { 2 } else { setup.workers }.to_string();
        let mut command = Command::new("kamailio");
        command.args(["-DD", "-E", "-m", "128", "-M", "8", "-b", "4194304", "-f"]).arg(file);
        command.arg("-Y").arg(&folder).arg("-w").arg(&folder).arg("-P").arg(folder.join("pid"));
        command.args(["-n", &workers, "-N", &workers]);
        if setup.listen.iter().any(|(t, _)| *t == Transport::Sctp) {
            command.args(["-Q", &workers, "-A", "WITH_SCTP"]);
        }
        if let Some((_, transport, address)) = setup.next_hop.first() {
            command.args(["-A", &format!("NEXT_HOP=\"sip:{address};transport={}\"", transport.uri_token())]);
        }
        for (transport, addresses) in &setup.listen {
            let ips: Vec<_> = addresses
                .iter()
                .map(|a| if a.is_ipv6() { format!("[{}]", a.ip()) } else { a.ip().to_string() })
                .collect();
            let ips = if ips.len() > 1 { format!("({})", ips.join(",")) } else { ips.concat() };
            command.args(["-l", &format!("{}:{ips}:{}", transport.uri_token(), addresses[0].port())]);
        }
        let mut process = Process::start(command, room.path(), &name);
        // Bound, and the set of children the same for a while: all of them have come up.
        let (mut last, mut same) = (0, 0);
        let pid = process.pid();
        let up = wait_for(patience(20), || {
            if process.ended().is_some() {
                return Some(false);
            }
            let now = children(pid).len();
            same = if now == last && now > 2 { same + 1 } else { 0 };
            last = now;
            let bound = setup.listen.iter().all(|(t, a)| kernel::is_bound(*t, a[0].port()));
            (bound && same > if super::slow() > 1 { 200 } else { 60 }).then_some(true)
        });
        assert_eq!(up, Some(true), "Kamailio does not come up: {}", process.last_words());
        Kamailio { process }
    }

    /// Its calls are over. 5.6.3 sometimes waits for ever then, two of its processes for one lock (futex): that is no failure of ours,
    /// so all of it is killed, and said.
    pub fn stop(mut self) {
        let children = children(self.process.pid());
        self.process.signal(Signal::SIGTERM);
        if self.process.wait(patience(5)).is_none() {
            super::say("Kamailio did not end by itself: killed");
            for child in children {
                let _ = kill(Pid::from_raw(child), Signal::SIGKILL);
            }
        }
    }
}
