//! Runs one child process: deadline, killed on drop, pinned environment, argv and the tail of stderr in the error.
//!
//! Knows no program and retries nothing. The rooms that know `git`, `nix` and `ssh` build the command.

use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::process::{ExitStatus, Stdio};
use std::sync::{Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, Command};

/// How many lines of stderr an error keeps.
const TAIL_LINES: usize = 20;
/// No line of a tail is longer than this many bytes; Nix prints whole derivations on one line.
const TAIL_LINE_BYTES: usize = 2_000;
/// More output than this from a child is an error: nothing we run says so much.
const MOST_STDOUT: u64 = 256 << 20;

/// No line is read beyond this many bytes: a program gone mad may never end one.
const LONGEST_LINE: usize = 1 << 20;

/// Where memory runs out, what we run is ended before we are (proc_pid_oom_score_adj(5)): a step that failed is tried again,
/// and nobody else would do that.
const OOM_SCORE: &str = "500";

/// How long a program that is ended may take to end what it started: Nix on a busy machine takes seconds.
const LAST_WORDS: Duration = Duration::from_secs(10);

/// Programs that are being ended at this moment, each watched by a thread.
static ENDING: Mutex<Vec<JoinHandle<()>>> = Mutex::new(Vec::new());

/// A program that could not be run to a good end.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// There is no such program here.
    #[error("the program `{program}` was not found; install it or put it on PATH")]
    Missing {
        /// Its name.
        program: String,
    },
    /// It could not be started.
    #[error("cannot start `{argv}`")]
    Start {
        /// The command line, for a person.
        argv: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Its output could not be read or its input not written.
    #[error("lost the pipes of `{argv}`")]
    Pipe {
        /// The command line, for a person.
        argv: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It ran longer than it may.
    #[error("`{argv}` did not end within {} s{tail}", deadline.as_secs())]
    Deadline {
        /// The command line, for a person.
        argv: String,
        /// The deadline.
        deadline: Duration,
        /// What it last said on stderr.
        tail: Tail,
    },
    /// It ended with a failure.
    #[error("`{argv}` failed ({status}){tail}")]
    Failed {
        /// The command line, for a person.
        argv: String,
        /// Exit code or signal.
        status: ExitStatus,
        /// What it last said on stderr.
        tail: Tail,
    },
}

impl CommandError {
    /// What the program last said, where it ran at all.
    pub fn tail(&self) -> Option<&Tail> {
        match self {
            Self::Deadline { tail, .. } | Self::Failed { tail, .. } => Some(tail),
            Self::Missing { .. } | Self::Start { .. } | Self::Pipe { .. } => None,
        }
    }

    /// The same with other last words: those of a program whose chatter is for us, not for people.
    pub fn having_said(self, tail: Tail) -> Self {
        match self {
            Self::Deadline { argv, deadline, tail: _ } => Self::Deadline { argv, deadline, tail },
            Self::Failed { argv, status, tail: _ } => Self::Failed { argv, status, tail },
            Self::Missing { .. } | Self::Start { .. } | Self::Pipe { .. } => self,
        }
    }
}

/// The last lines a program wrote to stderr.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tail(pub Vec<String>);

impl Tail {
    /// Keeps the newest lines only.
    fn push(&mut self, mut line: String) {
        if line.len() > TAIL_LINE_BYTES {
            let cut = (0..=TAIL_LINE_BYTES).rev().find(|at| line.is_char_boundary(*at)).unwrap_or(0);
            line.truncate(cut);
            line.push('…');
        }
        if self.0.len() == TAIL_LINES {
            self.0.remove(0);
        }
        self.0.push(line);
    }

    /// The lines as one text.
    pub fn text(&self) -> String {
        self.0.join("\n")
    }
}

impl fmt::Display for Tail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { Ok(()) } else { write!(f, ":\n{}", self.text()) }
    }
}

/// A program that ended with exit code 0.
#[derive(Debug, Clone)]
pub struct Finished {
    /// All of stdout.
    pub stdout: Vec<u8>,
    /// The end of stderr.
    pub tail: Tail,
}

impl Finished {
    /// stdout as text; what is not UTF-8 is replaced.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }
}

/// A command with the environment every child of ours gets: C locale, no terminal prompts of any kind.
pub fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command
        .env("LC_ALL", "C")
        .env("GIT_TERMINAL_PROMPT", "0")
        .env("SSH_ASKPASS_REQUIRE", "never")
        .stdin(Stdio::null())
        .kill_on_drop(true);
    command
}

/// Runs a command to its end. Dropping the future kills the child and all of its process group.
pub async fn run(command: Command, deadline: Duration) -> Result<Finished, CommandError> {
    run_with(command, None, deadline, |_| {}).await
}

/// Runs a command with `input` on its stdin, and hands each line of stderr to `on_line` as it comes.
pub async fn run_with(
    command: Command,
    input: Option<&[u8]>,
    deadline: Duration,
    on_line: impl FnMut(&str),
) -> Result<Finished, CommandError> {
    run_observed(command, input, deadline, |_| {}, on_line).await
}

/// As [`run_with`]; `on_start` gets the id of the process, whose `/proc` tells whether it still does something.
pub async fn run_observed(
    mut command: Command,
    input: Option<&[u8]>,
    deadline: Duration,
    on_start: impl FnOnce(u32),
    mut on_line: impl FnMut(&str),
) -> Result<Finished, CommandError> {
    let argv = argv(&command);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    if input.is_some() {
        command.stdin(Stdio::piped());
    }
    let child = command.spawn().map_err(|source| not_started(&command, source))?;
    let mut group = Group { child: Some(child) };
    let child = group.child.as_mut().expect("taken only on drop");
    if let Some(pid) = child.id() {
        // Where that is not allowed, the kernel chooses by size, and we are small.
        let _ = std::fs::write(format!("/proc/{pid}/oom_score_adj"), OOM_SCORE);
        on_start(pid);
    }
    let mut tail = Tail::default();
    let began = Instant::now();
    let outcome = tokio::time::timeout(deadline, converse(child, input, &mut tail, &mut on_line)).await;
    tracing::debug!(argv, took = ?began.elapsed(), "ran");
    match outcome {
        Err(_) => Err(CommandError::Deadline { argv, deadline, tail }),
        Ok(Err(source)) => Err(CommandError::Pipe { argv, source }),
        Ok(Ok((status, _))) if !status.success() => Err(CommandError::Failed { argv, status, tail }),
        Ok(Ok((_, stdout))) => Ok(Finished { stdout, tail }),
    }
}

fn not_started(command: &Command, source: io::Error) -> CommandError {
    if source.kind() == io::ErrorKind::NotFound {
        let program = command.as_std().get_program().to_string_lossy().into_owned();
        return CommandError::Missing { program };
    }
    CommandError::Start { argv: argv(command), source }
}

/// The command line as a person would type it, shortened where a whole script is an argument.
pub fn argv(command: &Command) -> String {
    let command = command.as_std();
    std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| {
            let word = word.to_string_lossy();
            if word.len() > 200 {
                format!("{}…", word.chars().take(60).collect::<String>())
            } else {
                word.into_owned()
            }
        })
        .collect::<Vec<_>>()
        .join(" ")
}

/// A child that leads a process group; the group is ended when this value is dropped.
struct Group {
    /// Always there, until it is dropped.
    child: Option<Child>,
}

impl Drop for Group {
    fn drop(&mut self) {
        // Git, Nix and ssh start helpers of their own; ending the leader alone leaves those behind. `id()` is None once
        // the child was waited for, so that no foreign group with a reused number is ever hit.
        let Some((child, pid)) = self.child.take().and_then(|child| child.id().map(|pid| (child, pid)))
        else {
            return;
        };
        signal(pid, "-TERM");
        match std::thread::Builder::new().name("ending".into()).spawn(move || end(child, pid)) {
            Ok(thread) => {
                let mut ending = ENDING.lock().unwrap_or_else(PoisonError::into_inner);
                ending.retain(|thread| !thread.is_finished());
                ending.push(thread);
            }
            // The child went with the closure, and is killed with it.
            Err(_) => signal(pid, "-KILL"),
        }
    }
}

/// Nix without a daemon runs builders in groups of their own and ends them itself, if it is let. Nothing can be awaited
/// where a future is dropped, and nobody else may wait for it there.
fn end(child: Child, pid: u32) {
    let until = Instant::now() + LAST_WORDS;
    while is_running(pid) && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(5));
    }
    signal(pid, "-KILL");
    // Not before: who has been waited for has no number any more.
    drop(child);
}

/// Waits until every program that was told to end has ended: none outlives this one.
pub fn wait_for_endings() {
    let ending = std::mem::take(&mut *ENDING.lock().unwrap_or_else(PoisonError::into_inner));
    for thread in ending {
        // One that panicked has ended, too.
        let _ = thread.join();
    }
}

fn signal(group: u32, signal: &str) {
    let _ = std::process::Command::new("kill")
        .args([signal, "--", &format!("-{group}")])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
}

/// Whether a child of ours still does something; one that ended and was not waited for is in state Z (proc_pid_stat(5)).
fn is_running(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

async fn converse(
    child: &mut Child,
    input: Option<&[u8]>,
    tail: &mut Tail,
    on_line: &mut impl FnMut(&str),
) -> io::Result<(ExitStatus, Vec<u8>)> {
    let stdin = child.stdin.take();
    let stdout = child.stdout.take();
    let stderr = child.stderr.take();
    let feed = async {
        if let (Some(mut stdin), Some(input)) = (stdin, input) {
            // A program that ends without reading all of its input says so by its exit code.
            let _ = stdin.write_all(input).await;
        }
    };
    let listen = async {
        let Some(stderr) = stderr else { return Ok(()) };
        let hear = |line: &[u8]| {
            let line = String::from_utf8_lossy(line).trim_end_matches('\r').to_owned();
            on_line(&line);
            tail.push(line);
        };
        each_line(stderr, hear).await
    };
    let ((), read, heard) = tokio::join!(feed, read_all(stdout), listen);
    heard?;
    let stdout = read?;
    Ok((child.wait().await?, stdout))
}

async fn each_line(from: impl AsyncRead + Unpin, mut hear: impl FnMut(&[u8])) -> io::Result<()> {
    let mut from = BufReader::new(from);
    let mut line = Vec::new();
    loop {
        let heard = from.fill_buf().await?;
        let ended = heard.iter().position(|byte| *byte == b'\n');
        let read = ended.map_or(heard.len(), |at| at + 1);
        let text = &heard[..ended.unwrap_or(read)];
        line.extend_from_slice(&text[..text.len().min(LONGEST_LINE - line.len())]);
        from.consume(read);
        if ended.is_some() || (read == 0 && !line.is_empty()) {
            hear(&line);
            line.clear();
        }
        if read == 0 {
            return Ok(());
        }
    }
}

async fn read_all(from: Option<impl AsyncRead + Unpin>) -> io::Result<Vec<u8>> {
    let mut all = Vec::new();
    if let Some(from) = from {
        from.take(MOST_STDOUT + 1).read_to_end(&mut all).await?;
        if all.len() as u64 > MOST_STDOUT {
            return Err(io::Error::other(format!("more than {MOST_STDOUT} bytes on stdout")));
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str) -> Command {
        let mut command = command("sh");
        command.args(["-c", script]);
        command
    }

    #[tokio::test]
    async fn a_failure_carries_argv_status_and_the_end_of_stderr() {
        let error = run(sh("seq 1 30 >&2; exit 3"), Duration::from_secs(10)).await.unwrap_err().to_string();
        assert!(error.contains("`sh -c") && error.contains("exit status: 3"), "{error}");
        assert!(
            error.ends_with("11\n12\n13\n14\n15\n16\n17\n18\n19\n20\n21\n22\n23\n24\n25\n26\n27\n28\n29\n30"),
            "{error}"
        );
    }

    #[tokio::test]
    async fn a_deadline_kills_the_descendants_too() {
        let dir = tempfile::tempdir().unwrap();
        let mark = dir.path().join("pid");
        let script = format!("sleep 300 & echo $! > {}; wait", mark.display());
        let error = run(sh(&script), Duration::from_millis(300)).await.unwrap_err();
        assert!(matches!(error, CommandError::Deadline { .. }), "{error}");
        let pid = std::fs::read_to_string(&mark).unwrap();
        let stat = format!("/proc/{}/stat", pid.trim());
        for _ in 0..100 {
            match std::fs::read_to_string(&stat) {
                Err(_) => return,
                Ok(stat) if stat.contains(") Z ") => return,
                Ok(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
        panic!("sleep {pid} outlived its deadline");
    }

    #[tokio::test]
    async fn a_program_may_end_what_it_started_elsewhere_and_a_stubborn_one_is_killed() {
        let dir = tempfile::tempdir().unwrap();
        let mark = dir.path().join("ended");
        let gentle = format!("trap 'touch {}; exit' TERM; sleep 300 & wait", mark.display());
        run(sh(&gentle), Duration::from_millis(300)).await.unwrap_err();
        let pid = dir.path().join("pid");
        let stubborn = format!("trap '' TERM; echo $$ >{}; while :; do sleep 1; done", pid.display());
        let began = Instant::now();
        run(sh(&stubborn), Duration::from_millis(300)).await.unwrap_err();
        assert!(began.elapsed() < LAST_WORDS, "nobody waits for it here");
        wait_for_endings();
        assert!(mark.exists());
        let pid = std::fs::read_to_string(&pid).unwrap().trim().parse().unwrap();
        // A signal that was sent has still to arrive.
        for _ in 0..200 {
            if !is_running(pid) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{pid} does not end");
    }

    #[tokio::test]
    async fn a_line_without_an_end_costs_no_more_than_its_beginning() {
        let mut lines = Vec::new();
        let endless = sh("head -c 64M /dev/zero | tr '\\0' x >&2; printf '\\nlast' >&2");
        let finished =
            run_with(endless, None, Duration::from_secs(60), |line| lines.push(line.len())).await.unwrap();
        assert_eq!(lines, [LONGEST_LINE, 4]);
        assert_eq!(finished.tail.0[1], "last");
    }

    #[tokio::test]
    async fn where_memory_runs_out_what_we_run_is_ended_first() {
        let score =
            run(sh("sleep 0.2; cat /proc/self/oom_score_adj"), Duration::from_secs(10)).await.unwrap();
        assert_eq!(score.text().trim(), OOM_SCORE);
    }

    #[tokio::test]
    async fn a_program_that_is_missing_is_named() {
        let error = run(command("no-such-program"), Duration::from_secs(1)).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            "the program `no-such-program` was not found; install it or put it on PATH"
        );
    }
}
