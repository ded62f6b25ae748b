//! `driftless init`: a first `driftless.toml` for the deployment in a directory. Overwrites nothing.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};

use super::direct::Direct;
use super::origin::{self, How, Origin};
use super::survey::{Survey, lines, notes, unsupported};
use super::table::{Cell, Table};
use super::{Global, output};
use crate::model::format::Format;
use crate::model::release::{NodeRelease, Progress as Built};
use crate::nix::Trace;

/// Arguments of `init`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The deployment: a directory, or a file in it
    #[arg(long, value_name = "PATH", default_value = ".")]
    pub from: PathBuf,
    /// Read it in this format, where it has several
    #[arg(long = "as", value_name = "FORMAT")]
    pub read_as: Option<Format>,
    /// Show all of Nix's trace where the evaluation fails
    #[arg(long)]
    pub show_trace: bool,
}

/// Evaluates what is there, says what was found, and writes the file.
pub async fn run(global: &Global, args: Args) -> Result<ExitCode> {
    let path = fs::canonicalize(&args.from)
        .with_context(|| format!("cannot open the deployment {}", args.from.display()))?;
    let how = How { format: args.read_as, trace: Trace::shown(args.show_trace) };
    let found = look(&path, how)?;
    let directory = if path.is_dir() { path.as_path() } else { path.parent().unwrap_or(Path::new("/")) };
    let repository = Repository::of(directory)?;
    let deployment = match &found {
        Origin::Flake { .. } if !repository.below.as_os_str().is_empty() => bail!(
            "{} is below the top of its Git repository; a controller follows a flake only at the top",
            directory.join("flake.nix").display()
        ),
        Origin::Flake { .. } => ".".to_owned(),
        Origin::File { path, .. } | Origin::Release(path) => {
            repository.below.join(path.file_name().unwrap_or_default()).display().to_string()
        }
    };
    let target = directory.join("driftless.toml");
    if target.exists() {
        bail!("{} exists already; remove it first to start over", target.display());
    }
    let survey = Direct::prepare(global)?.survey(&found, None).await?;
    let said = document(&repository, &deployment, (args.read_as, &survey.format));
    write(&target, &said)?;
    output::print(&format!(
        "Found {deployment} ({}) on branch {} of {}.\n{}Wrote {}.\n\nNext:\n  \
         driftless check                         evaluate every node\n  \
         driftless --config driftless.toml run   follow the branch\n",
        survey.format,
        repository.branch,
        repository.url,
        understood(&survey),
        target.display()
    ))?;
    Ok(ExitCode::SUCCESS)
}

/// The deployment that is meant: the file itself, or what the directory has.
fn look(path: &Path, how: How) -> Result<Origin> {
    if path.is_dir() {
        return origin::here(path, how).with_context(|| {
            let files = origin::FILES.join(", ");
            format!(
                "{} holds none of {files}; run `driftless init` where one is, or name it with --from",
                path.display()
            )
        });
    }
    Ok(if path.ends_with("flake.nix") {
        Origin::Flake { url: path.parent().unwrap_or(Path::new("/")).display().to_string(), how }
    } else {
        Origin::File { path: path.to_owned(), how }
    })
}

fn write(path: &Path, text: &str) -> Result<()> {
    let mut file = match OpenOptions::new().write(true).create_new(true).open(path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            bail!("{} exists already; remove it first to start over", path.display())
        }
        opened => opened.with_context(|| format!("cannot create {}", path.display()))?,
    };
    file.write_all(text.as_bytes()).with_context(|| format!("cannot write {}", path.display()))
}

/// The nodes as they were understood, and below them what was not. Whole errors are for `check`.
fn understood(survey: &Survey) -> String {
    if survey.declared == 0 {
        return "It declares no nodes yet.\n".into();
    }
    let mut table = Table::new(["NODE", "HOST", "USER", "PORT", "TAGS"]);
    for (name, node) in &survey.release.nodes {
        let [host, user, port, tags] = way(node);
        table.push([name.to_string(), host, user, port, tags].map(Cell::plain));
    }
    let mut text = format!("\n{}\n", table.render(None));
    let before = text.len();
    for (name, node) in &survey.release.nodes {
        text.push_str(&notes(&format!("{name}: "), unsupported(node)));
    }
    for (name, why) in &survey.not_deployable {
        text.push_str(&lines(&format!("{name}: cannot be deployed: "), why));
    }
    text.push_str(&notes("all nodes: ", &survey.unsupported));
    if text.len() > before {
        text.push('\n');
    }
    text
}

/// How a node is reached: host, user, port, tags.
fn way(node: &NodeRelease) -> [String; 4] {
    let none = || "-".to_owned();
    let Some(spec) = &node.spec else {
        let why = match &node.progress {
            Built::NotEvaluated { .. } => "does not evaluate: see `driftless check`",
            Built::Evaluating | Built::Building | Built::NotBuilt { .. } | Built::Built => "-",
        };
        return [why.to_owned(), none(), none(), none()];
    };
    let (user, host) = match spec.host.as_deref().map(|host| (host, host.rsplit_once('@'))) {
        None => (none(), "none: never deployed".to_owned()),
        Some((_, Some((user, host)))) => (user.to_owned(), host.to_owned()),
        Some((host, None)) => (none(), host.to_owned()),
    };
    let tags: Vec<&str> = spec.tags.iter().map(|tag| tag.as_str()).collect();
    let tags = if tags.is_empty() { none() } else { tags.join(" ") };
    [host, user, spec.port.map_or_else(none, |port| port.to_string()), tags]
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
fn document(
    repository: &Repository,
    deployment: &str,
    (asked, recognised): (Option<Format>, &str),
) -> String {
    let format = match asked {
        Some(format) => format!("format = \"{format}\""),
        None => format!("#format = {recognised:?}"),
    };
    format!(
        "# What the driftless controller follows. Every key: deploy/driftless.example.toml of driftless.\n\
         \n\
         [source]\n\
         # Anything `git fetch` understands; a local path is also watched.\n\
         url = {:?}\n\
         branch = {:?}\n\
         # A deployment file in the repository, or \".\" for a flake.\n\
         deployment = {:?}\n\
         # The format of the deployment; default: the one that it is recognised as.\n\
         {format}\n\
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
        let config: crate::config::Config =
            toml::from_str(&document(&repository, "deployment.nix", (Some(Format::Morph), "morph"))).unwrap();
        assert_eq!(config.source.format, Some(Format::Morph));
        assert_eq!(
            (config.source.url.as_str(), config.source.deployment.as_str()),
            ("/srv/in \"quotes\"", "deployment.nix")
        );
    }
}
