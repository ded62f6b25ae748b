//! One command line and its answer: over a kept connection, or on this machine. Never opens or ends a connection.

use std::io;
use std::process::Stdio;
use std::time::Duration;

use openssh::Session;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::any_shell::for_any_shell;
use super::{NodeError, Output};
use crate::command::{self, CommandError};
use crate::model::name::NodeName;

/// A shell that does not find a command says so by this exit code (POSIX, 2.8.2).
const NOT_FOUND: i32 = 127;

/// Runs a command line on the other side of a kept connection.
pub async fn converse(session: &Session, line: &str, input: &[u8]) -> Result<Output, openssh::Error> {
    let mut child = session
        .raw_command(for_any_shell(line))
        .stdin(openssh::Stdio::piped())
        .stdout(openssh::Stdio::piped())
        .stderr(openssh::Stdio::piped())
        .spawn()
        .await?;
    let (stdin, out, err) = (child.stdin().take(), child.stdout().take(), child.stderr().take());
    let feed = async {
        if let Some(mut stdin) = stdin {
            // A command that ends without reading all of its input says so by its exit code.
            let _ = stdin.write_all(input).await;
            let _ = stdin.shutdown().await;
        }
    };
    // Side by side: who answers while it still reads would wait for us, and we for it.
    let ((), stdout, stderr) = tokio::join!(feed, all_of(out), all_of(err));
    let code = match child.wait().await {
        Ok(status) => status.code().unwrap_or(255),
        // The crate's word for that exit code. What the shell said is ours to tell, and the connection is well.
        Err(openssh::Error::Remote(error)) if error.kind() == io::ErrorKind::NotFound => NOT_FOUND,
        Err(error) => return Err(error),
    };
    Ok(Output { code, stdout, stderr })
}

/// Everything up to the end, or to where the connection breaks: what the command came to says the rest.
async fn all_of(stream: Option<impl tokio::io::AsyncRead + Unpin>) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Some(mut stream) = stream {
        let _ = stream.read_to_end(&mut bytes).await;
    }
    bytes
}

/// Runs a command line here.
pub async fn local(
    node: &NodeName,
    attempt: &'static str,
    line: &str,
    input: &[u8],
    deadline: Duration,
) -> Result<Output, NodeError> {
    let failed = |source| NodeError::Command { node: node.clone(), attempt, source };
    let io = |source| failed(CommandError::Pipe { argv: "sh".into(), source });
    let mut command = command::command("sh");
    // What the controller itself was started from says nothing about how this node is reached.
    command
        .env_remove("SSH_CONNECTION")
        .arg("-c")
        .arg(line)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().map_err(io)?;
    let stdin = child.stdin.take();
    let conversation = async {
        let feed = async {
            if let Some(mut stdin) = stdin {
                let _ = stdin.write_all(input).await;
            }
        };
        tokio::join!(feed, child.wait_with_output()).1
    };
    let output = tokio::time::timeout(deadline, conversation)
        .await
        .map_err(|_| NodeError::Deadline { node: node.clone(), attempt, seconds: deadline.as_secs() })?
        .map_err(io)?;
    Ok(Output { code: output.status.code().unwrap_or(255), stdout: output.stdout, stderr: output.stderr })
}
