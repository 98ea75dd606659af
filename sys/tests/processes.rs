//! Shared memory, robust locks, processes, exclusive wake-ups, the log descriptor: what only shows with more than one process.

mod rig;

#[path = "processes/fork.rs"]
mod fork;
#[path = "processes/log.rs"]
mod log;
#[path = "processes/memory.rs"]
mod memory;
#[path = "processes/wake.rs"]
mod wake;

fn main() {
    let all = [memory::TESTS, fork::TESTS, wake::TESTS, log::TESTS].concat();
    rig::run(&all);
}
