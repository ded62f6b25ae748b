//! Evaluates, builds and reaches nodes from here, without a controller: for laptops, pull requests and `./result`.
//!
//! The same rooms as the controller's, driven once. Decides nothing: `plan` does.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use jiff::Timestamp;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

use super::Global;
use super::fleet::Origin;
use super::progress::{Progress, Waiting};
use super::survey::Survey;
use crate::config::{self, ObserveConfig, SshConfig};
use crate::error_chain::error_chain;
use crate::model::manifest::{Manifest, VERSION};
use crate::model::name::NodeName;
use crate::model::node::{NodeSpec, Unsupported};
use crate::model::observed::{Contact, NodeState, Observation};
use crate::model::release::{NodeRelease, Progress as Built, Release};
use crate::model::revision::Revision;
use crate::model::rollout::RolloutSpec;
use crate::model::selector::Selector;
use crate::model::way::Way;
use crate::nix::{Deployment, Evaluated, Nix, NixError, Place, Publication};
use crate::node::{Node, NodeError};
use crate::plan::declared::{Known, check};
use crate::secrets::Keyring;

/// What acting from here needs.
#[derive(Debug)]
pub struct Direct {
    /// The nix programs.
    pub nix: Nix,
    /// What decrypts secrets.
    pub keyring: Keyring,
    ssh: SshConfig,
    observe: ObserveConfig,
    state: PathBuf,
    /// Sockets of the kept connections; its own, so that a controller on this machine is not disturbed.
    runtime: tempfile::TempDir,
}

impl Direct {
    /// Reads the configuration if there is one, and makes room for state and sockets.
    pub fn prepare(global: &Global) -> Result<Arc<Self>> {
        let config = global.config_if_any()?;
        let (eval, nix, ssh, observe, secrets) = config.map_or_else(Default::default, |config| {
            (config.eval, config.nix, config.ssh, config.observe, config.secrets)
        });
        let state = state_dir();
        let runtime = std::env::var_os("XDG_RUNTIME_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
        // Unix sockets have paths of at most 107 bytes (unix(7)).
        let runtime = tempfile::Builder::new()
            .prefix("dl-")
            .tempdir_in(&runtime)
            .with_context(|| format!("cannot make a directory for sockets in {}", runtime.display()))?;
        Ok(Arc::new(Self {
            nix: Nix::new(&nix, &state)?.evaluating(&eval),
            keyring: Keyring::new(&secrets.identity_files),
            ssh,
            observe,
            state,
            runtime,
        }))
    }

    /// Evaluates the nodes that are meant, of a deployment whose rollout can be meant.
    pub async fn evaluate(&self, origin: &Origin, on: Option<&Selector>) -> Result<Release> {
        let survey = self.survey(origin, on).await?.not_empty(origin)?.well_declared(origin)?;
        Ok(Self::heeding(origin, survey))
    }

    /// The same for what no rollout has to do with: a mistake in it is no reason not to look at a node, or to mend it.
    pub async fn declared(&self, origin: &Origin, on: Option<&Selector>) -> Result<Release> {
        let survey = self.survey(origin, on).await?.not_empty(origin)?;
        Ok(Self::heeding(origin, survey))
    }

    /// Says on stderr where more can be found about what is not heeded.
    fn heeding(origin: &Origin, survey: Survey) -> Release {
        for (name, why) in &survey.not_deployable {
            tracing::warn!(node = %name, "cannot be deployed; `driftless check` says why ({} reasons)", why.len());
        }
        match survey.ignored() {
            0 => {}
            ignored => {
                tracing::warn!("{ignored} settings of {origin} are not heeded: `driftless check` lists them")
            }
        }
        survey.release
    }

    /// Evaluates the nodes that are meant. A node that does not evaluate is in the release with its own error.
    pub async fn survey(&self, origin: &Origin, on: Option<&Selector>) -> Result<Survey> {
        let everything = Selector::everything();
        let on = on.unwrap_or(&everything);
        let (place, how) = match origin {
            Origin::Release(path) => return released(path, on),
            Origin::File { path, how } => {
                let file = std::fs::canonicalize(path)
                    .with_context(|| format!("cannot open the deployment {}", path.display()))?;
                (Place::File(file), *how)
            }
            Origin::Flake { url, how } => (Place::Flake { url: flake_url(url)? }, *how),
        };
        let _waiting = Waiting::on(format!("evaluating {origin}"));
        // Nothing vouches for what lies in a work tree: nothing is cached.
        let deployment = Deployment { place, cache_key: None, top: None, read_as: how.format };
        let nix = self.nix.clone().tracing(how.trace);
        let names = nix.names(&deployment).await?;
        let declared = names.nodes.len();
        let wanted = if on.needs_tags() {
            names.nodes.clone()
        } else {
            on.select(&names.nodes.iter().map(|name| (name.clone(), BTreeSet::new())).collect())?
        };
        let (mut nodes, not_deployable) =
            Self::evaluate_nodes(&nix, &deployment, wanted.clone(), &names.rollout).await;
        let known =
            names.nodes.iter().map(|name| (name.clone(), known(nodes.get(name), wanted.contains(name))));
        let misdeclared = check(&names.rollout, &known.collect()).err().unwrap_or_default();
        if on.needs_tags() {
            let tags =
                |node: &NodeRelease| node.spec.as_ref().map(|spec| spec.tags.clone()).unwrap_or_default();
            let chosen = on.select(&nodes.iter().map(|(name, node)| (name.clone(), tags(node))).collect())?;
            for (name, node) in &nodes {
                if node.spec.is_none() && !chosen.contains(name) {
                    tracing::warn!(node = %name, "does not evaluate, so that its tags are not known");
                }
            }
            nodes.retain(|name, _| chosen.contains(name));
        }
        Ok(Survey {
            format: names.format,
            declared,
            unsupported: names.unsupported,
            not_deployable,
            misdeclared,
            release: Release { revision: committed(origin), nodes, rollout: names.rollout },
        })
    }

    async fn evaluate_nodes(
        nix: &Nix,
        deployment: &Deployment,
        wanted: BTreeSet<NodeName>,
        rollout: &RolloutSpec,
    ) -> (BTreeMap<NodeName, NodeRelease>, BTreeMap<NodeName, Vec<Unsupported>>) {
        let (out, mut answers) = mpsc::channel(16);
        let collect = async {
            let (mut nodes, mut not_deployable) = (BTreeMap::new(), BTreeMap::new());
            while let Some((name, answer)) = answers.recv().await {
                match answer {
                    Ok(Evaluated::Disabled) => {}
                    Ok(Evaluated::NotDeployable(why)) => {
                        not_deployable.insert(name, why);
                    }
                    Ok(Evaluated::Node(spec)) => {
                        let spec = spec.in_fleet(rollout);
                        nodes.insert(name, node_release(Some(Arc::new(spec)), Built::Building));
                    }
                    Err(error) => {
                        let error = error_chain(&error);
                        nodes.insert(name, node_release(None, Built::NotEvaluated { error }));
                    }
                }
            }
            (nodes, not_deployable)
        };
        tokio::join!(nix.evaluate(deployment, wanted, out), collect).1
    }

    /// Builds one node's system and keeps it from being collected until its next build from here.
    pub async fn realise(&self, name: &NodeName, spec: &NodeSpec) -> Result<(), NixError> {
        self.nix.realise(name, spec, &self.state.join("manual").join(name.as_str())).await
    }

    /// Signs and pushes to the cache what a node is to get, as configured; where that fails it is said, and nodes get it all
    /// from here.
    pub async fn publish(&self, name: &NodeName, spec: &NodeSpec) {
        if spec.builds_itself() {
            return;
        }
        match self.nix.publish(&spec.shipped()).await {
            Publication::NotAsked | Publication::Done => {}
            Publication::Failed(said) => tracing::warn!(node = %name, "built, but not published: {said}"),
        }
    }

    /// Builds every node that evaluated. A node that does not build is in the release with its own error.
    pub async fn realise_all(self: &Arc<Self>, release: &mut Release, progress: &Progress) {
        let mut builds = JoinSet::new();
        for (name, node) in &release.nodes {
            let Some(spec) = node.spec.clone() else { continue };
            let (here, name) = (Arc::clone(self), name.clone());
            progress.say(&name, "building");
            builds.spawn(async move {
                let built = here.realise(&name, &spec).await;
                (name, built)
            });
        }
        while let Some(joined) = builds.join_next().await {
            // Only a panic ends a task early, and it has been printed.
            let Ok((name, built)) = joined else { continue };
            if let Some(node) = release.nodes.get_mut(&name) {
                node.progress = match built {
                    Ok(()) => Built::Built,
                    Err(error) => Built::NotBuilt { error: error_chain(&error) },
                };
            }
        }
    }

    /// The way to one node; nothing is connected yet.
    pub fn node(&self, name: &NodeName, spec: &NodeSpec) -> Result<Node, NodeError> {
        self.node_via(name, spec, None)
    }

    /// The same for a node that may still be somewhere else than where it is declared.
    pub fn node_via(&self, name: &NodeName, spec: &NodeSpec, via: Option<&Way>) -> Result<Node, NodeError> {
        Node::moving(name, spec, via, &self.ssh, self.runtime.path())
            .map(|node| node.with_keyring(&self.keyring))
    }

    /// Reads one node.
    pub async fn look(&self, node: &Node) -> Result<NodeState, NodeError> {
        let look = node.look(self.observe.timeout).await;
        if let (Err(_), Some(aside)) = (&look.outcome, &look.aside) {
            tracing::warn!(node = %node.name(), "nor does it answer at {}: {}", aside.way, aside.said);
        }
        look.outcome
    }

    /// Reads all nodes that have a host, so many at a time as configured.
    pub async fn look_at_all(
        self: &Arc<Self>,
        specs: &BTreeMap<NodeName, NodeSpec>,
    ) -> BTreeMap<NodeName, Observation> {
        let _waiting = Waiting::on("looking at the nodes".into());
        let limit = Arc::new(Semaphore::new(self.observe.concurrency.max(1)));
        let mut looks = JoinSet::new();
        for (name, spec) in specs.iter().filter(|(_, spec)| spec.host.is_some()) {
            let (here, limit) = (Arc::clone(self), Arc::clone(&limit));
            let (name, spec) = (name.clone(), spec.clone());
            looks.spawn(async move {
                // Never closed; without a permit the look would merely be one too many.
                let _permit = limit.acquire_owned().await;
                let seen = async {
                    let node = here.node(&name, &spec)?;
                    let seen = here.look(&node).await;
                    node.close().await;
                    seen
                };
                let observation = observation(seen.await);
                (name, observation)
            });
        }
        // Only a panic ends a task early, and it has been printed.
        looks.join_all().await.into_iter().collect()
    }
}

fn observation(seen: Result<NodeState, NodeError>) -> Observation {
    let at = Timestamp::now();
    let (contact, state) = match seen {
        Ok(state) => (Contact::Reachable { at }, Some(state)),
        Err(error) => (Contact::Unreachable { since: at, error: error_chain(&error) }, None),
    };
    // Nobody watched before: the newest switch is the best that is known.
    let finished = |state: &NodeState| state.journal.iter().filter_map(|entry| entry.finished).next_back();
    let state_since = state.as_ref().and_then(finished);
    Observation { contact, state, state_since, elsewhere: None, health: Vec::new() }
}

/// What an evaluation tells of a node that the deployment names, if it was asked for.
fn known(node: Option<&NodeRelease>, was_asked: bool) -> Known<'_> {
    match (node, was_asked) {
        (Some(node), _) => node.spec.as_deref().map_or(Known::Name, Known::from),
        (None, true) => Known::Disabled,
        (None, false) => Known::Name,
    }
}

fn node_release(spec: Option<Arc<NodeSpec>>, progress: Built) -> NodeRelease {
    NodeRelease { spec, progress, last_good: None }
}

/// Reads the manifest that a `./result` script carries.
fn released(path: &Path, on: &Selector) -> Result<Survey> {
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("cannot read the release {}", path.display()))?;
    let head: Head = serde_json::from_str(&text)
        .with_context(|| format!("{} is not a release: it has no version", path.display()))?;
    if head.version != VERSION {
        bail!(
            "the release {} has version {}, this program understands {VERSION}: build it again with this driftless",
            path.display(),
            head.version
        );
    }
    let manifest: Manifest = serde_path_to_error::deserialize(&mut serde_json::Deserializer::from_str(&text))
        .with_context(|| format!("{} is not a release", path.display()))?;
    let fleet = manifest.nodes.iter().map(|(name, spec)| (name.clone(), spec.tags.clone())).collect();
    let chosen = on.select(&fleet)?;
    let in_fleet =
        |spec: NodeSpec| node_release(Some(Arc::new(spec.in_fleet(&manifest.rollout))), Built::Building);
    let known = manifest.nodes.iter().map(|(name, spec)| (name.clone(), Known::from(spec))).collect();
    let misdeclared = check(&manifest.rollout, &known).err().unwrap_or_default();
    let nodes = manifest.nodes.into_iter().filter(|(name, _)| chosen.contains(name));
    let nodes: BTreeMap<_, _> = nodes.map(|(name, spec)| (name, in_fleet(spec))).collect();
    Ok(Survey {
        format: manifest.format,
        declared: nodes.len(),
        unsupported: Vec::new(),
        not_deployable: BTreeMap::new(),
        misdeclared,
        release: Release { revision: None, nodes, rollout: manifest.rollout },
    })
}

/// All that can be read of a release of any version.
#[derive(serde::Deserialize)]
struct Head {
    version: u32,
}

/// The commit that a deployment in a work tree is of, for the nodes' journals: only if the work tree is exactly that.
fn committed(origin: &Origin) -> Option<Revision> {
    let place = match origin {
        Origin::File { path, .. } => path.parent().filter(|parent| !parent.as_os_str().is_empty()),
        Origin::Flake { url, .. } => Some(Path::new(url)).filter(|path| path.is_dir()),
        Origin::Release(_) => return None,
    };
    let repository = git2::Repository::discover(place.unwrap_or(Path::new("."))).ok()?;
    let mut options = git2::StatusOptions::new();
    options.include_untracked(true);
    if !repository.statuses(Some(&mut options)).ok()?.is_empty() {
        return None;
    }
    let commit = repository.head().ok()?.peel_to_commit().ok()?;
    Some(Revision {
        commit: commit.id().to_string().parse().ok()?,
        tree: commit.tree_id().to_string(),
        subject: commit.summary().ok().flatten().unwrap_or_default().to_owned(),
        author: String::from_utf8_lossy(commit.author().name_bytes()).into_owned(),
        committed_at: Timestamp::from_second(commit.time().seconds()).ok()?,
    })
}

/// A flake as `builtins.getFlake` wants it. A directory is looked up in Git as the `nix` command does, so that only
/// tracked files count; the path may be relative.
fn flake_url(text: &str) -> Result<String> {
    let directory = Path::new(text);
    if !directory.is_dir() {
        return Ok(text.to_owned());
    }
    let directory =
        std::fs::canonicalize(directory).with_context(|| format!("cannot open {}", directory.display()))?;
    if !directory.join("flake.nix").is_file() {
        bail!("{} has no flake.nix", directory.display());
    }
    let top = git2::Repository::discover(&directory).ok().and_then(|repository| {
        let top = std::fs::canonicalize(repository.workdir()?).ok()?;
        let below = directory.strip_prefix(&top).ok()?.to_owned();
        Some((top, below))
    });
    Ok(match top {
        Some((top, below)) if below.as_os_str().is_empty() => format!("git+file://{}", top.display()),
        Some((top, below)) => format!("git+file://{}?dir={}", top.display(), below.display()),
        None => format!("path:{}", directory.display()),
    })
}

/// `$STATE_DIRECTORY`, `/var/lib/driftless` for root, else below `$XDG_STATE_HOME` (XDG Base Directory Specification).
fn state_dir() -> PathBuf {
    let given = std::env::var("STATE_DIRECTORY").ok();
    // The owner of our own /proc entry is our user (proc(5)).
    let is_root = std::fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0);
    let home = std::env::var_os("HOME").map(PathBuf::from);
    match (given, home) {
        (None, Some(home)) if !is_root => std::env::var_os("XDG_STATE_HOME")
            .map_or_else(|| home.join(".local/state"), PathBuf::from)
            .join("driftless"),
        (given, _) => config::state_dir(given),
    }
}
