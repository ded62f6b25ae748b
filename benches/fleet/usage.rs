//! What a process and everything that it starts cost: processor time by a cgroup of its own, memory by `/proc`.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

/// Follows a process and its children until it is dropped. Children that were there before do not count.
pub struct Usage {
    cgroup: PathBuf,
    parent: PathBuf,
    pid: u32,
}

/// Memory of the processes at one moment, bytes.
pub struct Memory {
    /// Resident memory of the process itself.
    pub controller: u64,
    /// Kept connections: `ssh` processes that the process started.
    pub connections: usize,
    /// Their memory, each shared page divided by those who share it (`Pss` of proc_pid_smaps(5)).
    pub shared_out: u64,
    /// Their resident memory, each shared page counted for everyone.
    pub resident: u64,
}

impl Usage {
    /// From now on.
    pub fn of(pid: u32) -> Result<Usage> {
        let parent = cgroup_of(pid)?;
        let cgroup = parent.join(format!("driftless-bench-{pid}"));
        fs::create_dir(&cgroup).with_context(|| format!("making {}", cgroup.display()))?;
        let usage = Usage { cgroup, parent, pid };
        fs::write(usage.cgroup.join("cgroup.procs"), pid.to_string()).context("moving the controller")?;
        Ok(usage)
    }

    /// Processor time of all of them so far, user and system (`usage_usec` of cpu.stat, cgroups(7)).
    pub fn processor(&self) -> Result<Duration> {
        let stat = fs::read_to_string(self.cgroup.join("cpu.stat"))?;
        let used = stat.lines().find_map(|line| line.strip_prefix("usage_usec ")).context("no usage_usec")?;
        Ok(Duration::from_micros(used.trim().parse()?))
    }

    /// Processor time of the process alone, without its children.
    pub fn own_processor(&self) -> Result<Duration> {
        let mut nanoseconds = 0;
        for thread in fs::read_dir(format!("/proc/{}/task", self.pid))? {
            let Ok(text) = fs::read_to_string(thread?.path().join("schedstat")) else { continue };
            let first = text.split(' ').next().unwrap_or_default();
            nanoseconds += first.parse::<u64>().unwrap_or_default();
        }
        Ok(Duration::from_nanos(nanoseconds))
    }

    /// Memory now.
    pub fn memory(&self) -> Result<Memory> {
        let mut memory = Memory { controller: 0, connections: 0, shared_out: 0, resident: 0 };
        for pid in fs::read_to_string(self.cgroup.join("cgroup.procs"))?.lines() {
            let process = Path::new("/proc").join(pid);
            let Ok(name) = fs::read_to_string(process.join("comm")) else { continue };
            let Ok(rollup) = fs::read_to_string(process.join("smaps_rollup")) else { continue };
            if pid == self.pid.to_string() {
                memory.controller = field(&rollup, "Rss:");
            } else if name.trim() == "ssh" {
                memory.connections += 1;
                memory.shared_out += field(&rollup, "Pss:");
                memory.resident += field(&rollup, "Rss:");
            }
        }
        Ok(memory)
    }
}

impl Drop for Usage {
    fn drop(&mut self) {
        // A cgroup with members cannot be removed; whoever is left goes back to where it came from.
        let left = fs::read_to_string(self.cgroup.join("cgroup.procs")).unwrap_or_default();
        for pid in left.lines() {
            let _ = fs::write(self.parent.join("cgroup.procs"), pid);
        }
        let _ = fs::remove_dir(&self.cgroup);
    }
}

/// The cgroup2 directory that a process is in.
fn cgroup_of(pid: u32) -> Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    let root = mounts
        .lines()
        .map(|line| line.split(' ').collect::<Vec<_>>())
        .find(|words| words.get(2) == Some(&"cgroup2"))
        .and_then(|words| words.get(1).map(|place| PathBuf::from(*place)))
        .context("no cgroup2 file system is mounted")?;
    let own = fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
    let own = own.lines().find_map(|line| line.strip_prefix("0::/")).context("not in a cgroup2")?;
    Ok(root.join(own))
}

/// A line of `smaps_rollup`, bytes.
fn field(rollup: &str, name: &str) -> u64 {
    let line = rollup.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap_or_default() * 1024
}
