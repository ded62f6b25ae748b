//! What was built → signed, and pushed to the binary cache, before nodes are asked to take it. Nobody waits for a cache that
//! does not answer: what could not be pushed, the nodes get from here.
//!
//! One push at a time, of everything that was built meanwhile: the systems of a fleet share most of their paths, and each is
//! read, compressed and signed once, not once for each node.

use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

use super::copy::quoted;
use super::watched::{self, Patience, Unfinished};
use super::{Nix, NixError};
use crate::command::{self, CommandError, Tail};
use crate::config::{CacheConfig, CacheKind};
use crate::error_chain::error_chain;
use crate::model::store_path::StorePath;

/// Signing reads the store's database and writes to it; it waits at most for somebody else's lock.
const SIGN: Duration = Duration::from_secs(300);
/// After a push that failed no other is tried for so long, or each node of a release would wait for the same cache in turn.
const PAUSE: Duration = Duration::from_secs(60);
/// Longest time for a connection to a cache, seconds.
const CONNECT: &str = "10";

/// What publishing came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Publication {
    /// Nothing is to be published.
    NotAsked,
    /// It is signed, and in the cache.
    Done,
    /// It is not, and why. It can be deployed all the same.
    Failed(String),
}

/// What waits to be published, and who is at it.
#[derive(Debug, Default)]
pub(super) struct Queue {
    waiting: Mutex<Vec<Weak<Ticket>>>,
    /// Held while publishing.
    cache: tokio::sync::Mutex<CacheState>,
}

#[derive(Debug)]
struct Ticket {
    paths: Vec<StorePath>,
    outcome: OnceLock<Publication>,
}

#[derive(Debug, Default)]
struct CacheState {
    /// When the last push failed, and how.
    failed: Option<(Instant, String)>,
}

impl Queue {
    fn enter(&self, paths: &[StorePath]) -> Arc<Ticket> {
        let ticket = Arc::new(Ticket { paths: paths.to_vec(), outcome: OnceLock::new() });
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::downgrade(&ticket));
        ticket
    }

    /// Everything that waits and that somebody still waits for. One whose publisher was cancelled finds its own way.
    fn batch(&self, own: &Arc<Ticket>) -> Vec<Arc<Ticket>> {
        let waiting = std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner));
        let others = waiting.iter().filter_map(Weak::upgrade).filter(|other| !Arc::ptr_eq(other, own));
        others.chain([Arc::clone(own)]).collect()
    }
}

impl Nix {
    /// Signs paths with all they need, and pushes them to the cache, as far as the configuration asks for it.
    pub async fn publish(&self, paths: &[StorePath]) -> Publication {
        if self.config.signing_key_file.is_none() && self.config.cache.is_none() {
            return Publication::NotAsked;
        }
        let ticket = self.queue.enter(paths);
        let mut cache = self.queue.cache.lock().await;
        if let Some(outcome) = ticket.outcome.get() {
            return outcome.clone();
        }
        let batch = self.queue.batch(&ticket);
        let mut all: Vec<StorePath> = batch.iter().flat_map(|ticket| ticket.paths.clone()).collect();
        all.sort();
        all.dedup();
        let outcome = self.publish_now(&mut cache, &all).await;
        for ticket in batch {
            // Set once: whoever holds the queue sets it.
            let _ = ticket.outcome.set(outcome.clone());
        }
        outcome
    }

    /// Whether the signing key can be used, before anything depends on it.
    pub fn check_signing_key(&self) -> Result<(), NixError> {
        self.config.signing_key_file.as_deref().map_or(Ok(()), check_key)
    }

    async fn publish_now(&self, cache: &mut CacheState, paths: &[StorePath]) -> Publication {
        let mut troubles = Vec::new();
        if let Some(key) = &self.config.signing_key_file
            && let Err(error) = self.sign(key, paths).await
        {
            troubles.push(error_chain(&error));
        }
        if let Some(config) = &self.config.cache {
            let recent = cache.failed.as_ref().filter(|(at, _)| at.elapsed() < PAUSE);
            match recent {
                Some((_, said)) => troubles.push(said.clone()),
                None => match self.push_to_cache(config, paths).await {
                    Ok(()) => cache.failed = None,
                    Err(error) => {
                        let said = error_chain(&error);
                        cache.failed = Some((Instant::now(), said.clone()));
                        troubles.push(said);
                    }
                },
            }
        }
        if troubles.is_empty() { Publication::Done } else { Publication::Failed(troubles.join("\n")) }
    }

    /// Puts our signature beside each path in the store here, from where every copy takes it along.
    async fn sign(&self, key: &Path, paths: &[StorePath]) -> Result<(), NixError> {
        check_key(key)?;
        let mut command = self.program("nix");
        command.args(["--extra-experimental-features", "nix-command", "store", "sign", "--recursive"]);
        command.arg("--key-file").arg(key).args(paths.iter().map(StorePath::as_str));
        match command::run(command, SIGN).await {
            Ok(_) => Ok(()),
            Err(CommandError::Failed { tail, .. }) => {
                Err(NixError::Sign { key: key.to_owned(), hint: signing_hint(&tail), said: tail })
            }
            Err(source) => Err(NixError::SignRun { key: key.to_owned(), source }),
        }
    }

    async fn push_to_cache(&self, cache: &CacheConfig, paths: &[StorePath]) -> Result<(), NixError> {
        let mut command = self.program("nix");
        command
            .args(["--extra-experimental-features", "nix-command", "copy", "--to", &self.cache_url(cache)])
            .args(["--no-check-sigs", "--log-format", "internal-json"])
            // It can ask nobody, and must not hang where a firewall swallows what it sends.
            .env(
                "NIX_SSHOPTS",
                format!("-oBatchMode=yes -oConnectTimeout={CONNECT} -oServerAliveInterval=15"),
            );
        let stall = self.config.copy_stall;
        let limits =
            [("connect-timeout", CONNECT), ("stalled-download-timeout", &stall.as_secs().max(1).to_string())];
        for (name, value) in limits {
            if !self.config.options.contains_key(name) {
                command.args(["--option", name, value]);
            }
        }
        command.args(paths.iter().map(StorePath::as_str));
        let stall = match cache.url.kind() {
            CacheKind::Files | CacheKind::Ssh => stall,
            // What curl sends is not counted where we look, and curl gives up by the limit above.
            CacheKind::Http => cache.timeout,
        };
        let patience = Patience { longest: cache.timeout, stall };
        let began = Instant::now();
        watched::run(command, patience, &mut |_| {}).await.map_err(|unfinished| {
            let url = cache.url.to_string();
            match unfinished {
                Unfinished::Failed(_, said) => NixError::CachePush { url, stalled: None, said },
                Unfinished::Stalled(after, said) => NixError::CachePush { url, stalled: Some(after), said },
                Unfinished::Command(source) => NixError::CachePushRun { url, source },
            }
        })?;
        tracing::debug!(cache = %cache.url, systems = paths.len(), took = ?began.elapsed(), "pushed");
        Ok(())
    }

    /// Where to push, and how. Caches made of files are signed by whoever writes them, whatever this host's daemon thinks of
    /// us. Nix's own choice, xz, takes fifty times as long as zstd to make files that are a third smaller.
    pub(super) fn cache_url(&self, cache: &CacheConfig) -> String {
        let mut url = cache.url.as_str().to_owned();
        let key = self.config.signing_key_file.as_ref().map(|key| quoted(&key.display().to_string()));
        let parameters = match cache.url.kind() {
            CacheKind::Files | CacheKind::Http => {
                [("compression", Some("zstd".to_owned())), ("secret-key", key)]
            }
            CacheKind::Ssh => return url,
        };
        for (name, value) in parameters {
            let given = url.contains(&format!("?{name}=")) || url.contains(&format!("&{name}="));
            if let Some(value) = value.filter(|_| !given) {
                url.push(if url.contains('?') { '&' } else { '?' });
                url.push_str(&format!("{name}={value}"));
            }
        }
        url
    }
}

/// What to do about a signature that the store here does not take.
fn signing_hint(said: &Tail) -> &'static str {
    if said.0.iter().any(|line| line.contains("privileged") || line.contains("not trusted")) {
        "\nput this user into trusted-users of this host's nix.conf, or name the key there in secret-key-files instead of here"
    } else {
        ""
    }
}

/// A name, a colon, and 64 bytes in base64. Nothing of it is ever shown.
fn check_key(path: &Path) -> Result<(), NixError> {
    let unusable = |why| Err(NixError::Key { path: path.to_owned(), why });
    let text = std::fs::read_to_string(path)
        .map_err(|source| NixError::KeyFile { path: path.to_owned(), source })?;
    let Some((name, key)) = text.trim_end().split_once(':') else {
        return unusable("it is not of the form NAME:BASE64");
    };
    let base64 = key.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/' | b'='));
    match key.len() {
        _ if name.is_empty() || name.contains(char::is_whitespace) => {
            unusable("it does not begin with a name")
        }
        _ if !base64 => unusable("what follows the name is not base64"),
        88 => Ok(()),
        44 => unusable("it is the public key, not the secret one"),
        _ => unusable("it has not the length of a key"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_no_secret_key_is_told_from_one_and_never_shown() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        let check = |text: &str| {
            std::fs::write(&path, text).unwrap();
            check_key(&path).map_err(|error| error.to_string())
        };
        let secret = "S".repeat(86) + "==";
        assert_eq!(check(&format!("infra-1:{secret}\n")), Ok(()));
        for (text, word) in [
            (secret.clone(), "NAME:BASE64"),
            (format!(":{secret}"), "a name"),
            (format!("x:{}=", "S".repeat(43)), "public key"),
            (format!("x:{}", "S".repeat(80)), "length"),
            (format!("x:{}!!", "S".repeat(86)), "base64"),
        ] {
            let error = check(&text).unwrap_err();
            assert!(error.contains(word) && error.contains("generate-binary-cache-key"), "{error}");
            assert!(!error.contains("SSS"), "{error}");
        }
        let missing = check_key(&dir.path().join("none")).unwrap_err();
        assert!(matches!(missing, NixError::KeyFile { .. }), "{missing}");
    }

    #[tokio::test]
    async fn whoever_publishes_takes_along_all_that_waits_and_nobody_who_went_away() {
        let queue = Queue::default();
        let paths = |name: &str| -> Vec<StorePath> {
            vec![format!("/nix/store/{}-{name}", "a".repeat(32)).parse().unwrap()]
        };
        let [own, other, gone] = ["own", "other", "gone"].map(|name| queue.enter(&paths(name)));
        drop(gone);
        let batch: Vec<_> =
            queue.batch(&own).iter().map(|ticket| ticket.paths[0].name().to_owned()).collect();
        assert_eq!(batch, ["other", "own"]);
        // Its publisher was cancelled: it publishes for itself.
        assert_eq!(queue.batch(&other).len(), 1);
    }
}
