//! The transports on real sockets, and what they share between processes. Over SCTP only where the kernel has it: run this binary
//! in the virtual machine where the host has none.

mod late_news;
mod layout;
mod memory;
#[allow(dead_code)] // shared with the tests of sys
#[path = "../../sys/tests/rig/mod.rs"]
mod rig;
mod sctp;
mod seat;
mod single_owner;
mod supervisor;
mod tcp;
#[path = "../support/tunnel.rs"]
mod tunnel;
mod two_seats;
mod udp;
mod user;

fn main() {
    // Both ends of many connections are here.
    let _ = sys::process::set_open_files(20_000);
    let tests = [
        memory::TESTS,
        udp::TESTS,
        tcp::TESTS,
        supervisor::TESTS,
        supervisor::trouble::TESTS,
        single_owner::TESTS,
        user::TESTS,
        two_seats::TESTS,
    ]
    .concat();
    let kernels = rig::with_kernel_sctp([sctp::TESTS, layout::TESTS, layout::PER_WORKER, late_news::TESTS].concat());
    rig::run(&[tests, kernels].concat());
}
