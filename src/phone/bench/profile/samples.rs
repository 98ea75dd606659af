//! What `perf script` prints: one line for each sample.
//!
//! Owns: reading it, and telling the kernel's samples from ours.

use std::collections::BTreeMap;

/// `perf script -F` with these fields gives lines that `Sample::read` reads.
pub const FIELDS: &str = "pid,period,ip,sym,dso";

/// One sample: where a processor was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample<'l> {
    pub pid: u32,
    /// Nanoseconds that it stands for.
    pub period: u64,
    pub address: u64,
    pub symbol: &'l str,
    /// File of the code; `[kernel.kallsyms]`, `[sctp]` (a module), `[vdso]`.
    pub file: &'l str,
}

impl<'l> Sample<'l> {
    /// `  25903    1000000      7f2fc4042d78 malloc (/usr/lib/x86_64-linux-gnu/libc.so.6)`
    #[must_use]
    pub fn read(line: &'l str) -> Option<Sample<'l>> {
        let (pid, rest) = word(line)?;
        let (period, rest) = word(rest)?;
        let (address, rest) = word(rest)?;
        // A symbol may have any brackets; a file's name begins with one of these.
        let at = [" (/", " ([", " (inlined"].iter().filter_map(|begin| rest.rfind(begin)).max()?;
        let file = rest.get(at + 2..)?.trim_end().strip_suffix(')')?;
        Some(Sample {
            pid: pid.parse().ok()?,
            period: period.parse().ok()?,
            address: u64::from_str_radix(address, 16).ok()?,
            symbol: rest.get(..at)?.trim(),
            file: file.strip_suffix(" (deleted)").unwrap_or(file),
        })
    }

    /// Kernel and its modules: the upper half of the addresses.
    #[must_use]
    pub fn is_kernel(&self) -> bool {
        self.address >> 63 == 1
    }
}

fn word(text: &str) -> Option<(&str, &str)> {
    let text = text.trim_start();
    let end = text.find(' ')?;
    Some(text.split_at(end))
}

/// Sums of nanoseconds by name, the greatest first.
#[must_use]
pub fn greatest_first(sums: BTreeMap<String, u64>) -> Vec<(String, u64)> {
    let mut list: Vec<(String, u64)> = sums.into_iter().collect();
    list.sort_by(|a, z| z.1.cmp(&a.1).then_with(|| a.0.cmp(&z.0)));
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_perf_6_1_are_read() {
        let sample =
            Sample::read("  25903    1000000      7f2fc4042d78 malloc (/usr/lib/x86_64-linux-gnu/libc.so.6)").unwrap();
        assert_eq!((sample.pid, sample.period, sample.address), (25_903, 1_000_000, 0x7f2f_c404_2d78));
        assert_eq!((sample.symbol, sample.file), ("malloc", "/usr/lib/x86_64-linux-gnu/libc.so.6"));
        assert!(!sample.is_kernel());
        let kernel = Sample::read("  7  500500  ffffffff81a0b2c0 udp_sendmsg ([kernel.kallsyms])").unwrap();
        assert!(kernel.is_kernel() && kernel.symbol == "udp_sendmsg");
        assert!(Sample::read("  7  500500  ffffffffc04512c0 sctp_sendmsg ([sctp])").unwrap().is_kernel());
    }

    #[test]
    fn any_symbol_is_read() {
        let line =
            "1 2 55d0c8 <strowger::worker::Worker as core::ops::Drop>::drop (.llvm.1) (/a (b)/strowger (deleted))";
        let sample = Sample::read(line).unwrap();
        assert_eq!(sample.symbol, "<strowger::worker::Worker as core::ops::Drop>::drop (.llvm.1)");
        assert_eq!(sample.file, "/a (b)/strowger");
        assert_eq!(Sample::read("1 2 3 [unknown] ([unknown])").unwrap().symbol, "[unknown]");
        for line in ["", "1", "1 2 3", "1 2 zz f (/f)", "perf: no samples"] {
            assert_eq!(Sample::read(line), None, "{line}");
        }
    }

    #[test]
    fn the_greatest_come_first() {
        let sums = [("a", 1), ("b", 3), ("c", 3)].map(|(name, n)| (name.to_owned(), n));
        let names: Vec<String> = greatest_first(sums.into()).into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["b", "c", "a"]);
    }
}
