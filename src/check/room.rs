//! How much memory there is for us: the machine's, or less where a control group limits it (cgroups(7), v1 and v2).
//!
//! Owns: reading both. What cannot be read limits nothing.

use std::fs;
use std::path::{Path, PathBuf};

/// The memory that this process may use at most.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Room {
    machine: u64,
    /// The tightest limit on the way up from our group, and where it is written.
    group: Option<(u64, PathBuf)>,
}

impl Room {
    /// Reads /proc and /sys.
    #[must_use]
    pub fn of_this_machine() -> Room {
        Room::under(Path::new("/"))
    }

    /// The same below another root, for tests.
    fn under(root: &Path) -> Room {
        let read = |path: &str| fs::read_to_string(root.join(path)).unwrap_or_default();
        let kilobytes = read("proc/meminfo").lines().find_map(|line| {
            let number = line.strip_prefix("MemTotal:")?.trim().strip_suffix("kB")?;
            number.trim().parse::<u64>().ok()
        });
        let machine = kilobytes.map_or(u64::MAX, |kilobytes| kilobytes.saturating_mul(1_024));
        let groups = read("proc/self/cgroup");
        let limits = groups.lines().flat_map(|line| limits(root, line));
        let group = limits.min_by_key(|(bytes, _)| *bytes).filter(|(bytes, _)| *bytes < machine);
        Room { machine, group }
    }

    /// Bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.group.as_ref().map_or(self.machine, |(bytes, _)| *bytes)
    }

    /// Who sets the limit, for people.
    #[must_use]
    pub fn whose(&self) -> String {
        match &self.group {
            Some((_, path)) => format!("this control group ({})", path.display()),
            None => "this machine".to_string(),
        }
    }
}

/// All limits that a line of /proc/self/cgroup (`ID:CONTROLLERS:PATH`) leads to: of our group and of those above it. In a
/// container the path may be the host's: then only the upper ends of it exist here.
fn limits(root: &Path, line: &str) -> Vec<(u64, PathBuf)> {
    let mut parts = line.splitn(3, ':');
    let (Some(_), Some(controllers), Some(group)) = (parts.next(), parts.next(), parts.next()) else {
        return Vec::new();
    };
    let (mounts, file): (&[&str], _) = match controllers {
        "" => (&["sys/fs/cgroup", "sys/fs/cgroup/unified"], "memory.max"),
        v1 if v1.split(',').any(|controller| controller == "memory") => {
            (&["sys/fs/cgroup/memory"], "memory.limit_in_bytes")
        }
        _ => return Vec::new(),
    };
    let above = || Path::new(group.trim_start_matches('/')).ancestors();
    let files = mounts.iter().flat_map(|mount| above().map(move |group| root.join(mount).join(group).join(file)));
    // "max" (v2) is no number, and v1's no limit is a number larger than any machine.
    files.filter_map(|path| Some((fs::read_to_string(&path).ok()?.trim().parse().ok()?, path))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A machine of 4 GiB in a directory, with the given files.
    fn machine(name: &str, files: &[(&str, &str)]) -> Room {
        let root = std::env::temp_dir().join(format!("strowger-room-{}-{name}", std::process::id()));
        let meminfo = ("proc/meminfo", "MemTotal:        4194304 kB\nMemFree:  1 kB\n");
        for (path, text) in files.iter().chain([&meminfo]) {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let room = Room::under(&root);
        fs::remove_dir_all(root).unwrap();
        room
    }

    #[test]
    fn without_groups_the_machine_is_the_limit() {
        assert_eq!(machine("bare", &[]).bytes(), 4 << 30);
    }

    #[test]
    fn a_version_2_group_above_ours_limits_us() {
        let files = [
            ("proc/self/cgroup", "0::/system.slice/strowger.service\n"),
            ("sys/fs/cgroup/system.slice/memory.max", "1073741824\n"),
            ("sys/fs/cgroup/system.slice/strowger.service/memory.max", "max\n"),
        ];
        let room = machine("v2", &files);
        assert_eq!(room.bytes(), 1 << 30);
        assert!(room.whose().ends_with("system.slice/memory.max)"), "{}", room.whose());
    }

    #[test]
    fn a_version_1_limit_counts_and_its_no_limit_does_not() {
        let line = ("proc/self/cgroup", "4:cpu,memory:/docker/0123\n3:cpuset:/\n");
        let limited = [line, ("sys/fs/cgroup/memory/memory.limit_in_bytes", "536870912\n")];
        assert_eq!(machine("v1", &limited).bytes(), 512 << 20);
        let unlimited = [line, ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n")];
        assert_eq!(machine("v1-none", &unlimited).bytes(), 4 << 30);
    }

    #[test]
    fn more_memory_than_there_is_is_a_mistake_that_names_the_keys() {
        let room = machine("refuse", &[]);
        assert!(room.refuses(4 << 30).is_none());
        let line = room.refuses(5 << 30).unwrap().to_string();
        assert!(line.starts_with("memory = 5120 MiB: at most the 4096 MiB of this machine"), "{line}");
    }
}
