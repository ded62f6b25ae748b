//! Manifests on disk, so that an unchanged commit costs no evaluation, not even after a restart. Holds only what was
//! evaluated completely; an entry that cannot be read or whose derivation was collected is simply not there.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};

use super::evaluate::Evaluated;
use super::{Deployment, Nix, Place, files};
use crate::model::format::Format;
use crate::model::manifest::Names;
use crate::model::name::NodeName;

/// How many deployments are remembered: the newest revisions, and those of people who try something.
const KEPT: usize = 20;

/// What is known of one deployment.
#[derive(Debug)]
pub(super) struct Cache(PathBuf);

impl Nix {
    /// The cache of a deployment, if something determines the deployment.
    pub(super) fn cache(&self, deployment: &Deployment) -> Option<Cache> {
        let key = deployment.cache_key.as_ref()?;
        let mut hash = Key(Sha256::new());
        hash.add(key);
        match &deployment.place {
            Place::File(path) => hash.add("file").add(path.to_string_lossy()),
            Place::Flake { url } => hash.add("flake").add(url),
        };
        hash.add(deployment.read_as.map_or("any format", Format::as_str));
        hash.add(env!("CARGO_PKG_VERSION")).add(files::digest());
        hash.add("nix").file(self.resolve("nix-instantiate").as_deref());
        let search = self.config.nix_path.clone().or_else(|| std::env::var("NIX_PATH").ok());
        hash.add(search.as_deref().unwrap_or("unset"));
        for entry in nix_path(search.as_deref()) {
            hash.file(Some(&entry));
        }
        for (name, value) in &self.config.options {
            hash.add(name).add(value);
        }
        hash.add("settings").add(std::env::var("NIX_CONFIG").unwrap_or_default());
        for settings in settings_files() {
            hash.add(settings.to_string_lossy()).add(fs::read_to_string(&settings).unwrap_or_default());
        }
        Some(Cache(self.state.join("cache").join(format!("{:x}", hash.0.finalize()))))
    }
}

impl Cache {
    pub(super) fn names(&self) -> Option<Names> {
        load(&self.0.join("names.json"))
    }

    pub(super) fn keep_names(&self, names: &Names) {
        self.forget_oldest();
        self.keep(&self.0.join("names.json"), names);
    }

    /// A node whose system exists or can still be built.
    pub(super) fn node(&self, name: &NodeName) -> Option<Evaluated> {
        let known = load(&self.file(name))?;
        let there = match &known {
            Evaluated::Disabled | Evaluated::NotDeployable(_) => true,
            Evaluated::Node(spec) => {
                let ciphertexts = spec.secrets.values().filter_map(|secret| secret.ciphertext());
                let encrypted = || ciphertexts.clone().all(|path| exists(path.as_str()));
                (exists(spec.drv.as_str()) && spec.closure_drvs.iter().all(|drv| exists(drv.as_str()))
                    || exists(spec.toplevel.as_str())
                        && spec.closure_paths.iter().all(|path| exists(path.as_str())))
                    && encrypted()
            }
        };
        there.then_some(known)
    }

    pub(super) fn keep_node(&self, name: &NodeName, evaluated: &Evaluated) {
        self.keep(&self.file(name), evaluated);
    }

    /// Nodes have a folder of their own: one may be called `names`.
    fn file(&self, name: &NodeName) -> PathBuf {
        self.0.join("nodes").join(format!("{name}.json"))
    }

    fn keep(&self, path: &Path, value: &impl Serialize) {
        let written = || -> std::io::Result<()> {
            let folder = path.parent().unwrap_or(&self.0);
            fs::create_dir_all(folder)?;
            let mut file = tempfile::NamedTempFile::new_in(folder)?;
            file.write_all(&serde_json::to_vec(value)?)?;
            file.persist(path)?;
            Ok(())
        };
        if let Err(error) = written() {
            tracing::warn!(path = %path.display(), %error, "cannot cache an evaluation");
        }
    }

    /// Drops the deployments that were not evaluated for the longest time.
    fn forget_oldest(&self) {
        let Some(Ok(entries)) = self.0.parent().map(fs::read_dir) else { return };
        let age =
            |path: &Path| path.metadata().and_then(|data| data.modified()).unwrap_or(SystemTime::UNIX_EPOCH);
        let mut all: Vec<_> = entries.flatten().map(|entry| (age(&entry.path()), entry.path())).collect();
        all.sort();
        for (_, old) in
            all.iter().take((all.len() + 1).saturating_sub(KEPT)).filter(|(_, path)| *path != self.0)
        {
            if let Err(error) = fs::remove_dir_all(old) {
                tracing::warn!(path = %old.display(), %error, "cannot drop an old evaluation");
            }
        }
    }
}

fn load<T: DeserializeOwned>(path: &Path) -> Option<T> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

fn exists(path: &str) -> bool {
    // Not `exists`: a store path may be a link that points nowhere.
    Path::new(path).symlink_metadata().is_ok()
}

/// A digest of parts that cannot run into each other.
struct Key(Sha256);

impl Key {
    fn add(&mut self, part: impl AsRef<str>) -> &mut Self {
        let part = part.as_ref();
        self.0.update((part.len() as u64).to_le_bytes());
        self.0.update(part.as_bytes());
        self
    }

    /// Where a path leads. What is not in the store (and thus can change in place) counts by its time and size as well.
    fn file(&mut self, path: Option<&Path>) -> &mut Self {
        let Some(path) = path.and_then(|path| path.canonicalize().ok()) else { return self.add("missing") };
        self.add(path.to_string_lossy());
        if !path.starts_with("/nix/store")
            && let Ok(data) = path.metadata()
        {
            let modified = data.modified().ok().and_then(|at| at.duration_since(SystemTime::UNIX_EPOCH).ok());
            self.add(format!("{modified:?} {}", data.len()));
        }
        self
    }
}

/// The folders that a `NIX_PATH` leads to; without one, Nix's defaults (nix-instantiate(1), "NIX_PATH").
fn nix_path(value: Option<&str>) -> Vec<PathBuf> {
    let home = std::env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
    match value {
        Some(value) => value
            .split(':')
            .map(|entry| entry.split_once('=').map_or(entry, |(_, path)| path))
            .map(PathBuf::from)
            .collect(),
        None => vec![
            home.join(".nix-defexpr/channels"),
            "/nix/var/nix/profiles/per-user/root/channels/nixpkgs".into(),
            "/nix/var/nix/profiles/per-user/root/channels".into(),
        ],
    }
}

/// nix.conf(5), "Nix reads settings".
fn settings_files() -> Vec<PathBuf> {
    let home = std::env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
    let system = std::env::var_os("NIX_CONF_DIR").map_or_else(|| "/etc/nix".into(), PathBuf::from);
    let user = std::env::var_os("XDG_CONFIG_HOME").map_or_else(|| home.join(".config"), PathBuf::from);
    vec![system.join("nix.conf"), user.join("nix/nix.conf")]
}
