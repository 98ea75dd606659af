//! A standard error that nobody reads.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::{UnixDatagram, UnixStream};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::unistd::{dup2_stderr, getuid};
use sys::log_descriptor::Unblocked;
use sys::process::drop_privileges;

use crate::rig::Test;
use crate::tests;

pub const TESTS: &[Test] = tests![
    a_full_pipe_as_standard_error_is_would_block,
    a_pipe_that_may_not_be_opened_again_still_never_blocks,
    a_full_unix_socket_is_would_block,
    a_file_is_written_where_its_offset_is,
    a_pipe_without_reader_is_broken_and_no_signal,
];

const LINE: [u8; 100] = [b'x'; 100];

/// Writes lines until one is refused; returns how many bytes were taken.
fn fill(log: &mut Unblocked) -> usize {
    let mut taken = 0;
    loop {
        match log.write(&LINE) {
            Ok(n) => taken += n,
            Err(e) => {
                assert_eq!(e.kind(), io::ErrorKind::WouldBlock, "{e}");
                return taken;
            }
        }
    }
}

fn pipe() -> (File, File) {
    let (reader, writer) = io::pipe().unwrap();
    (File::from(std::os::fd::OwnedFd::from(reader)), File::from(std::os::fd::OwnedFd::from(writer)))
}

fn a_full_pipe_as_standard_error_is_would_block() {
    let (mut reader, writer) = pipe();
    dup2_stderr(&writer).unwrap();
    let mut log = Unblocked::stderr().unwrap();
    assert!(fill(&mut log) >= 4096);
    let flags = OFlag::from_bits_retain(fcntl(&writer, FcntlArg::F_GETFL).unwrap());
    assert!(!flags.contains(OFlag::O_NONBLOCK), "descriptor 2 itself stays as it was");
    let mut some = [0; 8192];
    assert!(reader.read(&mut some).unwrap() > 0);
    assert!(fill(&mut log) > 0);
}

fn a_pipe_that_may_not_be_opened_again_still_never_blocks() {
    if !getuid().is_root() {
        println!("skipped: not root");
        return;
    }
    let (mut reader, writer) = pipe();
    drop_privileges("nobody").unwrap();
    let mut log = Unblocked::of(writer.as_fd()).unwrap();
    assert!(fill(&mut log) >= 4096);
    let mut some = [0; 8192];
    assert!(reader.read(&mut some).unwrap() > 0);
    assert!(fill(&mut log) > 0);
}

fn a_full_unix_socket_is_would_block() {
    let (mut reader, writer) = UnixStream::pair().unwrap();
    let mut log = Unblocked::of(writer.as_fd()).unwrap();
    assert!(fill(&mut log) >= 4096);
    let mut some = vec![0; 1 << 20];
    assert!(reader.read(&mut some).unwrap() > 0);
    assert!(fill(&mut log) > 0);
    // systemd's journal without a stream, syslog: datagrams.
    let (_reader, writer) = UnixDatagram::pair().unwrap();
    assert!(fill(&mut Unblocked::of(writer.as_fd()).unwrap()) >= 1000);
}

fn a_file_is_written_where_its_offset_is() {
    let path = std::env::temp_dir().join(format!("strowger-sys-log-{}", std::process::id()));
    let mut file = OpenOptions::new().create_new(true).read(true).write(true).open(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    file.write_all(b"before ").unwrap();
    Unblocked::of(file.as_fd()).unwrap().write_all(b"log ").unwrap();
    file.write_all(b"after").unwrap();
    let mut text = String::new();
    io::Seek::rewind(&mut file).unwrap();
    file.read_to_string(&mut text).unwrap();
    assert_eq!(text, "before log after");
}

fn a_pipe_without_reader_is_broken_and_no_signal() {
    let (reader, writer) = pipe();
    let mut log = Unblocked::of(writer.as_fd()).unwrap();
    drop(reader);
    assert_eq!(log.write(b"x").unwrap_err().kind(), io::ErrorKind::BrokenPipe);
}
