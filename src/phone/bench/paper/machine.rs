//! What this machine is, as the page tells it.

use crate::phone::bench::machine::machine;
use crate::phone::bench::results::Machine;

/// With the command that makes the run again from its beginning.
#[must_use]
pub fn this() -> Machine {
    let machine = machine();
    Machine { command: machine.command.replace(" --resume", ""), ..machine }
}
