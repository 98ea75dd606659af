//! What kind of machine this is, and so what its microseconds mean.

use std::process::{Command, Stdio};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Machine {
    Metal,
    /// A virtual machine (`tests/vm/vm.sh`) where an instruction takes one nanosecond: CPU seconds repeat within 0.5 %.
    Counting,
    /// A virtual machine that is merely slow.
    Emulated,
}

impl Machine {
    /// In a virtual machine, which is ours alone, loopback gets Ethernet's packets: else SCTP bundles 64 kB into one, as on no network.
    pub fn here() -> Machine {
        let is_set = |name| std::env::var_os(name).is_some();
        if is_set("IN_VM") {
            let mut ip = Command::new("ip");
            let status = ip.args(["link", "set", "lo", "mtu", "1500"]).stderr(Stdio::null()).status();
            assert!(status.is_ok_and(|status| status.success()), "no ip link here (Debian: iproute2)");
        }
        match (is_set("VM_ICOUNT"), is_set("IN_VM")) {
            (true, _) => Machine::Counting,
            (false, true) => Machine::Emulated,
            (false, false) => Machine::Metal,
        }
    }

    pub fn said(self) -> &'static str {
        match self {
            Machine::Metal => "on this machine",
            Machine::Counting => "in a virtual machine, where 1 µs is 1,000 instructions; packets of 1500 bytes",
            Machine::Emulated => "in a virtual machine, where only ratios mean something; packets of 1500 bytes",
        }
    }

    /// A word of its own for what a CPU figure counts.
    pub fn unit(self) -> &'static str {
        match self {
            Machine::Counting => "k-instr",
            Machine::Metal | Machine::Emulated => "µs",
        }
    }
}
