//! What the kernel's settings for SCTP (`net.sctp`) mean for this daemon.
//!
//! Owns: which of them matter, their good values, and the words for others. Those that each socket is told anyway matter only where
//! somebody may think that they count. Sets nothing.

use crate::config::{Config, Listen, Stack};
use crate::transport::Transport;

/// The kernel's own values (M21).
const MAX_BURST: i64 = 4;
const HB_INTERVAL: i64 = 30_000;

/// Of this network namespace; `None`: this kernel has no such key (UDP encapsulation came with 5.11).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sysctls {
    pub sndbuf_policy: Option<i64>,
    pub rcvbuf_policy: Option<i64>,
    pub cookie_hmac_alg: Option<String>,
    pub max_burst: Option<i64>,
    pub hb_interval: Option<i64>,
    pub udp_port: Option<i64>,
    pub encap_port: Option<i64>,
}

impl Sysctls {
    /// As they are now: the kernel's module should be loaded (`sys::sctp::supported`).
    #[must_use]
    pub fn read() -> Sysctls {
        let number = |name| sys::sctp::sysctl(name).ok();
        Sysctls {
            sndbuf_policy: number("sndbuf_policy"),
            rcvbuf_policy: number("rcvbuf_policy"),
            cookie_hmac_alg: sys::sctp::sysctl_text("cookie_hmac_alg").ok(),
            max_burst: number("max_burst"),
            hb_interval: number("hb_interval"),
            udp_port: number("udp_port"),
            encap_port: number("encap_port"),
        }
    }

    /// What the operator should know, and what to do about it: one sentence each, none where all is well.
    #[must_use]
    pub fn warnings(&self, config: &Config) -> Vec<String> {
        let sctp = &config.sctp;
        let mut lines = Vec::new();
        // One socket then has one buffer for all its associations (M05, M40).
        for (name, value, effect) in [
            ("sndbuf_policy", self.sndbuf_policy, "one SCTP peer that stops reading can stop sending to all"),
            ("rcvbuf_policy", self.rcvbuf_policy, "one SCTP peer that floods can silence all"),
        ] {
            if value == Some(0) {
                lines.push(format!(
                    "net.sctp.{name} is 0: {effect}; `serve` sets it to 1 if it may (as root), else: sysctl -w net.sctp.{name}=1"
                ));
            }
        }
        if self.cookie_hmac_alg.as_deref() == Some("none") {
            lines.push(
                "net.sctp.cookie_hmac_alg is none: anybody can forge a cookie, and with it an association from any address; set \
                 it to one that this kernel has (sha256, on older ones sha1 or md5) before the start"
                    .to_owned(),
            );
        }
        if let Some(burst) = self.max_burst.filter(|burst| sctp.max_burst == 0 && *burst != MAX_BURST) {
            lines.push(format!(
                "net.sctp.max_burst is {burst}, and so it is here ({MAX_BURST} is usual): set sctp.max_burst to have another"
            ));
        }
        let ours = i64::from(sctp.hbinterval_ms);
        if let Some(theirs) = self.hb_interval.filter(|theirs| ![HB_INTERVAL, ours].contains(theirs)) {
            lines
                .push(format!("net.sctp.hb_interval is {theirs} and has no effect here: sctp.hbinterval_ms is {ours}"));
        }
        self.about_encapsulation(config, &mut lines);
        lines
    }

    /// Inside UDP goes what both ends have a port for (M37): ours is `udp_port`, theirs `encap_port` or that of their next hop.
    fn about_encapsulation(&self, config: &Config, lines: &mut Vec<String>) {
        let here = self.udp_port.unwrap_or(0);
        let of_kernel = |listen: &&Listen| listen.transport == Transport::Sctp && listen.stack != Stack::User;
        for listen in config.listen.iter().filter(of_kernel) {
            let Some(port) = listen.encapsulation_port.filter(|port| i64::from(*port) != here) else { continue };
            lines.push(match (self.udp_port, here) {
                (None, _) => format!(
                    "listener {:?}: this kernel has no UDP encapsulation (Linux 5.11 has), so encapsulation_port has no effect",
                    listen.name
                ),
                (_, 0) => format!(
                    "listener {:?}: net.sctp.udp_port is 0, so encapsulation_port = {port} has no effect; `serve` sets it if it may \
                     (as root), else: sysctl -w net.sctp.udp_port={port}",
                    listen.name
                ),
                _ => format!(
                    "listener {:?}: encapsulation_port = {port} has no effect: net.sctp.udp_port is {here} already, for all of this \
                     machine's SCTP",
                    listen.name
                ),
            });
        }
        let inside = config.live.next_hop.iter().find(|hop| hop.encapsulation_port.is_some());
        if let Some(hop) = inside.filter(|_| here == 0 && !config.listen.iter().any(|l| l.encapsulation_port.is_some()))
        {
            lines.push(format!(
                "next_hop {:?}: its encapsulation_port has no effect while net.sctp.udp_port is 0: give the sctp listener an \
                 encapsulation_port",
                hop.domain
            ));
        }
        match (here, self.encap_port.unwrap_or(0)) {
            // With our port alone we answer as we are asked: the summary has it.
            (_, 0) => {}
            (0, there) => lines.push(format!(
                "net.sctp.encap_port is {there} and has no effect while net.sctp.udp_port is 0: set both, or neither"
            )),
            // M37.
            (here, there) => lines.push(format!(
                "net.sctp.udp_port is {here} and encap_port {there}: all SCTP that this machine opens goes inside UDP, to port \
                 {there}; peers without RFC 6951 cannot be reached (sysctl -w net.sctp.encap_port=0 to reach them)"
            )),
        }
    }

    /// The same in one line, for those that find nothing above.
    #[must_use]
    pub fn summary(&self) -> String {
        let number = |value: Option<i64>| value.map_or("-".to_owned(), |value| value.to_string());
        let udp = match self.udp_port {
            None | Some(0) => "no UDP encapsulation".to_owned(),
            Some(port) => format!("also inside UDP, port {port}"),
        };
        format!(
            "net.sctp: sndbuf_policy {}, rcvbuf_policy {}, cookie_hmac_alg {}, {udp}",
            number(self.sndbuf_policy),
            number(self.rcvbuf_policy),
            self.cookie_hmac_alg.as_deref().unwrap_or("-"),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn good() -> Sysctls {
        Sysctls {
            sndbuf_policy: Some(1),
            rcvbuf_policy: Some(1),
            cookie_hmac_alg: Some("sha1".to_owned()),
            max_burst: Some(4),
            hb_interval: Some(30_000),
            udp_port: Some(0),
            encap_port: Some(0),
        }
    }

    #[test]
    fn good_values_need_one_line_and_each_other_one_more() {
        let config = Config::built_in().unwrap();
        let said = |sysctls: Sysctls| sysctls.warnings(&config);
        let none = Vec::<String>::new();
        assert_eq!(said(good()), none);
        assert_eq!(said(Sysctls::default()), none, "what a kernel does not have is no fault");
        let usual = "net.sctp: sndbuf_policy 1, rcvbuf_policy 1, cookie_hmac_alg sha1, no UDP encapsulation";
        assert_eq!(good().summary(), usual);
        for (sysctls, words) in [
            (Sysctls { sndbuf_policy: Some(0), ..good() }, "can stop sending to all"),
            (Sysctls { rcvbuf_policy: Some(0), ..good() }, "sysctl -w net.sctp.rcvbuf_policy=1"),
            (Sysctls { cookie_hmac_alg: Some("none".to_owned()), ..good() }, "forge a cookie"),
            (Sysctls { max_burst: Some(16), ..good() }, "max_burst is 16"),
            (
                Sysctls { hb_interval: Some(5_000), ..good() },
                "5000 and has no effect here: sctp.hbinterval_ms is 10000",
            ),
            (Sysctls { encap_port: Some(9899), ..good() }, "no effect while net.sctp.udp_port is 0"),
            (Sysctls { udp_port: Some(9900), encap_port: Some(9899), ..good() }, "inside UDP, to port 9899"),
        ] {
            let lines = said(sysctls);
            assert!(lines.len() == 1 && lines[0].contains(words), "{words}: {lines:?}");
        }
    }

    #[test]
    fn what_a_socket_is_told_itself_is_not_warned_of() {
        let mut config = Config::built_in().unwrap();
        config.sctp.max_burst = 8;
        config.sctp.hbinterval_ms = 5_000;
        let sysctls = Sysctls { max_burst: Some(16), hb_interval: Some(5_000), udp_port: Some(9899), ..good() };
        assert!(sysctls.warnings(&config).is_empty());
        assert!(sysctls.summary().ends_with("also inside UDP, port 9899"));
    }

    #[test]
    fn an_encapsulation_port_that_has_no_effect_is_said() {
        let text = "[[listen]]\ntransport = \"sctp\"\naddress = \"127.0.0.1:5060\"\nencapsulation_port = 9899";
        let config = Config::from_text(text).unwrap();
        let said = |port| Sysctls { udp_port: port, ..good() }.warnings(&config);
        assert_eq!(said(Some(9899)), Vec::<String>::new());
        for (port, words) in [(None, "has no UDP enc"), (Some(0), "udp_port=9899"), (Some(9900), "is 9900 already")] {
            let lines = said(port);
            assert!(lines.len() == 1 && lines[0].contains(words), "{words}: {lines:?}");
        }
        let hop = "[[next_hop]]\ndomain = \"a.test\"\ntargets = [\"sctp:192.0.2.1\"]\nencapsulation_port = 9899";
        let lines = Sysctls { udp_port: Some(0), ..good() }.warnings(&Config::from_text(hop).unwrap());
        assert!(lines.len() == 1 && lines[0].contains("give the sctp listener an encapsulation_port"), "{lines:?}");
    }
}
