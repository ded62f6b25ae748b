//! `driftless secrets`: which node uses which secret, and editing those that are encrypted in the repository.
//!
//! Never prints a secret. Sends none either: `deploy` and the controller do.

mod edit;
mod list;
mod rekey;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, anyhow, bail};
use clap::Subcommand;

use super::Global;
use super::direct::Direct;
use super::fleet::{Declared, LookArgs, Origin};
use crate::error_chain::error_chain;
use crate::model::node::NodeSpec;
use crate::model::release::{Progress as Built, Release};
use crate::model::secret::{AgeFile, Decrypt, Source};
use crate::secrets::{Content, Keyring, encrypt, parse_recipient};

/// Arguments of `secrets`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    pub what: What,
}

/// What can be done with secrets.
#[derive(Debug, Subcommand)]
pub enum What {
    /// Show which node has which secret, from where, and whether it can be had here
    List(LookArgs),
    /// Change an encrypted file of the repository, or make it, with $EDITOR
    Edit(edit::Args),
    /// Encrypt files of the repository anew, to the recipients of now
    Rekey(rekey::Args),
}

/// Does it.
pub async fn run(global: &Global, args: Args) -> Result<ExitCode> {
    match args.what {
        What::List(args) => list::run(global, args).await,
        What::Edit(args) => edit::run(global, args).await,
        What::Rekey(args) => rekey::run(global, args).await,
    }
}

/// The encrypted files of a deployment in a work tree, each with those it has to be encrypted to.
struct Encrypted {
    files: BTreeMap<PathBuf, BTreeSet<String>>,
    /// Those that a node decrypts whose host key nobody has declared, with a sentence that says so.
    keyless: BTreeMap<PathBuf, String>,
    /// What is not known, and may be a recipient too.
    unknown: Vec<String>,
    keyring: Keyring,
}

impl Encrypted {
    /// Evaluates the deployment that is named, or that of the current directory.
    async fn of(global: &Global, declared: &Declared) -> Result<Self> {
        let origin = declared.named_or_here().context(super::NO_DEPLOYMENT)?;
        let here = Direct::prepare(global)?;
        let release = here.declared(&origin, None).await?;
        let top = work_tree(&origin)?;
        let mut files: BTreeMap<PathBuf, BTreeSet<String>> = BTreeMap::new();
        let mut keyless = BTreeMap::new();
        let unknown = unknown(&release);
        for (name, node) in &release.nodes {
            let Some(spec) = &node.spec else { continue };
            for (age, recipients) in of_node(spec) {
                let file = in_work_tree(&age.file, top.as_deref())?;
                match recipients {
                    Some(recipients) => files.entry(file).or_default().extend(recipients),
                    None => {
                        drop(keyless.insert(file, format!("{name} decrypts it itself, and {NO_HOST_KEY}")))
                    }
                }
            }
        }
        Ok(Self { files, keyless, unknown, keyring: here.keyring.clone() })
    }

    /// To whom a file is encrypted, with whoever is named besides.
    fn recipients(&self, file: &Path, more: &[String]) -> Result<BTreeSet<String>> {
        if let Some(why) = self.keyless.get(file) {
            bail!("cannot encrypt {}: {why}", file.display());
        }
        let mut all = self.files.get(file).cloned().unwrap_or_default();
        all.extend(more.iter().cloned());
        if all.is_empty() {
            bail!(
                "{} has no recipients: no node declares it as secrets.files.NAME.age, or secrets.recipients is empty; \
                 declare it, or name whom to encrypt it to with --recipient{}",
                file.display(),
                if self.unknown.is_empty() {
                    String::new()
                } else {
                    format!(" ({})", self.unknown.join("; "))
                }
            );
        }
        Ok(all)
    }

    /// What is in a file now.
    fn open(&self, file: &Path) -> Result<Content> {
        let bytes = std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
        let content = self.keyring.decrypt(&bytes);
        let content = content.with_context(|| format!("cannot decrypt {}", file.display()))?;
        content.with_context(|| format!("{} has more than {} bytes", file.display(), Content::MOST))
    }

    /// Encrypts, and puts the file in place at once. Says so where nobody here could open it again.
    fn write(&self, file: &Path, content: &Content, recipients: &BTreeSet<String>) -> Result<()> {
        let parsed: Result<Vec<_>, _> = recipients.iter().map(|key| parse_recipient(key)).collect();
        let parsed = parsed.map_err(|why| anyhow!("cannot encrypt {}: {why}", file.display()))?;
        let ciphertext = encrypt(content, &parsed);
        let ciphertext = ciphertext.map_err(|why| anyhow!("cannot encrypt {}: {why}", file.display()))?;
        let folder = file.parent().unwrap_or(Path::new("/"));
        let written = || -> std::io::Result<()> {
            std::fs::create_dir_all(folder)?;
            let mut new = tempfile::Builder::new()
                .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))
                .tempfile_in(folder)?;
            std::io::Write::write_all(&mut new, &ciphertext)?;
            new.as_file().sync_all()?;
            new.persist(file)?;
            Ok(())
        };
        written().with_context(|| format!("cannot write {}", file.display()))?;
        if let Err(error) = self.keyring.decrypt(&ciphertext) {
            anstream::eprintln!(
                "warning: {} can no longer be opened here: {}",
                file.display(),
                error_chain(&error)
            );
        }
        Ok(())
    }
}

const NO_HOST_KEY: &str = "has no host key in its `hostKeys` that age can encrypt to (ssh-ed25519, ssh-rsa)";

/// The encrypted files that a node declares, each with its recipients: `None` where the node has to be one and has no key.
fn of_node(spec: &NodeSpec) -> impl Iterator<Item = (&AgeFile, Option<Vec<String>>)> {
    spec.secrets.values().filter_map(move |declared| {
        let Source::Age(age) = &declared.source else { return None };
        let mut recipients = age.recipients.clone();
        match age.decrypt {
            Decrypt::Controller => Some((age, Some(recipients))),
            Decrypt::Node => {
                let usable = |key: &&String| key.starts_with("ssh-ed25519 ") || key.starts_with("ssh-rsa ");
                let keys: Vec<String> = spec.host_keys.iter().filter(usable).cloned().collect();
                if keys.is_empty() {
                    return Some((age, None));
                }
                recipients.extend(keys);
                Some((age, Some(recipients)))
            }
        }
    })
}

/// Nodes whose secrets are not known, for they do not evaluate.
fn unknown(release: &Release) -> Vec<String> {
    let why = |error: &str| error.lines().next().unwrap_or_default().to_owned();
    let nodes = release.nodes.iter().filter_map(|(name, node)| match &node.progress {
        Built::NotEvaluated { error } => Some(format!("{name} does not evaluate: {}", why(error))),
        Built::Evaluating | Built::Building | Built::NotBuilt { .. } | Built::Built => None,
    });
    nodes.collect()
}

/// Where the files of a flake are that its evaluation has from the store; a deployment file names them itself.
fn work_tree(origin: &Origin) -> Result<Option<PathBuf>> {
    match origin {
        Origin::File { .. } => Ok(None),
        Origin::Flake { url, .. } => {
            let folder = std::fs::canonicalize(url)
                .with_context(|| format!("only a flake in a directory here has files to edit, not {url}"))?;
            let top = git2::Repository::discover(&folder).ok().and_then(|repository| {
                let top = repository.workdir()?.to_owned();
                std::fs::canonicalize(top).ok()
            });
            Ok(Some(top.unwrap_or(folder)))
        }
        Origin::Release(path) => {
            bail!(
                "{} is a release, which has no files to edit: name a deployment with --file or --flake",
                path.display()
            )
        }
    }
}

/// The file of the work tree that a declaration means.
fn in_work_tree(file: &str, top: Option<&Path>) -> Result<PathBuf> {
    let in_store = file.strip_prefix("/nix/store/").and_then(|rest| rest.split_once('/'));
    match (in_store, top) {
        (Some((_, below)), Some(top)) => Ok(top.join(below)),
        (Some(_), None) => bail!("{file} is in the store, and no file of this work tree"),
        (None, _) => Ok(real(Path::new(file))),
    }
}

/// A path as everybody calls it, also where there is no such file yet.
fn real(path: &Path) -> PathBuf {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    match (absolute.parent().and_then(|folder| folder.canonicalize().ok()), absolute.file_name()) {
        (Some(folder), Some(name)) => folder.join(name),
        _ => absolute,
    }
}

/// A path for people: from here, if it is below.
fn shown(path: &Path) -> String {
    let here = std::env::current_dir().and_then(|here| here.canonicalize());
    let below = here.ok().and_then(|here| path.strip_prefix(here).ok().map(Path::to_owned));
    below.unwrap_or_else(|| path.to_owned()).display().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_a_flake_is_edited_in_the_work_tree_not_in_the_store() {
        let store = "/nix/store/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa-source/secrets/db.age";
        assert_eq!(
            in_work_tree(store, Some(Path::new("/srv/infra"))).unwrap(),
            Path::new("/srv/infra/secrets/db.age")
        );
        assert!(in_work_tree(store, None).is_err());
        assert_eq!(in_work_tree("/no/such/db.age", None).unwrap(), Path::new("/no/such/db.age"));
    }
}
