//! `driftless secrets rekey`: encrypts files of the repository anew, to those who are recipients now. The plaintext stays in
//! this program's memory.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, bail};

use super::{Encrypted, real, shown};
use crate::cli::Global;
use crate::cli::fleet::Declared;

/// Arguments of `secrets rekey`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The encrypted files [default: all that the deployment declares]
    #[arg(value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Where the fleet is declared.
    #[command(flatten)]
    pub declared: Declared,
}

/// Encrypts anew; an error names the files where it failed, and they are as they were.
pub async fn run(global: &Global, args: Args) -> Result<ExitCode> {
    let encrypted = Encrypted::of(global, &args.declared).await?;
    if !encrypted.unknown.is_empty() {
        bail!("somebody may be missing among the recipients: {}", encrypted.unknown.join("; "));
    }
    let files = if args.files.is_empty() {
        encrypted.files.keys().cloned().collect()
    } else {
        args.files.iter().map(|file| real(file)).collect::<Vec<_>>()
    };
    let mut failures = Vec::new();
    for file in files {
        let rekeyed = || -> Result<usize> {
            let recipients = encrypted.recipients(&file, &[])?;
            encrypted.write(&file, &encrypted.open(&file)?, &recipients)?;
            Ok(recipients.len())
        };
        match rekeyed() {
            Ok(keys) => anstream::println!("{}: encrypted anew, keys: {keys}", shown(&file)),
            Err(error) => failures.push(format!("{error:#}")),
        }
    }
    if failures.is_empty() { Ok(ExitCode::SUCCESS) } else { bail!("{}", failures.join("\n")) }
}
