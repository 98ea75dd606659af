//! What `perf script` prints: for each sample a block of lines, where a processor was and from where that was called.
//!
//! Owns: reading it, telling the kernel's samples from ours, and by which way the kernel was entered.

use std::collections::BTreeMap;
use std::io::{self, BufRead};

/// `perf script -F` with these fields, for a record with call graphs, gives blocks that `Sample::read` reads.
pub const FIELDS: &str = "pid,period,ip,sym,dso";

/// One sample.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample<'l> {
    pub pid: u32,
    /// Nanoseconds that it stands for.
    pub period: u64,
    /// Where the processor was.
    pub at: Frame<'l>,
    /// From where that was called, the nearest first. True of the kernel only: our code keeps no frame pointers.
    pub callers: Vec<Frame<'l>>,
}

/// One function on the stack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame<'l> {
    pub address: u64,
    pub symbol: &'l str,
    /// File of the code; `[kernel.kallsyms]`, `[sctp]` (a module), `[vdso]`.
    pub file: &'l str,
}

/// Shows `see` all samples, one after the other.
///
/// # Errors
/// Of `from`.
pub fn read_all(from: impl BufRead, mut see: impl FnMut(&Sample<'_>)) -> io::Result<()> {
    let mut block = String::new();
    // An empty line ends a block; the output's end the last one.
    for line in from.split(b'\n').chain([Ok(Vec::new())]) {
        let line = line?;
        if !line.is_empty() {
            block += &String::from_utf8_lossy(&line);
            block.push('\n');
            continue;
        }
        if let Some(sample) = Sample::read(&block) {
            see(&sample);
        }
        block.clear();
    }
    Ok(())
}

impl<'l> Sample<'l> {
    /// `  25903    1000000 `, and a line for each frame.
    #[must_use]
    pub fn read(block: &'l str) -> Option<Sample<'l>> {
        let mut lines = block.lines();
        let mut head = lines.next()?.split_ascii_whitespace();
        let (pid, period) = (head.next()?.parse().ok()?, head.next()?.parse().ok()?);
        let mut frames = lines.filter_map(Frame::read);
        Some(Sample { pid, period, at: frames.next()?, callers: frames.collect() })
    }

    #[must_use]
    pub fn is_kernel(&self) -> bool {
        self.at.is_kernel()
    }

    /// The kernel's function. A timer's interrupt waits where interrupts are off, so what is done there is found at the end of it, in the
    /// lock that lets them on: such a lock's name tells little without its caller's.
    #[must_use]
    pub fn kernel_function(&self) -> String {
        match self.callers.first() {
            Some(caller) if self.at.symbol.starts_with("_raw_spin_unlock_irq") => {
                format!("{} < {}", self.at.symbol, caller.symbol)
            }
            _ => self.at.symbol.to_owned(),
        }
    }

    /// By which way the kernel was entered: a system call's name, an interrupt's or a fault's.
    #[must_use]
    pub fn way_in(&self) -> &'l str {
        let kernel = [&self.at].into_iter().chain(&self.callers).take_while(|frame| frame.is_kernel());
        let mut frames: Vec<&'l str> = kernel.map(|frame| frame.symbol).collect();
        frames.reverse();
        let without = |symbol: &'l str, begins: &[&str]| begins.iter().find_map(|begin| symbol.strip_prefix(begin));
        let interrupt = || without(frames.first()?, &["asm_sysvec_", "asm_exc_"]);
        let call = || frames.iter().find_map(|symbol| without(symbol, &["__x64_sys_", "__arm64_sys_"]));
        // That function may have made room for the one that it calls last.
        let inside = || {
            let mut inside = frames.iter().skip_while(|symbol| **symbol != "do_syscall_64").skip(1);
            without(inside.find(|symbol| **symbol != "x64_sys_call")?, &["__sys_", "ksys_", "do_"])
        };
        interrupt().or_else(call).or_else(inside).unwrap_or("entry and exit")
    }
}

impl<'l> Frame<'l> {
    /// `            7f2fc4042d78 malloc (/usr/lib/x86_64-linux-gnu/libc.so.6)`
    fn read(line: &'l str) -> Option<Frame<'l>> {
        let (address, rest) = line.trim_start().split_once(' ')?;
        // A symbol may have any brackets; a file's name begins with one of these.
        let at = [" (/", " ([", " (inlined"].iter().filter_map(|begin| rest.rfind(begin)).max()?;
        let file = rest.get(at + 2..)?.trim_end().strip_suffix(')')?;
        Some(Frame {
            address: u64::from_str_radix(address, 16).ok()?,
            symbol: rest.get(..at)?.trim(),
            file: file.strip_suffix(" (deleted)").unwrap_or(file),
        })
    }

    /// Kernel and its modules: the upper half of the addresses.
    fn is_kernel(&self) -> bool {
        self.address >> 63 == 1
    }
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

    /// perf 6.1 on Linux 6.18.
    const SCRIPT: &str = "\
28112    2004008 
\tffffffff82203249 _raw_spin_unlock_irqrestore ([kernel.kallsyms])
\tffffffff81e3513e sock_def_readable ([kernel.kallsyms])
\tffffffff82010ddb tcp_sendmsg ([kernel.kallsyms])
\tffffffff81e31462 vfs_writev ([kernel.kallsyms])
\tffffffff81e314b0 do_writev ([kernel.kallsyms])
\tffffffff821ef691 do_syscall_64 ([kernel.kallsyms])
\tffffffff81000130 entry_SYSCALL_64_after_hwframe ([kernel.kallsyms])
\t    7f2fc4042d78 __GI___writev (/usr/lib/x86_64-linux-gnu/libc.so.6)

    7     500500 
\t    7f2fc4042d78 malloc (/usr/lib/x86_64-linux-gnu/libc.so.6)
\t          1f4010 [unknown] ([unknown])

    7     500500 
";

    fn all(script: &str) -> Vec<(u32, u64, String)> {
        let mut all = Vec::new();
        let see = |sample: &Sample<'_>| all.push((sample.pid, sample.period, sample.at.symbol.to_owned()));
        read_all(script.as_bytes(), see).unwrap();
        all
    }

    #[test]
    fn blocks_of_perf_6_1_are_read() {
        let expected =
            [(28_112, 2_004_008, "_raw_spin_unlock_irqrestore".to_owned()), (7, 500_500, "malloc".to_owned())];
        assert_eq!(all(SCRIPT), expected, "and the one without a frame is none");
        assert_eq!(all(SCRIPT.trim_end()), expected, "whatever follows the last block");
        for script in ["", "1", "1 2", "1 2 \n\t3 zz", "1 2 \n\tzz f (/f)", "perf: no samples\n"] {
            assert_eq!(all(script), [], "{script}");
        }
    }

    #[test]
    fn a_lock_that_lets_interrupts_on_is_told_with_its_caller() {
        let block = SCRIPT.split("\n\n").next().unwrap();
        let sample = Sample::read(block).unwrap();
        assert!(sample.is_kernel());
        assert_eq!(sample.kernel_function(), "_raw_spin_unlock_irqrestore < sock_def_readable");
        assert_eq!(sample.way_in(), "writev");
    }

    #[test]
    fn the_way_into_the_kernel_is_named() {
        let way = |symbols: &[&str]| {
            let frames: String = symbols.iter().map(|symbol| format!("\tffffffff81000130 {symbol} ([k])\n")).collect();
            Sample::read(&format!("1 2 \n{frames}\t7f00 main (/strowger)\n")).unwrap().way_in().to_owned()
        };
        let call = ["do_syscall_64", "entry_SYSCALL_64_after_hwframe"];
        assert_eq!(way(&["udp_poll", "do_epoll_wait", "__x64_sys_epoll_wait", call[0], call[1]]), "epoll_wait");
        assert_eq!(way(&["udp_sendmsg", "__sys_sendmmsg", "x64_sys_call", call[0], call[1]]), "sendmmsg");
        assert_eq!(way(&["ksys_write", call[0], call[1]]), "write");
        assert_eq!(way(&["sctp_sendmsg", "__arm64_sys_sendmsg", "invoke_syscall", "el0_svc"]), "sendmsg");
        // An interrupt in the midst of a system call is a part of its time, one in our code stands for itself.
        assert_eq!(
            way(&["net_rx_action", "asm_sysvec_reschedule_ipi", "__x64_sys_recvfrom", call[0], call[1]]),
            "recvfrom"
        );
        assert_eq!(way(&["__schedule", "asm_sysvec_reschedule_ipi"]), "reschedule_ipi");
        assert_eq!(way(&["handle_mm_fault", "asm_exc_page_fault"]), "page_fault");
        for entry in [&call[..], &call[1..], &["syscall_exit_to_user_mode", call[0], call[1]], &["ret_from_fork"]] {
            assert_eq!(way(entry), "entry and exit");
        }
    }

    #[test]
    fn any_symbol_is_read() {
        let frame = "55d0c8 <strowger::worker::Worker as core::ops::Drop>::drop (.llvm.1) (/a (b)/strowger (deleted))";
        let frame = Frame::read(frame).unwrap();
        assert_eq!(frame.symbol, "<strowger::worker::Worker as core::ops::Drop>::drop (.llvm.1)");
        assert_eq!((frame.file, frame.address), ("/a (b)/strowger", 0x55_d0c8));
        assert_eq!(Frame::read("3 [unknown] ([unknown])").unwrap().symbol, "[unknown]");
        assert!(Frame::read("ffffffffc04512c0 sctp_sendmsg ([sctp])").unwrap().is_kernel());
    }

    #[test]
    fn the_greatest_come_first() {
        let sums = [("a", 1), ("b", 3), ("c", 3)].map(|(name, n)| (name.to_owned(), n));
        let names: Vec<String> = greatest_first(sums.into()).into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["b", "c", "a"]);
    }
}
