//! What a part of the measurement costs: time, the most memory of the evaluators at one moment, and how many there were.

use std::collections::BTreeSet;
use std::fs;
use std::future::Future;
use std::time::{Duration, Instant};

/// Between two looks.
const LOOK: Duration = Duration::from_millis(10);
/// statm counts pages (proc_pid_statm(5)); those of every machine that Nix is tested on are so large.
const PAGE: u64 = 4096;

/// What it cost.
#[derive(Debug, Clone, Copy, Default)]
pub struct Cost {
    /// Time.
    pub took: Duration,
    /// Resident memory of the evaluators together, bytes.
    pub peak: u64,
    /// Evaluators that were seen.
    pub processes: usize,
}

/// Does something, and looks at the evaluators that this process starts meanwhile.
pub async fn watching<T>(work: impl Future<Output = T>) -> (T, Cost) {
    let began = Instant::now();
    let (mut peak, mut seen) = (0, BTreeSet::new());
    let watch = async {
        loop {
            let mut sum = 0;
            for (pid, resident) in evaluators() {
                sum += resident;
                seen.insert(pid);
            }
            peak = peak.max(sum);
            tokio::time::sleep(LOOK).await;
        }
    };
    let done = tokio::select! {
        done = work => done,
        () = watch => unreachable!("it looks for ever"),
    };
    (done, Cost { took: began.elapsed(), peak, processes: seen.len() })
}

/// Children of this process that run nix-instantiate, with their resident memory.
fn evaluators() -> Vec<(u32, u64)> {
    let own = std::process::id();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else { continue };
        // `PID (NAME) STATE PARENT ...`
        let Some((name, rest)) = stat.split_once('(').and_then(|(_, rest)| rest.rsplit_once(')')) else {
            continue;
        };
        let parent = rest.split_whitespace().nth(1).and_then(|parent| parent.parse::<u32>().ok());
        if !name.starts_with("nix") || parent != Some(own) {
            continue;
        }
        let statm = fs::read_to_string(entry.path().join("statm")).unwrap_or_default();
        let pages = statm.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or_default();
        found.push((pid, pages * PAGE));
    }
    found
}
