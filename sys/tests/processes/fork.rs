//! Fork, death with the parent, limits, users.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::WaitStatus;
use nix::unistd::{Pid, getgid, getpid, getppid, getuid, setuid};
use sys::memory::{Plan, Rebuild};
use sys::process;

use crate::rig::{Test, child, joined, pause, until, wait};
use crate::tests;

pub const TESTS: &[Test] = tests![
    fork_is_refused_while_a_second_thread_lives,
    fork_is_refused_while_a_shared_lock_is_held,
    a_child_dies_with_its_parent,
    a_child_whose_parent_is_gone_is_told,
    open_files_are_raised_and_never_lowered,
    privileges_are_dropped_for_good,
    an_unknown_user_and_root_are_refused,
    cpu_time_is_that_of_the_process_asked_for,
];

fn fork_is_refused_while_a_second_thread_lives() {
    let (stop, stopped) = mpsc::channel::<()>();
    let thread = std::thread::spawn(move || stopped.recv());
    let refused = process::fork().unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::Unsupported, "{refused}");
    stop.send(()).unwrap();
    thread.join().unwrap().unwrap();
    // The kernel counts a thread a moment longer than join waits for it.
    until("the thread is gone", || match process::fork() {
        Ok(process::Fork::Parent { child }) => {
            joined(child);
            true
        }
        Ok(process::Fork::Child) => std::process::exit(0),
        Err(_) => false,
    });
}

#[derive(zerocopy::FromBytes)]
struct Number(u64);

impl Rebuild for Number {
    fn rebuild(&mut self) {
        self.0 = 0;
    }
}

fn fork_is_refused_while_a_shared_lock_is_held() {
    let mut plan = Plan::new();
    let span = plan.locks::<Number>(1);
    let lock = &plan.map().unwrap().locks(&span).unwrap()[0];
    let guard = lock.lock();
    assert_eq!(process::fork().unwrap_err().kind(), io::ErrorKind::Deadlock);
    drop(guard);
    joined(child(|| drop(lock.lock())));
}

fn shared() -> &'static [AtomicU64] {
    let mut plan = Plan::new();
    let span = plan.array(8);
    plan.map().unwrap().array(&span)
}

fn a_child_dies_with_its_parent() {
    nix::sys::prctl::set_child_subreaper(true).unwrap();
    let flags = shared();
    let parent = child(|| {
        let me = getpid().as_raw();
        child(|| {
            process::die_with_parent(me).unwrap();
            flags[0].store(getpid().as_raw() as u64, Ordering::Release);
            pause(100_000);
        });
        pause(100_000);
    });
    until("the grandchild is ready", || flags[0].load(Ordering::Acquire) != 0);
    let grandchild = i32::try_from(flags[0].load(Ordering::Acquire)).unwrap();
    kill(Pid::from_raw(parent), Signal::SIGKILL).unwrap();
    wait(parent);
    assert!(matches!(wait(grandchild), WaitStatus::Signaled(_, Signal::SIGKILL, _)));
}

fn a_child_whose_parent_is_gone_is_told() {
    let other = getppid().as_raw();
    joined(child(|| {
        let error = process::die_with_parent(other).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }));
}

fn open_files_are_raised_and_never_lowered() {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, 64, hard).unwrap();
    assert_eq!(process::set_open_files(100).unwrap(), 100);
    assert_eq!(getrlimit(Resource::RLIMIT_NOFILE).unwrap(), (100, hard));
    assert_eq!(process::set_open_files(10).unwrap(), 100);
    assert_eq!(process::set_open_files(hard).unwrap(), hard);
    // More than fs.nr_open is for nobody: so much is granted where we may raise the hard limit, else what that allows.
    let granted = process::set_open_files(1 << 40).unwrap();
    let most: u64 = std::fs::read_to_string("/proc/sys/fs/nr_open").unwrap().trim().parse().unwrap();
    let most = most.max(hard);
    let may = setrlimit(Resource::RLIMIT_NOFILE, most, most).is_ok();
    assert_eq!(granted, if may { most } else { hard });
}

fn privileges_are_dropped_for_good() {
    if !getuid().is_root() {
        println!("skipped: not root");
        return;
    }
    process::drop_privileges("nobody").unwrap();
    assert!(!getuid().is_root());
    assert_ne!(getgid().as_raw(), 0);
    assert!(setuid(0.into()).is_err());
    assert!(!nix::unistd::getgroups().unwrap().iter().any(|g| g.as_raw() == 0));
    joined(child(|| assert!(!getuid().is_root())));
    // Again is nothing to do; another user is not ours to become.
    process::drop_privileges("nobody").unwrap();
    assert_eq!(process::drop_privileges("daemon").unwrap_err().kind(), io::ErrorKind::PermissionDenied);
}

fn an_unknown_user_and_root_are_refused() {
    assert_eq!(process::drop_privileges("no-such-user").unwrap_err().kind(), io::ErrorKind::NotFound);
    assert_eq!(process::drop_privileges("root").unwrap_err().kind(), io::ErrorKind::InvalidInput);
    assert_eq!(process::drop_privileges("no\0body").unwrap_err().kind(), io::ErrorKind::InvalidInput);
}

fn cpu_time_is_that_of_the_process_asked_for() {
    let busy = child(|| {
        loop {
            std::hint::spin_loop();
        }
    });
    until("the child used 50 ms", || process::cpu_time_of(busy).unwrap() > Duration::from_millis(50));
    assert!(process::cpu_time_of(0).unwrap() < process::cpu_time_of(busy).unwrap());
    kill(Pid::from_raw(busy), Signal::SIGKILL).unwrap();
    wait(busy);
    assert!(process::cpu_time_of(busy).is_err());
}
