//! Memory that several processes share, and locks that outlive their owner.
//!
//! Owns: the one shared mapping and the robust mutexes in it. Never knows what lies there, beyond that it is plain:
//! any bytes are a valid value. Sizes first ([`Plan`]), then one `mmap(2)` ([`Mapping`]); pages are zero and cost nothing until
//! they are touched; the mapping is inherited by `fork(2)` and lives as long as a process that has it.

use std::cell::{Cell, UnsafeCell};
use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::mem::{align_of, offset_of, size_of};
use std::ops::{Deref, DerefMut};
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

/// A type of which any bytes are a valid value, so that a dead process cannot leave an invalid one, and zero-filled memory
/// holds a valid one.
pub trait Plain: zerocopy::FromBytes + 'static {}

impl<T: zerocopy::FromBytes + 'static> Plain for T {}

/// What a lock needs from its value: the way back from any half-made change.
pub trait Rebuild {
    /// Puts a value right whose last owner died while holding the lock. Called with the lock held, before anybody else can see
    /// the value; must give a consistent value from any bytes, and must not take a lock. When the process dies in here, the next
    /// owner calls it again.
    fn rebuild(&mut self);
}

/// Arrays and locks begin on a cache line of their own.
const CACHE_LINE: usize = 64;
/// A mapping begins at a page, so this is the largest alignment an element can ask for.
const PAGE: usize = 4096;
/// The smallest of x86-64 and of ARM with pages of 4 KiB; with others `Mapping::ask_for_huge_pages` has no effect.
const HUGE_PAGE: usize = 2 << 20;

/// Tells plans apart, so that a span cannot be used with another plan's mapping.
static PLANS: AtomicU64 = AtomicU64::new(1);

/// What a mapping will hold: sizes are collected first, memory comes with [`Plan::map`].
pub struct Plan {
    id: u64,
    /// None: more than the address space.
    bytes: Option<usize>,
}

/// Where `n` values lie in the mapping of the plan that gave this span.
pub struct Span<T> {
    plan: u64,
    offset: usize,
    n: usize,
    of: PhantomData<fn() -> T>,
}

impl<T> Clone for Span<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Span<T> {}

impl<T> Span<T> {
    /// Number of values.
    #[must_use]
    pub fn len(&self) -> usize {
        self.n
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.n == 0
    }
}

impl Default for Plan {
    fn default() -> Self {
        Plan::new()
    }
}

impl Plan {
    #[must_use]
    pub fn new() -> Plan {
        Plan { id: PLANS.fetch_add(1, Ordering::Relaxed), bytes: Some(0) }
    }

    /// Room for `n` values that processes share without a lock: atomics, or what is only read.
    pub fn array<T: Plain + Sync>(&mut self, n: usize) -> Span<T> {
        self.place(n)
    }

    /// Room for `n` values, each behind a lock of its own.
    pub fn locks<T: Plain + Send + Rebuild>(&mut self, n: usize) -> Span<Locked<T>> {
        self.place(n)
    }

    /// Bytes that the mapping can touch in all; `usize::MAX` when they cannot even be addressed.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes.unwrap_or(usize::MAX)
    }

    /// Maps it: `mmap(2)`, shared, anonymous, zero-filled, without reserving swap, from an address on where a huge page may begin. No page
    /// is touched.
    ///
    /// # Errors
    /// `OutOfMemory` when the plan is larger than the address space; else what `mmap(2)` says.
    pub fn map(self) -> io::Result<Mapping> {
        let bytes = self.bytes.and_then(|bytes| bytes.max(1).checked_next_multiple_of(HUGE_PAGE));
        let bytes = bytes.ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Mapping { plan: self.id, base: map_shared(bytes)?, bytes })
    }

    fn place<T>(&mut self, n: usize) -> Span<T> {
        const { assert!(align_of::<T>() <= PAGE) };
        let at = self.bytes.and_then(|bytes| bytes.checked_next_multiple_of(CACHE_LINE.max(align_of::<T>())));
        self.bytes = at.and_then(|at| at.checked_add(n.checked_mul(size_of::<T>())?));
        // An overflowing plan gives no mapping, so the offset is never used.
        Span { plan: self.id, offset: at.unwrap_or(0), n, of: PhantomData }
    }
}

/// Memory for all processes, aligned for huge pages: the kernel itself aligns only where they are the rule.
fn map_shared(bytes: usize) -> io::Result<NonNull<u8>> {
    let room = bytes.checked_add(HUGE_PAGE).ok_or(io::ErrorKind::OutOfMemory)?;
    // Only addresses: what is left of them on both sides stops who runs over the end.
    let area = map_anonymous(room, libc::PROT_NONE, libc::MAP_PRIVATE)?;
    let begin = area.as_ptr().align_offset(HUGE_PAGE);
    // SAFETY: less than HUGE_PAGE, so within the area and `bytes` before its end.
    let aligned = unsafe { area.add(begin) };
    let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_FIXED;
    // SAFETY: takes the place of pages of the area, which nobody knows but us.
    let base = unsafe { libc::mmap(aligned.as_ptr().cast(), bytes, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0) };
    if base == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    Ok(aligned)
}

/// A fresh, zero-filled, page-aligned mapping of `bytes` (> 0) that nobody unmaps but its owner.
pub(crate) fn map_anonymous(bytes: usize, protection: libc::c_int, sharing: libc::c_int) -> io::Result<NonNull<u8>> {
    let flags = sharing | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: no address is asked for, so the kernel chooses one where nothing lies.
    let base = unsafe { libc::mmap(ptr::null_mut(), bytes, protection, flags, -1, 0) };
    if base == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    NonNull::new(base.cast()).ok_or_else(|| io::ErrorKind::OutOfMemory.into())
}

/// The shared memory itself. Never unmapped: references into it are `'static`, also in the children of this process.
pub struct Mapping {
    plan: u64,
    base: NonNull<u8>,
    bytes: usize,
}

impl Mapping {
    /// Asks for huge pages (`MADV_HUGEPAGE`, madvise(2)), for this process and those forked later. The kernel gives them when a page is
    /// first touched, if `/sys/kernel/mm/transparent_hugepage/shmem_enabled` is `advise` and it has any: then 2 MiB are touched at once.
    ///
    /// # Errors
    /// `InvalidInput`: this kernel has none.
    pub fn ask_for_huge_pages(&self) -> io::Result<()> {
        // SAFETY: the mapping is ours, whole, and never unmapped; how its pages are made does not change what is in them.
        match unsafe { libc::madvise(self.base.as_ptr().cast(), self.bytes, libc::MADV_HUGEPAGE) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// The values of `span`: all zero at first, and the same in every process forked later.
    ///
    /// # Panics
    /// When `span` comes from another plan.
    #[must_use]
    pub fn array<T: Plain + Sync>(&self, span: &Span<T>) -> &'static [T] {
        self.slice(span)
    }

    /// The locks of `span`, made ready at the first call. Call it before the first fork. Touches the pages that hold the mutexes
    /// and no other: a value that is larger than a page stays untouched.
    ///
    /// # Errors
    /// What `pthread_mutex_init(3)` says; `ResourceBusy` when another thread or process is making the same locks ready.
    ///
    /// # Panics
    /// When `span` comes from another plan.
    pub fn locks<T: Plain + Send + Rebuild>(&self, span: &Span<Locked<T>>) -> io::Result<&'static [Locked<T>]> {
        let locks = self.slice(span);
        let attributes = Attributes::new()?;
        for lock in locks {
            match lock.ready.compare_exchange(0, MAKING, Ordering::Acquire, Ordering::Acquire) {
                // SAFETY: the memory is valid, and we are the only one who makes this mutex: the flag went from 0 to MAKING.
                Ok(_) => unsafe { posix!(pthread_mutex_init(lock.mutex.get(), &raw const attributes.0))? },
                Err(READY) => continue,
                Err(_) => return Err(io::ErrorKind::ResourceBusy.into()),
            }
            lock.ready.store(READY, Ordering::Release);
        }
        Ok(locks)
    }

    fn slice<T>(&self, span: &Span<T>) -> &'static [T] {
        assert!(span.plan == self.plan, "a span of another plan");
        // SAFETY: the plan that made this span also sized this mapping (checked above), so offset and length lie within it, aligned
        // for T (the base is a page). Nobody unmaps it. `T` is plain or a `Locked` of something plain: zero bytes, or whatever a
        // process left, are a valid value; what is not behind a lock is `Sync`, and ranges of two spans never overlap.
        unsafe { std::slice::from_raw_parts(self.base.as_ptr().add(span.offset).cast(), span.n) }
    }
}

/// `ready` while its mutex is being initialised, and after that.
const MAKING: u32 = 1;
const READY: u32 = 2;

/// A value in shared memory behind a robust process-shared mutex (`pthread_mutexattr_setrobust(3)`). Exists in a [`Mapping`]
/// only, never on a stack: a value may be megabytes.
#[repr(C, align(64))]
pub struct Locked<T> {
    mutex: UnsafeCell<libc::pthread_mutex_t>,
    ready: AtomicU32,
    value: UnsafeCell<T>,
}

// The mutex and its flag share a line, so that making a lock touches one page.
const _: () = assert!(offset_of!(Locked<u8>, ready) + size_of::<AtomicU32>() <= CACHE_LINE);

// SAFETY: the mutex hands the value to one thread at a time, so a value that may move between threads may be reached from all.
unsafe impl<T: Send> Sync for Locked<T> {}

thread_local! {
    /// Guards alive in this thread: a process that holds one must not fork, or both copies would own the value.
    static HELD: Cell<usize> = const { Cell::new(0) };
}

/// Does this thread hold a lock of a mapping?
pub(crate) fn holds_a_lock() -> bool {
    HELD.get() > 0
}

impl<T: Plain + Rebuild> Locked<T> {
    /// Waits for the lock. When its last owner died holding it, the value is rebuilt first, and the guard says so.
    ///
    /// # Panics
    /// When this thread already holds the lock (a mistake in our code that would otherwise hang), or the mutex was overwritten.
    pub fn lock(&self) -> Guard<'_, T> {
        // SAFETY: `Mapping::locks` initialised the mutex before it gave out this reference, and it never moves.
        self.guard(unsafe { libc::pthread_mutex_lock(self.mutex.get()) })
    }

    /// As [`Locked::lock`], but never waits: `None` while somebody (this thread too) holds it. For a process that must go on even
    /// when the holder was stopped.
    ///
    /// # Panics
    /// When the mutex was overwritten.
    pub fn try_lock(&self) -> Option<Guard<'_, T>> {
        // SAFETY: as in `lock`.
        match unsafe { libc::pthread_mutex_trylock(self.mutex.get()) } {
            libc::EBUSY => None,
            locked => Some(self.guard(locked)),
        }
    }

    /// As [`Locked::lock`], but waits no longer than this: `None` when somebody held it all the time.
    ///
    /// # Panics
    /// As [`Locked::lock`].
    pub fn lock_within(&self, patience: Duration) -> Option<Guard<'_, T>> {
        if let Some(guard) = self.try_lock() {
            return Some(guard);
        }
        let mut until = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: writes one struct that lives in this frame. The clock is the one that the call below measures in.
        unsafe { libc::clock_gettime(libc::CLOCK_REALTIME, &raw mut until) };
        let nanos = until.tv_nsec + libc::c_long::from(patience.subsec_nanos().cast_signed());
        until.tv_sec += libc::time_t::try_from(patience.as_secs()).unwrap_or(0) + nanos / 1_000_000_000;
        until.tv_nsec = nanos % 1_000_000_000;
        // SAFETY: as in `lock`; the kernel reads one struct that lives in this frame.
        match unsafe { libc::pthread_mutex_timedlock(self.mutex.get(), &raw const until) } {
            libc::ETIMEDOUT => None,
            locked => Some(self.guard(locked)),
        }
    }

    /// What the mutex said: it is ours, or its last owner died, or it is broken.
    fn guard(&self, locked: i32) -> Guard<'_, T> {
        match locked {
            0 => Guard::new(self, false),
            libc::EOWNERDEAD => {
                // The guard comes first: should `rebuild` panic, dropping it aborts this process, and the next owner tries.
                let mut guard = Guard::new(self, true);
                guard.rebuild();
                // SAFETY: as in `lock`, and this thread owns the mutex.
                let consistent = unsafe { posix!(pthread_mutex_consistent(self.mutex.get())) };
                if let Err(e) = consistent {
                    panic!("shared lock cannot be made consistent: {e}");
                }
                guard
            }
            error => panic!("shared lock: {}", io::Error::from_raw_os_error(error)),
        }
    }
}

/// The right to read and change a locked value, until it is dropped. Dropped while its thread unwinds, it aborts the process:
/// a half-made change must go the way of the dead owner, where the value is rebuilt.
pub struct Guard<'a, T> {
    lock: &'a Locked<T>,
    recovered: bool,
    /// A mutex is unlocked by the thread that locked it.
    not_send: PhantomData<*mut ()>,
}

impl<'a, T> Guard<'a, T> {
    fn new(lock: &'a Locked<T>, recovered: bool) -> Self {
        HELD.set(HELD.get() + 1);
        Guard { lock, recovered, not_send: PhantomData }
    }

    /// True when the last owner died with the lock, and the value was rebuilt a moment ago.
    #[must_use]
    pub fn recovered(&self) -> bool {
        self.recovered
    }
}

impl<T> Deref for Guard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: the mutex is ours, so nobody else has a reference; the bytes are a valid T because T is plain.
        unsafe { &*self.lock.value.get() }
    }
}

impl<T> DerefMut for Guard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as in `deref`, and `self` is borrowed for writing.
        unsafe { &mut *self.lock.value.get() }
    }
}

impl<T> Drop for Guard<'_, T> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            std::process::abort();
        }
        HELD.set(HELD.get() - 1);
        // SAFETY: this thread locked the mutex (a guard cannot change threads), and `Mapping::locks` initialised it.
        let unlocked = unsafe { posix!(pthread_mutex_unlock(self.lock.mutex.get())) };
        if unlocked.is_err() {
            std::process::abort();
        }
    }
}

impl<T: fmt::Debug> fmt::Debug for Guard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

/// Robust, shared between processes, and an error instead of a hang when a thread locks twice.
struct Attributes(libc::pthread_mutexattr_t);

impl Attributes {
    fn new() -> io::Result<Attributes> {
        let mut attributes = std::mem::MaybeUninit::uninit();
        // SAFETY: `pthread_mutexattr_init(3)` writes the value it is given room for.
        unsafe { posix!(pthread_mutexattr_init(attributes.as_mut_ptr()))? };
        // SAFETY: initialised by the call above, which did not fail.
        let mut attributes = Attributes(unsafe { attributes.assume_init() });
        let raw = &raw mut attributes.0;
        // SAFETY: all three change initialised attributes that live in this frame.
        unsafe {
            posix!(pthread_mutexattr_setpshared(raw, libc::PTHREAD_PROCESS_SHARED))?;
            posix!(pthread_mutexattr_setrobust(raw, libc::PTHREAD_MUTEX_ROBUST))?;
            posix!(pthread_mutexattr_settype(raw, libc::PTHREAD_MUTEX_ERRORCHECK))?;
        }
        Ok(attributes)
    }
}

impl Drop for Attributes {
    fn drop(&mut self) {
        // SAFETY: initialised in `new`, destroyed once, not used again.
        unsafe { libc::pthread_mutexattr_destroy(&raw mut self.0) };
    }
}
