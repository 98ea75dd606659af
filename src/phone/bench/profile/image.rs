//! Where a program lies in memory: proc(5), `/proc/PID/maps`.
//!
//! Owns: from an address that perf says to the one that the program was linked at, which its line tables know.

use std::fs;
use std::ops::Range;
use std::path::Path;

/// The mapped parts of a program, the same in a process and in all its forks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Image(Vec<Part>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Part {
    memory: Range<u64>,
    /// Of its first byte in the file.
    offset: u64,
    /// May it be executed? What fills its first page in the file is in the part before it, too.
    is_code: bool,
}

impl Image {
    /// Empty: there is no such process, or it runs another program.
    #[must_use]
    pub fn of(pid: u32, program: &Path) -> Image {
        let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default();
        Image::read(&maps, &program.to_string_lossy())
    }

    /// `55d0c8200000-55d0c83f1000 r-xp 001f0000 fe:00 1234    /usr/local/bin/strowger`
    fn read(maps: &str, program: &str) -> Image {
        let part = |line: &str| {
            let mut words = line.strip_suffix(program)?.split_ascii_whitespace();
            let (start, end) = words.next()?.split_once('-')?;
            let number = |text| u64::from_str_radix(text, 16).ok();
            let (rights, offset) = (words.next()?, words.next()?);
            Some(Part { memory: number(start)?..number(end)?, offset: number(offset)?, is_code: rights.contains('x') })
        };
        Image(maps.lines().filter_map(part).collect())
    }

    /// `address`: in the process, or, as perf 6.1 says of a program with its callers, in the file.
    #[must_use]
    pub fn linked(&self, address: u64) -> Option<u64> {
        let base = self.0.first()?.memory.start;
        let in_file = |part: &&Part| {
            part.is_code && (part.offset..part.offset + (part.memory.end - part.memory.start)).contains(&address)
        };
        let in_memory = match self.0.iter().any(|part| part.memory.contains(&address)) {
            true => address,
            false => self.0.iter().find(in_file).map(|part| part.memory.start + (address - part.offset))?,
        };
        in_memory.checked_sub(base)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAPS: &str = "\
55d0c8000000-55d0c81f0000 r--p 00000000 fe:00 7 /bin/strowger
55d0c81f1000-55d0c83f1000 r-xp 001f0000 fe:00 7 /bin/strowger
7f2fc4000000-7f2fc4200000 r-xp 00028000 fe:00 9 /lib/libc.so.6
";

    #[test]
    fn an_address_in_memory_and_one_in_the_file_are_found() {
        let image = Image::read(MAPS, "/bin/strowger");
        assert_eq!(image.0.len(), 2, "and nothing of libc");
        assert_eq!(image.linked(0x55d0_c81f_1010), Some(0x1f_1010));
        assert_eq!(image.linked(0x1f_0010), Some(0x1f_1010), "the linker left a page between them");
        assert_eq!(image.linked(0x10), None, "no code is there");
        assert_eq!(image.linked(0x7f2f_c400_0000), None);
        assert_eq!(Image::read(MAPS, "/bin/other").linked(0x1f_0010), None);
    }
}
