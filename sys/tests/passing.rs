//! Descriptors that travel over a pair of Unix sockets.

#![allow(clippy::disallowed_methods, reason = "tests measure time")]

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use sys::passing::{Wait, pair, receive, send, set_patience};

#[test]
fn a_descriptor_comes_with_its_message_and_is_the_receivers_own() {
    let (a, z) = pair().unwrap();
    let (mut inside, outside) = UnixStream::pair().unwrap();
    send(a.as_fd(), b"with", Some(outside.as_fd()), Wait::No).unwrap();
    send(a.as_fd(), b"without", None, Wait::No).unwrap();
    drop(outside);
    let mut buffer = [0; 16];
    let (length, passed) = receive(z.as_fd(), &mut buffer, Wait::No).unwrap();
    assert_eq!(&buffer[..length], b"with");
    let mut passed = File::from(passed.unwrap());
    passed.write_all(b"hello").unwrap();
    let mut heard = [0; 5];
    inside.read_exact(&mut heard).unwrap();
    assert_eq!(&heard, b"hello");
    let (length, none) = receive(z.as_fd(), &mut buffer, Wait::No).unwrap();
    assert_eq!((&buffer[..length], none.is_none()), (&b"without"[..], true));
    let flags = nix::fcntl::fcntl(&passed, nix::fcntl::FcntlArg::F_GETFD).unwrap();
    assert_eq!(flags, nix::libc::FD_CLOEXEC);
}

#[test]
fn who_does_not_wait_is_told_and_who_waits_is_told_in_time() {
    let (a, z) = pair().unwrap();
    let would_block = |result: std::io::Result<()>| result.unwrap_err().kind() == ErrorKind::WouldBlock;
    assert!(would_block(receive(z.as_fd(), &mut [0; 8], Wait::No).map(drop)));
    set_patience(z.as_fd(), Duration::from_millis(50)).unwrap();
    set_patience(a.as_fd(), Duration::from_millis(50)).unwrap();
    let passed = File::open("/dev/null").unwrap();
    let began = Instant::now();
    assert!(would_block(receive(z.as_fd(), &mut [0; 8], Wait::Yes).map(drop)));
    let sent = (0..1_000_000).find(|_| is_full(&a, &passed)).unwrap();
    assert!(sent > 100, "{sent}");
    assert!(would_block(send(a.as_fd(), b"one more", None, Wait::Yes)));
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(90) && took < Duration::from_secs(20), "{took:?}");
    drop(z);
    // ECONNRESET first, for what was not read; then EPIPE.
    assert!(send(a.as_fd(), b"x", None, Wait::No).is_err());
    assert_eq!(send(a.as_fd(), b"x", None, Wait::No).unwrap_err().kind(), ErrorKind::BrokenPipe);
}

fn is_full(a: &impl AsFd, passed: &impl AsFd) -> bool {
    match send(a.as_fd(), &[7; 32], Some(passed.as_fd()), Wait::No) {
        Ok(()) => false,
        Err(error) => {
            // Or our limit of descriptors on their way.
            let toomany = error.raw_os_error() == Some(nix::libc::ETOOMANYREFS);
            assert!(toomany || error.kind() == ErrorKind::WouldBlock, "{error}");
            true
        }
    }
}
