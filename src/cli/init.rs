//! `driftless init`: a first `driftless.toml` for the deployment in a directory. Overwrites nothing.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};

use super::output;

/// Arguments of `init`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The directory with the deployment
    #[arg(default_value = ".")]
    pub directory: PathBuf,
}

/// What a directory holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    /// A deployment file.
    File(&'static str),
    /// A flake.
    Flake,
}

impl Found {
    /// Deployment files first: a repository that has both was deployed by the file so far.
    fn look(directory: &Path) -> Option<Self> {
        if directory.join("deployment.nix").is_file() {
            Some(Self::File("deployment.nix"))
        } else if directory.join("flake.nix").is_file() {
            Some(Self::Flake)
        } else {
            None
        }
    }

    /// The value of `source.deployment`.
    fn deployment(self) -> &'static str {
        match self {
            Self::File(name) => name,
            Self::Flake => ".",
        }
    }

    fn describe(self) -> String {
        match self {
            Self::File(name) => format!("the deployment file {name}"),
            Self::Flake => "a flake (flake.nix)".into(),
        }
    }
}

/// Writes the file and says what was found.
pub fn run(args: Args) -> Result<ExitCode> {
    let directory = fs::canonicalize(&args.directory)
        .with_context(|| format!("cannot open the directory {}", args.directory.display()))?;
    let Some(found) = Found::look(&directory) else {
        bail!(
            "{} holds neither a deployment.nix nor a flake.nix; run `driftless init` where one is",
            directory.display()
        );
    };
    let repository = Repository::of(&directory)?;
    if found == Found::Flake && !repository.below.as_os_str().is_empty() {
        bail!(
            "{} is below the top of its Git repository; a controller follows a flake only at the top",
            directory.join("flake.nix").display()
        );
    }
    let path = directory.join("driftless.toml");
    let mut file = match OpenOptions::new().write(true).create_new(true).open(&path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            bail!("{} exists already; remove it first to start over", path.display())
        }
        opened => opened.with_context(|| format!("cannot create {}", path.display()))?,
    };
    let deployment = match found {
        Found::File(name) => repository.below.join(name).display().to_string(),
        Found::Flake => found.deployment().to_owned(),
    };
    file.write_all(document(&repository, &deployment).as_bytes())
        .with_context(|| format!("cannot write {}", path.display()))?;
    output::print(&format!(
        "Found {} on branch {} of {}.\nWrote {}.\n\nNext:\n  driftless check                         evaluate every node\n  \
         driftless --config driftless.toml run   follow the branch\n",
        found.describe(),
        repository.branch,
        repository.url,
        path.display()
    ))?;
    Ok(ExitCode::SUCCESS)
}

/// The Git repository around the deployment.
struct Repository {
    url: String,
    branch: String,
    /// The deployment's directory inside of it.
    below: PathBuf,
}

impl Repository {
    fn of(directory: &Path) -> Result<Self> {
        let repository = match git2::Repository::discover(directory) {
            Err(error) if error.code() == git2::ErrorCode::NotFound => bail!(
                "{} is not in a Git repository; a controller follows one: `git init` first",
                directory.display()
            ),
            found => {
                found.with_context(|| format!("cannot open the repository of {}", directory.display()))?
            }
        };
        let top = repository.workdir().context("the Git repository has no work tree")?;
        let top = fs::canonicalize(top).with_context(|| format!("cannot open {}", top.display()))?;
        // HEAD of a repository without commits is still a name.
        let head = repository.find_reference("HEAD").ok();
        let branch = head
            .as_ref()
            .and_then(|head| head.symbolic_target().ok().flatten())
            .and_then(|name| name.strip_prefix("refs/heads/"))
            .unwrap_or("main")
            .to_owned();
        let origin = repository.find_remote("origin").ok();
        let url = origin.as_ref().and_then(|origin| origin.url().ok()).map(without_password);
        let below = directory.strip_prefix(&top).unwrap_or(Path::new("")).to_owned();
        Ok(Self { url: url.unwrap_or_else(|| top.display().to_string()), branch, below })
    }
}

/// A remote such as `https://bot:TOKEN@host/x` without the secret: the file is likely to be committed.
fn without_password(url: &str) -> String {
    let split = url.split_once("://").and_then(|(scheme, rest)| {
        let (user, host) = rest.split_once('@')?;
        let secret = user.contains(':') && !user.contains('/');
        secret.then(|| format!("{scheme}://{host}"))
    });
    split.unwrap_or_else(|| url.to_owned())
}

/// The commented file. `{:?}` of text is also a TOML string for what paths, URLs and branches are made of.
fn document(repository: &Repository, deployment: &str) -> String {
    format!(
        "# What the driftless controller follows. Every key: deploy/driftless.example.toml of driftless.\n\
         \n\
         [source]\n\
         # Anything `git fetch` understands; a local path is also watched.\n\
         url = {:?}\n\
         branch = {:?}\n\
         # A deployment file in the repository, or \".\" for a flake.\n\
         deployment = {:?}\n\
         # Time between fetches.\n\
         #poll = \"1m\"\n\
         \n\
         [ssh]\n\
         # The key that the nodes accept; default: what your SSH configuration and agent offer.\n\
         #identity_file = \"/var/lib/driftless/id_ed25519\"\n",
        repository.url, repository.branch, deployment
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_in_the_remote_does_not_reach_the_file() {
        assert_eq!(
            without_password("https://bot:s3cret@git.example.org/x.git"),
            "https://git.example.org/x.git"
        );
        for kept in ["ssh://git@example.org/x", "git@example.org:x", "/srv/infra.git", "https://h/a:b@c"] {
            assert_eq!(without_password(kept), kept);
        }
    }

    #[test]
    fn what_is_written_is_a_valid_configuration() {
        let repository =
            Repository { url: "/srv/in \"quotes\"".into(), branch: "main".into(), below: PathBuf::new() };
        let config: crate::config::Config = toml::from_str(&document(&repository, "deployment.nix")).unwrap();
        assert_eq!(
            (config.source.url.as_str(), config.source.deployment.as_str()),
            ("/srv/in \"quotes\"", "deployment.nix")
        );
    }
}
