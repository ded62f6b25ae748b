//! What answers at the end of a connection, a shell or `driftless-node`: remembered for each way to a node, and guessed before
//! anything has answered. Asks nobody itself.

use std::sync::{Mutex, PoisonError};

use super::Output;
use super::installed::{Program, Sure};
use super::ssh::Link;
use crate::command::{CommandError, Finished};

/// ssh's own exit code; any other is the command's (ssh(1)).
const OF_SSH: i32 = 255;

/// What answered last, if anything has.
#[derive(Debug, Default)]
pub struct Answering(Mutex<Option<Program>>);

impl Link {
    /// What answers there, as far as one knows: an account that is not root's may well be one for deployments alone.
    pub async fn program(&self) -> (Program, Sure) {
        let Self::Ssh(ssh) = self else { return (Program::Shell, Sure::Known) };
        let known = *ssh.answering.0.lock().unwrap_or_else(PoisonError::into_inner);
        match known {
            Some(known) => (known, Sure::Known),
            None => match ssh.user().await {
                Ok(user) if user != "root" => (Program::Installed, Sure::Guessed),
                Ok(_) | Err(_) => (Program::Shell, Sure::Guessed),
            },
        }
    }

    /// It has answered.
    pub fn learn(&self, program: Program) {
        if let Self::Ssh(ssh) = self {
            *ssh.answering.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(program);
        }
    }
}

/// What a new login said. One that went well and whose command did not is an answer, too.
pub fn said(ran: Result<Finished, CommandError>) -> Result<Output, CommandError> {
    match ran {
        Ok(said) => Ok(Output { code: 0, stdout: said.stdout, stderr: said.tail.text().into() }),
        Err(CommandError::Failed { argv, status, tail }) => match status.code() {
            Some(code) if code != OF_SSH => {
                Ok(Output { code, stdout: Vec::new(), stderr: tail.text().into() })
            }
            Some(_) | None => Err(CommandError::Failed { argv, status, tail }),
        },
        Err(error) => Err(error),
    }
}
