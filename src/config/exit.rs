//! Exit statuses of every command, after sysexits(3head).
//!
//! Owns: the numbers. `--help` and the README repeat them.

/// Done.
pub const OK: u8 = 0;
/// The configuration is wrong (`check`, `serve`), or a call of the `demo` failed.
pub const WRONG: u8 = 1;
/// The command line is wrong (clap's own).
pub const USAGE: u8 = 2;
/// `status`: no daemon answers on the admin address; `bench profile`: perf or strace is missing or not permitted (EX_UNAVAILABLE).
pub const UNREACHABLE: u8 = 69;
/// `serve`: more than 10 processes died within 10 seconds (EX_SOFTWARE).
pub const DEATHS: u8 = 70;
/// The system refused a socket, memory, a process or a user (EX_OSERR).
pub const SYSTEM: u8 = 71;
