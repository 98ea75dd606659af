//! Processes: fork, death with the parent, limits, users.
//!
//! Owns: what `nix` offers as unsafe only, with the condition that makes it safe checked. Never decides when to fork or whom to
//! run as; waiting for children and signals are `nix`'s. Design §2.

use std::ffi::{CString, c_char};
use std::fs;
use std::io;
use std::mem::MaybeUninit;
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::time::Duration;

use crate::memory;

/// Who we are after [`fork`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fork {
    /// The process that forked; `child` is the new one's process id.
    Parent { child: i32 },
    /// The new process.
    Child,
}

/// `fork(2)`, refused when that would not be sound: in a process with more than one thread the child could do nothing but
/// async-signal-safe calls, and with a lock of a [`memory::Mapping`] held both processes would own its value.
///
/// # Errors
/// `Unsupported` with more than one thread; `Deadlock` when this thread holds a lock; what reading `/proc/self/status` or
/// `fork(2)` says.
pub fn fork() -> io::Result<Fork> {
    let threads = threads()?;
    if threads != 1 {
        return Err(io::Error::new(io::ErrorKind::Unsupported, format!("fork with {threads} threads")));
    }
    if memory::holds_a_lock() {
        return Err(io::Error::new(io::ErrorKind::Deadlock, "fork with a shared lock held"));
    }
    // SAFETY: this is the only thread (just counted, and nobody else could have started one since), so the child is a complete
    // copy in which no lock is held by a thread that does not exist there; no guard of shared memory is duplicated (checked).
    match unsafe { syscall!(fork())? } {
        0 => Ok(Fork::Child),
        child => Ok(Fork::Parent { child }),
    }
}

/// Threads of this process.
fn threads() -> io::Result<usize> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("Threads:"));
    line.and_then(|n| n.trim().parse().ok())
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "/proc/self/status without Threads"))
}

/// Has the kernel send SIGKILL to this process when the parent's thread that forked it ends (`prctl(2)`, PR_SET_PDEATHSIG).
/// Changing the user forgets it again: call it after [`drop_privileges`].
///
/// # Errors
/// `NotFound` when `expected_parent` is not the parent (any more): it died before this call, so nobody would kill us.
pub fn die_with_parent(expected_parent: i32) -> io::Result<()> {
    // SAFETY: the option takes one integer and no pointer.
    unsafe { syscall!(prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as libc::c_ulong))? };
    // SAFETY: takes nothing and cannot fail.
    if unsafe { libc::getppid() } != expected_parent {
        return Err(io::Error::new(io::ErrorKind::NotFound, "the parent process is gone"));
    }
    Ok(())
}

/// Has the kernel send SIGTERM to the process that `command` starts when the thread that starts it ends, in whatever way
/// (`prctl(2)`, PR_SET_PDEATHSIG): a process that is killed cannot take along what it started.
pub fn end_with_us(command: &mut Command) {
    let us = std::process::id();
    let ask = move || {
        // SAFETY: the option takes one integer and no pointer.
        unsafe { syscall!(prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM as libc::c_ulong))? };
        // SAFETY: takes nothing and cannot fail.
        let parent = unsafe { libc::getppid() };
        // Else the thread ended before the kernel knew, and nobody would send anything.
        if u32::try_from(parent) == Ok(us) { Ok(()) } else { Err(io::ErrorKind::NotFound.into()) }
    };
    // SAFETY: between fork and exec this makes two system calls, both async-signal-safe, and neither allocates nor locks.
    unsafe { command.pre_exec(ask) };
}

/// Raises the limit of open descriptors (RLIMIT_NOFILE) towards `n`: the soft limit up to the hard one, that one too where we
/// may, but not above fs.nr_open, which nobody may. Never lowers it. Returns the soft limit now in force.
///
/// # Errors
/// What `getrlimit(2)` or `setrlimit(2)` says; that the hard limit may not be raised is no error.
pub fn set_open_files(n: u64) -> io::Result<u64> {
    let mut limit = limit(libc::RLIMIT_NOFILE)?;
    let most = fs::read_to_string("/proc/sys/fs/nr_open").ok().and_then(|text| text.trim().parse().ok());
    let n = n.min(most.unwrap_or(n).max(limit.rlim_max));
    if limit.rlim_cur >= n {
        return Ok(limit.rlim_cur);
    }
    if limit.rlim_max < n {
        let higher = libc::rlimit { rlim_cur: n, rlim_max: n };
        // SAFETY: the kernel reads one struct that lives in this frame.
        if unsafe { syscall!(setrlimit(libc::RLIMIT_NOFILE, &raw const higher)) }.is_ok() {
            return Ok(n);
        }
    }
    limit.rlim_cur = n.min(limit.rlim_max);
    // SAFETY: as above.
    unsafe { syscall!(setrlimit(libc::RLIMIT_NOFILE, &raw const limit))? };
    Ok(limit.rlim_cur)
}

/// The nice value -20..=19 as RLIMIT_NICE counts it: 40..=1 (`getrlimit(2)`).
fn niceness(nice: i32) -> libc::rlim_t {
    (20 - nice.clamp(-20, 19)).unsigned_abs().into()
}

/// May this process take this nice value (`setpriority(2)`)? Ours is 0 or more, so from 0 on everybody may.
#[must_use]
pub fn may_be_nice(nice: i32) -> bool {
    /// `capabilities(7)`.
    const CAP_SYS_NICE: u64 = 1 << 23;
    let capable = || {
        let status = fs::read_to_string("/proc/self/status").ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
        Some(u64::from_str_radix(line.trim(), 16).ok()? & CAP_SYS_NICE != 0)
    };
    let limit = limit(libc::RLIMIT_NICE).map_or(0, |limit| limit.rlim_cur);
    nice >= 0 || limit >= niceness(nice) || capable().unwrap_or(false)
}

/// Raises the limit (RLIMIT_NICE) so that this process and its children may take this nice value, also as another user.
///
/// # Errors
/// What `setrlimit(2)` says: EPERM without CAP_SYS_RESOURCE.
pub fn allow_nice(nice: i32) -> io::Result<()> {
    let had = limit(libc::RLIMIT_NICE)?;
    let wanted = had.rlim_cur.max(niceness(nice));
    let raised = libc::rlimit { rlim_cur: wanted, rlim_max: had.rlim_max.max(wanted) };
    // SAFETY: the kernel reads one struct that lives in this frame.
    unsafe { syscall!(setrlimit(libc::RLIMIT_NICE, &raw const raised))? };
    Ok(())
}

/// Gives this process a nice value.
///
/// # Errors
/// What `setpriority(2)` says.
pub fn set_nice(nice: i32) -> io::Result<()> {
    // SAFETY: takes integers only.
    unsafe { syscall!(setpriority(libc::PRIO_PROCESS, 0, nice))? };
    Ok(())
}

fn limit(of: libc::__rlimit_resource_t) -> io::Result<libc::rlimit> {
    let mut limit = MaybeUninit::<libc::rlimit>::uninit();
    // SAFETY: the kernel fills the struct it is given room for.
    unsafe { syscall!(getrlimit(of, limit.as_mut_ptr()))? };
    // SAFETY: filled by the call above, which did not fail.
    Ok(unsafe { limit.assume_init() })
}

/// Becomes `user` for good: supplementary groups, group and user, real, effective and saved; then makes sure that there is no
/// way back to root. Does nothing when the process already is that user, and no other.
///
/// # Errors
/// `NotFound` for an unknown user; `InvalidInput` for a name with NUL or a user who is root; `PermissionDenied` when we may not,
/// or when a way back remained (then the process must not go on).
pub fn drop_privileges(user: &str) -> io::Result<()> {
    let name = CString::new(user)?;
    let account = account(&name)?;
    if account.user == 0 {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("user {user} is root")));
    }
    if users()? != [account.user; 3] {
        // SAFETY: the name ends with NUL and lives for the call.
        unsafe { syscall!(initgroups(name.as_ptr(), account.group))? };
        // SAFETY: these take integers only. glibc changes all threads of the process.
        unsafe {
            syscall!(setresgid(account.group, account.group, account.group))?;
            syscall!(setresuid(account.user, account.user, account.user))?;
        }
        if users()? != [account.user; 3] || groups()? != [account.group; 3] {
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, "user or group did not change"));
        }
    }
    // SAFETY: takes an integer only.
    if unsafe { syscall!(setuid(0)) }.is_ok() {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, "could become root again"));
    }
    Ok(())
}

struct Account {
    user: libc::uid_t,
    group: libc::gid_t,
}

fn account(name: &CString) -> io::Result<Account> {
    let mut entry = MaybeUninit::<libc::passwd>::uninit();
    let mut text = vec![0 as c_char; 16 * 1024];
    let mut found = std::ptr::null_mut();
    // SAFETY: name ends with NUL; entry, text (with its length) and found are ours for the call.
    unsafe { posix!(getpwnam_r(name.as_ptr(), entry.as_mut_ptr(), text.as_mut_ptr(), text.len(), &raw mut found))? };
    if found.is_null() {
        return Err(io::Error::new(io::ErrorKind::NotFound, format!("no user {}", name.to_string_lossy())));
    }
    // SAFETY: found is not null, so entry was filled. Its pointers go into `text`; only its integers are read.
    let entry = unsafe { entry.assume_init() };
    Ok(Account { user: entry.pw_uid, group: entry.pw_gid })
}

/// Real, effective and saved user.
fn users() -> io::Result<[libc::uid_t; 3]> {
    let mut ids = [0; 3];
    let [real, effective, saved] = &mut ids;
    // SAFETY: the kernel writes three integers that live in this frame.
    unsafe { syscall!(getresuid(real, effective, saved))? };
    Ok(ids)
}

/// Real, effective and saved group.
fn groups() -> io::Result<[libc::gid_t; 3]> {
    let mut ids = [0; 3];
    let [real, effective, saved] = &mut ids;
    // SAFETY: the kernel writes three integers that live in this frame.
    unsafe { syscall!(getresgid(real, effective, saved))? };
    Ok(ids)
}

/// Processor time, user and kernel, that process `pid` (0: this one) has used in all its threads.
///
/// # Errors
/// What `clock_getcpuclockid(3)` says: ESRCH for a process that is gone.
pub fn cpu_time_of(pid: i32) -> io::Result<Duration> {
    let mut clock = 0;
    // SAFETY: writes one integer that lives in this frame.
    unsafe { posix!(clock_getcpuclockid(pid, &raw mut clock))? };
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: writes one struct that lives in this frame.
    unsafe { syscall!(clock_gettime(clock, &raw mut time))? };
    Ok(Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0)))
}
