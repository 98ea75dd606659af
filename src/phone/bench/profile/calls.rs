//! What `strace -c` prints: how often each system call was made.

/// One kind of system call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counted {
    pub name: String,
    pub calls: u64,
    /// Of them returned an error, such as EAGAIN.
    pub errors: u64,
}

/// The rows of the summary, as strace orders them; nothing when this is no summary.
#[must_use]
pub fn read(summary: &str) -> Vec<Counted> {
    // "% time, seconds, usecs/call, calls, errors (or nothing), syscall"
    let row = |line: &str| {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let (calls, errors, name) = match words.as_slice() {
            [_, _, _, calls, name] => (calls, "0", name),
            [_, _, _, calls, errors, name] => (calls, *errors, name),
            _ => return None,
        };
        let counted = Counted { name: (*name).to_owned(), calls: calls.parse().ok()?, errors: errors.parse().ok()? };
        (counted.name != "total").then_some(counted)
    };
    summary.lines().filter_map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// strace 6.1 on a daemon with UDP phones.
    const SUMMARY: &str = "\
% time     seconds  usecs/call     calls    errors syscall
------ ----------- ----------- --------- --------- ----------------
 51.04    0.048123          11      4221      2101 recvmmsg
 40.36    0.038054          12      3010           sendmmsg
  8.60    0.008109           4      1702         3 epoll_pwait2
------ ----------- ----------- --------- --------- ----------------
100.00    0.094286          10      8933      2104 total
";

    #[test]
    fn a_summary_of_strace_6_1_is_read() {
        let counted = |name: &str, calls, errors| Counted { name: name.to_owned(), calls, errors };
        let expected =
            [counted("recvmmsg", 4_221, 2_101), counted("sendmmsg", 3_010, 0), counted("epoll_pwait2", 1_702, 3)];
        assert_eq!(read(SUMMARY), expected);
        assert_eq!(read("strace: Process 7 attached\nstrace: Process 7 detached\n"), []);
    }
}
