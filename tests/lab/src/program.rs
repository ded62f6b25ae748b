//! Starting the host's programs, each with a deadline. Never interprets what they print.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read as _, Seek as _};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

/// What a program left behind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// Its exit code; 124 when it was ended at its deadline, `None` when a signal ended it.
    pub code: Option<i32>,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

impl Output {
    /// Whether it exited with 0.
    #[must_use]
    pub fn success(&self) -> bool {
        self.code == Some(0)
    }

    /// Its standard output without surrounding white space, or an error that carries all it said.
    pub fn ok(self) -> Result<String> {
        if !self.success() {
            bail!("exit code {:?}: {}{}", self.code, self.stdout, self.stderr);
        }
        Ok(self.stdout.trim().to_owned())
    }
}

/// A command of the host that is killed after `deadline`, in a process group of its own: a Ctrl-C is for the owner of the
/// lab, which then cleans up in order.
pub(crate) fn bounded(deadline: Duration, program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("timeout");
    command.args(["--kill-after=2", &deadline.as_secs_f32().to_string()]).arg(program).stdin(Stdio::null());
    command
}

/// Runs to the end; failing to start is the only error. Output goes to files, not pipes: a child that it leaves behind (a
/// connection kept by ssh, a daemon) would hold a pipe open for ever.
pub(crate) fn run(command: &mut Command) -> Result<Output> {
    let (stdout, stderr) = (tempfile::tempfile()?, tempfile::tempfile()?);
    let status = command
        .stdout(stdout.try_clone()?)
        .stderr(stderr.try_clone()?)
        .status()
        .with_context(|| format!("starting {command:?}"))?;
    Ok(Output { code: status.code(), stdout: text(stdout)?, stderr: text(stderr)? })
}

fn text(mut file: File) -> Result<String> {
    let mut bytes = Vec::new();
    file.rewind()?;
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Runs to the end and insists on exit code 0; yields the trimmed standard output.
pub(crate) fn require(command: &mut Command) -> Result<String> {
    run(command)?.ok().with_context(|| format!("running {command:?}"))
}
