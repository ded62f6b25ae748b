//! A nix program that works for long and is watched: what it says, how far it is, and whether it still moves. Decides only
//! that one that has stopped moving is ended.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::process::Command;

use super::message::Said;
use super::progress::{CopyProgress, Heard};
use crate::command::{self, CommandError, Tail};

/// How often progress is looked at and told.
const TICK: Duration = Duration::from_millis(500);
/// What a person is shown.
const SHOWN: usize = 12;

/// Why a watched program did not come to a good end.
pub(super) enum Unfinished {
    /// It ended with a failure. What it said, whole for those who look for the reason, and its end for people.
    Failed(Said, Tail),
    /// Nothing moved for so long.
    Stalled(Duration, Tail),
    /// It could not be run, or took too long.
    Command(CommandError),
}

/// How long it may take, and how long nothing may move.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    pub(super) longest: Duration,
    pub(super) stall: Duration,
}

/// Runs a program that was given `--log-format internal-json`. `progress` is told every half second how far it is.
pub(super) async fn run(
    command: Command,
    patience: Patience,
    progress: &mut impl FnMut(CopyProgress),
) -> Result<(), Unfinished> {
    let watch = Mutex::new(Watch::new());
    let lock = || watch.lock().unwrap_or_else(PoisonError::into_inner);
    let running = command::run_observed(
        command,
        None,
        patience.longest,
        |pid| lock().pid = Some(pid),
        |line| lock().hear(line),
    );
    tokio::pin!(running);
    let mut tick = tokio::time::interval(TICK.min(patience.stall / 4));
    let outcome = loop {
        tokio::select! {
            outcome = &mut running => break outcome,
            _ = tick.tick() => {
                let (now, idle) = lock().look();
                progress(now);
                if idle >= patience.stall {
                    return Err(Unfinished::Stalled(patience.stall, lock().heard.said.end(SHOWN)));
                }
            }
        }
    };
    let mut watch = lock();
    progress(watch.heard.progress(watch.written));
    let said = std::mem::take(&mut watch.heard.said);
    let tail = said.end(SHOWN);
    match outcome {
        Ok(_) => Ok(()),
        Err(CommandError::Failed { .. }) => Err(Unfinished::Failed(said, tail)),
        // Its stderr is the log that was read here, not text for people.
        Err(CommandError::Deadline { argv, deadline, .. }) => {
            Err(Unfinished::Command(CommandError::Deadline { argv, deadline, tail }))
        }
        Err(
            source @ (CommandError::Missing { .. } | CommandError::Start { .. } | CommandError::Pipe { .. }),
        ) => Err(Unfinished::Command(source)),
    }
}

/// Whether it still moves. Nix 2.8 says nothing for as long as one path takes, so the bytes that it reads and writes
/// count as well.
struct Watch {
    heard: Heard,
    pid: Option<u32>,
    moved: u64,
    written: u64,
    last: Instant,
}

impl Watch {
    fn new() -> Self {
        Self { heard: Heard::default(), pid: None, moved: 0, written: 0, last: Instant::now() }
    }

    fn hear(&mut self, line: &str) {
        self.last = Instant::now();
        self.heard.hear(line);
    }

    /// How far it is, and for how long nothing has moved.
    fn look(&mut self) -> (CopyProgress, Duration) {
        let io = self.pid.and_then(|pid| std::fs::read_to_string(format!("/proc/{pid}/io")).ok());
        if let Some((read, written)) = io.as_deref().and_then(read_and_written) {
            if read + written != self.moved {
                (self.moved, self.last) = (read + written, Instant::now());
            }
            self.written = written;
        }
        (self.heard.progress(self.written), self.last.elapsed())
    }
}

/// `rchar` and `wchar` of `/proc/PID/io` (proc_pid_io(5)): bytes through read and write, pipes and sockets included.
fn read_and_written(io: &str) -> Option<(u64, u64)> {
    let value = |name| io.lines().find_map(|line| line.strip_prefix(name))?.trim().parse().ok();
    Some((value("rchar:")?, value("wchar:")?))
}
