//! The reloadable settings (`config::Live`) on their way from the master to every process.
//!
//! Owns: two buffers of JSON text and a version. The master writes, everybody else reads when the version changed;
//! never a lock, so a process that died or hangs while reading holds nobody up.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering, fence};

use sys::memory::{Mapping, Plan, Span};
use zerocopy::FromBytes;

use crate::config::Live;

/// Bytes of JSON that one version may have. Touched only as far as it is written.
const BUFFER_BYTES: usize = 1 << 20;
const BUFFER_WORDS: usize = BUFFER_BYTES / size_of::<u64>();
/// A reader that meets a writer this often leaves it for its next turn.
const TRIES: usize = 8;

/// Version 0: nothing was published. Version `v` lies in buffer `v % 2`, so publishing `v + 1` disturbs no reader of
/// `v`.
#[derive(FromBytes)]
#[repr(C, align(64))]
pub struct Head {
    version: AtomicU64,
    bytes: [AtomicU64; 2],
}

pub struct Place {
    head: Span<Head>,
    words: Span<AtomicU64>,
}

/// Handle on the settings.
#[derive(Clone, Copy)]
pub struct Settings {
    head: &'static [Head],
    words: &'static [AtomicU64],
}

impl Settings {
    pub fn plan(plan: &mut Plan) -> Place {
        Place { head: plan.array(1), words: plan.array(2 * BUFFER_WORDS) }
    }

    /// # Errors
    /// None today; the same form as every part of `Shared`.
    pub fn take(mapping: &Mapping, place: &Place) -> io::Result<Settings> {
        Ok(Settings { head: mapping.array(&place.head), words: mapping.array(&place.words) })
    }

    /// Cheap: one load. Compare with the version of what you hold; 0 before the first `publish`.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.head.first().map_or(0, |head| head.version.load(Ordering::Acquire))
    }

    /// The master's alone: puts `live` where the next `read` finds it. Everything or nothing.
    ///
    /// # Errors
    /// `InvalidInput` when the text is longer than 1 MiB; then the former settings stay.
    pub fn publish(&self, live: &Live) -> io::Result<u64> {
        let text = serde_json::to_vec(live)?;
        let too_long = || io::Error::new(io::ErrorKind::InvalidInput, "the reloadable settings are longer than 1 MiB");
        let head = self.head.first().ok_or_else(too_long)?;
        let version = head.version.load(Ordering::Relaxed) + 1;
        let (buffer, length) = self.buffer(version).filter(|_| text.len() <= BUFFER_BYTES).ok_or_else(too_long)?;
        // A reader of two versions ago may still be in this buffer. Pairs with the fence in `read`: whoever meets one
        // of the words below also sees that its version is over.
        fence(Ordering::Release);
        for (word, bytes) in buffer.iter().zip(text.chunks(size_of::<u64>())) {
            let mut whole = [0; size_of::<u64>()];
            whole.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
            word.store(u64::from_ne_bytes(whole), Ordering::Relaxed);
        }
        length.store(text.len() as u64, Ordering::Relaxed);
        head.version.store(version, Ordering::Release);
        Ok(version)
    }

    /// The newest settings and their version; `None` before the first `publish`, or when the master published so often
    /// meanwhile that the caller should try again at its next turn.
    #[must_use]
    pub fn read(&self) -> Option<(u64, Live)> {
        (0..TRIES).find_map(|_| {
            let version = self.version();
            let text = self.text(version)?;
            // Pairs with the fence in `publish`: if a word was of a later version, the version has changed.
            fence(Ordering::Acquire);
            if self.head.first()?.version.load(Ordering::Relaxed) != version {
                return None;
            }
            serde_json::from_slice(&text).ok().map(|live| (version, live))
        })
    }

    fn text(&self, version: u64) -> Option<Vec<u8>> {
        if version == 0 {
            return None;
        }
        let (buffer, length) = self.buffer(version)?;
        let bytes = usize::try_from(length.load(Ordering::Relaxed)).unwrap_or(usize::MAX).min(BUFFER_BYTES);
        let words = buffer.iter().take(bytes.div_ceil(size_of::<u64>()));
        let mut text: Vec<u8> = words.flat_map(|word| word.load(Ordering::Relaxed).to_ne_bytes()).collect();
        text.truncate(bytes);
        Some(text)
    }

    fn buffer(&self, version: u64) -> Option<(&'static [AtomicU64], &'static AtomicU64)> {
        let which = usize::from(version % 2 == 1);
        let start = which * BUFFER_WORDS;
        Some((self.words.get(start..start + BUFFER_WORDS)?, self.head.first()?.bytes.get(which)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn settings() -> Settings {
        let mut plan = Plan::new();
        let place = Settings::plan(&mut plan);
        Settings::take(&plan.map().unwrap(), &place).unwrap()
    }

    fn live(domains: usize) -> Live {
        Live {
            domains: (0..domains).map(|i| format!("{i}.example.test")).collect(),
            ..Config::built_in().unwrap().live
        }
    }

    #[test]
    fn nothing_is_read_before_the_first_version() {
        assert!(settings().read().is_none());
    }

    #[test]
    fn every_version_is_read_as_it_was_published() {
        let settings = settings();
        for version in 1..=5 {
            assert_eq!(settings.publish(&live(version)).unwrap(), version as u64);
            let (read, live) = settings.read().unwrap();
            assert_eq!((read, live.domains.len()), (version as u64, version));
        }
    }

    #[test]
    fn settings_too_long_leave_the_former_ones() {
        let settings = settings();
        settings.publish(&live(1)).unwrap();
        assert!(settings.publish(&live(100_000)).is_err());
        assert_eq!(settings.read().unwrap().1.domains.len(), 1);
    }

    /// Many versions while others read: no reader ever sees a mixture of two.
    #[test]
    fn a_reader_never_meets_a_half_written_version() {
        let settings = settings();
        settings.publish(&live(1)).unwrap();
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| {
                while settings.version() < 400 {
                    if let Some((version, live)) = settings.read() {
                        assert_eq!(live.domains.len() as u64, (version - 1) % 7 + 1);
                    }
                }
            });
            for version in 2..=400 {
                settings.publish(&live((version - 1) % 7 + 1)).unwrap();
            }
            reader.join().unwrap();
        });
    }
}
