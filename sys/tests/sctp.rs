//! Kernel SCTP through one-to-many sockets: facts of sections L and M, as far as `sys` makes use of them.
//! Skipped where the kernel has no SCTP: run this binary in the virtual machine then.

mod rig;

#[path = "sctp/association.rs"]
mod association;
#[path = "sctp/bundling.rs"]
mod bundling;
#[path = "sctp/end.rs"]
mod end;
#[path = "sctp/pressure.rs"]
mod pressure;

fn main() {
    rig::run(&rig::with_kernel_sctp([association::TESTS, bundling::TESTS, pressure::TESTS].concat()));
}
