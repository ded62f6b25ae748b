//! The controller's own process, read from `/proc/self` at scrape (proc(5)).
//!
//! The names are those of every Prometheus client library. What cannot be read is left out, never guessed.

use std::fs;

use super::Make;

/// Clock ticks per second in `/proc/PID/stat`: USER_HZ, which Linux fixes at 100 on every architecture NixOS runs on.
const TICKS: f64 = 100.0;

/// Adds the process's figures.
pub(super) fn export(make: &Make<'_>) {
    let figures = [
        ("process_cpu_seconds_total", "Processor time used, in seconds.", cpu_seconds()),
        ("process_resident_memory_bytes", "Resident memory, in bytes.", resident_bytes()),
        ("process_open_fds", "Open file descriptors.", open_files()),
        ("process_max_fds", "Most file descriptors that may be open.", most_files()),
        ("process_start_time_seconds", "Start of the process, as Unix time.", started()),
    ];
    for (name, help, figure) in figures {
        let Some(figure) = figure else { continue };
        if name.ends_with("_total") {
            let counter = prometheus::Counter::new(name, help).expect(super::VALID);
            counter.inc_by(figure);
            make.0.register(Box::new(counter)).expect(super::ONCE);
        } else {
            make.gauge(name, help).set(figure);
        }
    }
}

/// Field of `/proc/self/stat`, numbered as in proc(5). The second one, the program's name, may hold spaces.
fn stat(field: usize) -> Option<f64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    let (_, after_name) = stat.rsplit_once(") ")?;
    after_name.split(' ').nth(field - 3)?.parse().ok()
}

fn cpu_seconds() -> Option<f64> {
    Some((stat(14)? + stat(15)?) / TICKS)
}

fn started() -> Option<f64> {
    let system = fs::read_to_string("/proc/stat").ok()?;
    let boot: f64 = system.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()?;
    Some(boot + stat(22)? / TICKS)
}

fn resident_bytes() -> Option<f64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(kib.trim().trim_end_matches(" kB").parse::<f64>().ok()? * 1024.0)
}

fn open_files() -> Option<f64> {
    // Reading the directory opens one descriptor of its own.
    Some(fs::read_dir("/proc/self/fd").ok()?.count().saturating_sub(1) as f64)
}

fn most_files() -> Option<f64> {
    let limits = fs::read_to_string("/proc/self/limits").ok()?;
    let row = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    row.split_whitespace().next()?.parse().ok()
}
