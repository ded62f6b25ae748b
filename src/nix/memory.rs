//! What memory there is: of this host, and of the control group that this process is in. Only reads.

use std::fs;
use std::path::Path;

/// What is available at this moment, bytes: to this host, and to the control groups that this process is in.
pub(super) fn available() -> Option<u64> {
    let host = amount(&fs::read_to_string("/proc/meminfo").ok()?, "MemAvailable:")?;
    let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let groups = own.lines().find_map(|line| line.strip_prefix("0::/"));
    let left = groups.into_iter().flat_map(|path| {
        Path::new("/sys/fs/cgroup").join(path).ancestors().filter_map(left_in).collect::<Vec<_>>()
    });
    left.chain([host]).min()
}

/// Swap that nobody uses, bytes.
pub(super) fn swap() -> u64 {
    fs::read_to_string("/proc/meminfo").ok().and_then(|text| amount(&text, "SwapFree:")).unwrap_or(0)
}

/// What a control group may still have (cgroups(7), memory controller v2); `None` where nothing bounds it.
fn left_in(group: &Path) -> Option<u64> {
    let read = |name: &str| fs::read_to_string(group.join(name)).ok()?.trim().parse::<u64>().ok();
    let most = read("memory.max").into_iter().chain(read("memory.high")).min()?;
    Some(most.saturating_sub(read("memory.current")?.saturating_sub(read_inactive(group))))
}

/// Files in memory that are dropped before anything else is.
fn read_inactive(group: &Path) -> u64 {
    let stat = fs::read_to_string(group.join("memory.stat")).unwrap_or_default();
    let line = stat.lines().find_map(|line| line.strip_prefix("inactive_file "));
    line.and_then(|bytes| bytes.trim().parse().ok()).unwrap_or(0)
}

/// An amount of `/proc/meminfo` (proc_meminfo(5)), bytes.
fn amount(meminfo: &str, name: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_of_memory_are_read_in_bytes() {
        let text = "MemTotal: 9 kB\nMemAvailable:    2048 kB\nBuffers: 1 kB\n";
        assert_eq!(amount(text, "MemAvailable:"), Some(2 << 20));
        assert_eq!(amount(text, "SwapTotal:"), None);
    }

    #[test]
    fn a_control_group_has_what_its_tighter_bound_leaves() {
        let folder = tempfile::tempdir().unwrap();
        let put = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
        put("memory.max", "max\n");
        put("memory.current", "3000\n");
        put("memory.stat", "anon 2000\ninactive_file 1000\n");
        assert_eq!(left_in(folder.path()), None, "not bounded");
        put("memory.max", "10000\n");
        put("memory.high", "9000\n");
        assert_eq!(left_in(folder.path()), Some(7000), "what only caches is not in the way");
        put("memory.current", "20000\n");
        assert_eq!(left_in(folder.path()), Some(0));
    }
}
