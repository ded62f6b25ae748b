//! `driftless.toml`, parsed and validated. Unknown keys are errors: a typo must not become a default.
//!
//! Every key is documented in `deploy/driftless.example.toml`; a test keeps the two equal.

mod evaluation;
mod shipping;

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Deserializer};

use crate::model::format::Format;
use crate::model::hook::HookPolicy;

pub use evaluation::{Bytes, EvalConfig};
pub use shipping::{Builders, CacheConfig, CacheKind, CacheUrl};

/// Where the configuration is looked for when `--config` is not given.
pub const DEFAULT_PATH: &str = "/etc/driftless/driftless.toml";

/// A configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration {}; name another with --config, or write one with `driftless init`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file is not what it has to be.
    #[error("the configuration {} is not valid", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// Where and why.
        #[source]
        source: Box<toml::de::Error>,
    },
    /// A setting of Nix is given in two ways.
    #[error("the configuration {} has nix.{setting} and nix.options.{setting}; keep the first", path.display())]
    Twice {
        /// The file.
        path: PathBuf,
        /// Its name.
        setting: &'static str,
    },
}

/// The whole configuration of a controller.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// What is followed.
    pub source: SourceConfig,
    /// How the nix programs are run.
    #[serde(default)]
    pub nix: NixConfig,
    /// How deployments are evaluated.
    #[serde(default)]
    pub eval: EvalConfig,
    /// How nodes are reached.
    #[serde(default)]
    pub ssh: SshConfig,
    /// How secrets are decrypted.
    #[serde(default)]
    pub secrets: SecretsConfig,
    /// How nodes are watched.
    #[serde(default)]
    pub observe: ObserveConfig,
    /// How the controller can be asked.
    #[serde(default)]
    pub serve: ServeConfig,
}

/// The repository, branch and deployment file that are followed. `Debug` shows no credentials.
#[derive(Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceConfig {
    /// Anything `git fetch` understands; a local path is also watched.
    pub url: String,
    /// The branch.
    #[serde(default = "default::branch")]
    pub branch: String,
    /// Path of the deployment file in the repository, or `.` for a flake.
    #[serde(default = "default::deployment")]
    pub deployment: String,
    /// The format of the deployment; default: the one that it is recognised as.
    #[serde(default)]
    pub format: Option<Format>,
    /// Time between fetches; a random tenth is added.
    #[serde(default = "default::poll", deserialize_with = "duration")]
    pub poll: Duration,
    /// Longest time for one fetch.
    #[serde(default = "default::fetch_timeout", deserialize_with = "duration")]
    pub timeout: Duration,
    /// Whether hooks from the repository are run here.
    #[serde(default)]
    pub hooks: HookPolicy,
}

/// How the nix programs are run.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NixConfig {
    /// Builds (of nodes) at a time; Nix itself runs `max-jobs` derivations in each.
    pub builds: usize,
    /// Longest time for one node's build.
    #[serde(deserialize_with = "duration")]
    pub build_timeout: Duration,
    /// A copy that makes no progress for so long is given up.
    #[serde(deserialize_with = "duration")]
    pub copy_stall: Duration,
    /// Machines that build for this one.
    pub builders: Option<Builders>,
    /// A secret key (`nix-store --generate-binary-cache-key`) by which everything that is built is signed.
    #[serde(deserialize_with = "shipping::absolute_path")]
    pub signing_key_file: Option<PathBuf>,
    /// The binary cache that each release is pushed to.
    pub cache: Option<CacheConfig>,
    /// `NIX_PATH` of evaluations, for example `nixpkgs=/etc/nixpkgs`; default: the controller's own.
    pub nix_path: Option<String>,
    /// Further Nix settings (nix.conf(5)), given as `--option NAME VALUE`.
    pub options: BTreeMap<String, String>,
}

impl Default for NixConfig {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            builds: cores,
            build_timeout: Duration::from_secs(2 * 60 * 60),
            copy_stall: Duration::from_secs(5 * 60),
            builders: None,
            signing_key_file: None,
            cache: None,
            nix_path: None,
            options: BTreeMap::new(),
        }
    }
}

/// How nodes are reached.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SshConfig {
    /// Private key; default: what the user's SSH configuration and agent offer.
    pub identity_file: Option<PathBuf>,
    /// known_hosts file; default: the user's.
    pub known_hosts_file: Option<PathBuf>,
    /// What is done about host keys that nobody declared.
    pub unknown_hosts: UnknownHosts,
    /// Longest time for a TCP connection.
    #[serde(deserialize_with = "duration")]
    pub connect_timeout: Duration,
}

impl Default for SshConfig {
    fn default() -> Self {
        Self {
            identity_file: None,
            known_hosts_file: None,
            unknown_hosts: UnknownHosts::Refuse,
            connect_timeout: Duration::from_secs(10),
        }
    }
}

/// What is done about host keys that nobody declared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UnknownHosts {
    /// Not connected to.
    Refuse,
    /// Trusted at first use and remembered; a changed key is refused all the same.
    TrustFirst,
}

/// How secrets are decrypted.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SecretsConfig {
    /// Files with identities of age or private SSH keys; default: the user's SSH keys.
    pub identity_files: Vec<PathBuf>,
    /// Time between two comparisons of a node's secrets while its system stays.
    #[serde(deserialize_with = "duration")]
    pub refresh: Duration,
}

impl Default for SecretsConfig {
    fn default() -> Self {
        Self { identity_files: Vec::new(), refresh: Duration::from_secs(60 * 60) }
    }
}

/// How nodes are watched.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ObserveConfig {
    /// Time between two reads of one node; a random tenth is added.
    #[serde(deserialize_with = "duration")]
    pub interval: Duration,
    /// Longest time for one read.
    #[serde(deserialize_with = "duration")]
    pub timeout: Duration,
    /// Reads at a time.
    pub concurrency: usize,
}

impl Default for ObserveConfig {
    fn default() -> Self {
        Self { interval: Duration::from_secs(30), timeout: Duration::from_secs(20), concurrency: 32 }
    }
}

/// How the controller can be asked.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ServeConfig {
    /// Address of the HTTP server: page, JSON, metrics.
    #[serde(deserialize_with = "address")]
    pub listen: SocketAddr,
    /// Unix socket for the command line.
    pub socket: PathBuf,
    /// The token that acting over HTTP takes; without one it is for the unix socket only.
    #[serde(deserialize_with = "shipping::absolute_path")]
    pub token_file: Option<PathBuf>,
}

impl Default for ServeConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 9737)),
            socket: PathBuf::from("/run/driftless/control.sock"),
            token_file: None,
        }
    }
}

impl fmt::Debug for SourceConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { url: _, branch, deployment, format, poll, timeout, hooks } = self;
        f.debug_struct("SourceConfig")
            .field("url", &self.display_url())
            .field("branch", branch)
            .field("deployment", deployment)
            .field("format", format)
            .field("poll", poll)
            .field("timeout", timeout)
            .field("hooks", hooks)
            .finish()
    }
}

impl Config {
    /// Reads and validates a file.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text =
            fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        let config: Self = toml::from_str(&text)
            .map_err(|source| ConfigError::Parse { path: path.to_owned(), source: Box::new(source) })?;
        if config.nix.builders.is_some() && config.nix.options.contains_key("builders") {
            return Err(ConfigError::Twice { path: path.to_owned(), setting: "builders" });
        }
        Ok(config)
    }
}

/// The state directory: `$STATE_DIRECTORY` (systemd.exec(5)), else `/var/lib/driftless`.
pub fn state_dir(from_environment: Option<String>) -> PathBuf {
    // systemd separates several directories by colons; the first is ours.
    let first = from_environment.and_then(|all| all.split(':').next().map(str::to_owned));
    first.filter(|path| !path.is_empty()).map_or_else(|| PathBuf::from("/var/lib/driftless"), PathBuf::from)
}

/// Reads "30s", "5m", "1h 30m"; a bare number has no unit and is refused.
fn duration<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    let text = from.deserialize_str(Text("a duration such as \"30s\", \"5m\" or \"2h\""))?;
    let refused = |why: &str| {
        serde::de::Error::custom(format!(
            "bad duration {text:?}{why}; write for example \"30s\", \"5m\" or \"2h\""
        ))
    };
    // What the parser says is about its grammar; the example says more.
    let parsed: jiff::SignedDuration = text.parse().map_err(|_| refused(""))?;
    match Duration::try_from(parsed) {
        Ok(zero) if zero.is_zero() => Err(refused(": it is zero")),
        Ok(positive) => Ok(positive),
        Err(_) => Err(refused(": it is negative")),
    }
}

/// Reads "127.0.0.1:9737" or "[::1]:9737"; a name or a bare port is refused.
fn address<'de, D: Deserializer<'de>>(from: D) -> Result<SocketAddr, D::Error> {
    let text = from.deserialize_str(Text("an address with a port such as \"127.0.0.1:9737\""))?;
    text.parse().map_err(|_| {
        serde::de::Error::custom(format!(
            "bad address {text:?}; write an IP address and a port, for example \"127.0.0.1:9737\" or \"[::1]:9737\""
        ))
    })
}

/// Takes text; of anything else it says what the text should have been.
struct Text(&'static str);

impl serde::de::Visitor<'_> for Text {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<String, E> {
        Ok(text.to_owned())
    }
}

mod default {
    use std::time::Duration;

    pub fn branch() -> String {
        "main".into()
    }
    pub fn deployment() -> String {
        "deployment.nix".into()
    }
    pub fn poll() -> Duration {
        Duration::from_secs(60)
    }
    pub fn fetch_timeout() -> Duration {
        Duration::from_secs(300)
    }
}

#[cfg(test)]
mod schema;

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("driftless.toml");
        fs::write(&path, text).unwrap();
        Config::load(&path).map_err(|error| format!("{:#}", anyhow::Error::new(error)))
    }

    #[test]
    fn the_minimal_file_is_enough() {
        let config = parse("[source]\nurl = \"/srv/infra.git\"\n").unwrap();
        assert_eq!(
            (config.source.branch.as_str(), config.source.deployment.as_str()),
            ("main", "deployment.nix")
        );
        assert_eq!(config.observe.interval, Duration::from_secs(30));
    }

    #[test]
    fn an_unknown_key_is_named_with_its_line() {
        let error = parse("[source]\nurl = \"x\"\nbrunch = \"main\"\n").unwrap_err();
        assert!(error.contains("brunch") && error.contains("line 3"), "{error}");
    }

    #[test]
    fn a_bad_duration_says_what_would_be_good() {
        for bad in ["30", "fast", "0s", "-5m"] {
            let error = parse(&format!("[source]\nurl = \"x\"\npoll = \"{bad}\"\n")).unwrap_err();
            assert!(error.contains(&format!("bad duration {bad:?}")) && error.contains("\"30s\""), "{error}");
        }
    }

    #[test]
    fn a_number_or_a_bare_port_is_answered_with_what_it_should_be() {
        let error = parse("[source]\nurl = \"x\"\npoll = 30\n").unwrap_err();
        assert!(error.contains("line 3") && error.contains("expected a duration such as \"30s\""), "{error}");
        for bad in ["9737", "localhost:9737"] {
            let error = parse(&format!("[source]\nurl = \"x\"\n[serve]\nlisten = \"{bad}\"\n")).unwrap_err();
            assert!(error.contains(bad) && error.contains("\"127.0.0.1:9737\""), "{error}");
        }
    }

    #[test]
    fn a_missing_file_says_which_and_what_to_do() {
        let error = Config::load(Path::new("/no/such/driftless.toml")).unwrap_err().to_string();
        assert_eq!(
            error,
            "cannot read the configuration /no/such/driftless.toml; name another with --config, or write one with `driftless init`"
        );
    }

    #[test]
    fn builders_that_are_given_in_two_ways_are_refused() {
        let options = "[source]\nurl = \"x\"\n[nix]\nbuilders = \"b1\"\noptions = { builders = \"b2\" }\n";
        assert!(
            parse(options).unwrap_err().contains("nix.builders and nix.options.builders; keep the first")
        );
    }

    const EXAMPLE: &str = include_str!("../deploy/driftless.example.toml");

    /// The example with every key that is commented out switched on.
    fn whole_example() -> String {
        let keys = |line: &str| match line.strip_prefix('#') {
            Some(key) if key.starts_with(|first: char| first.is_ascii_lowercase()) => key.to_owned(),
            Some(_) | None => line.to_owned(),
        };
        EXAMPLE.lines().map(keys).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn the_example_is_the_minimal_file_and_shows_the_defaults() {
        let minimal = parse("[source]\nurl = \"https://git.example.org/infra.git\"\n").unwrap();
        assert_eq!(parse(EXAMPLE).unwrap(), minimal);
        let mut whole = parse(&whole_example()).unwrap();
        // These have no default, or one that depends on the machine.
        whole.eval.workers = minimal.eval.workers;
        whole.eval.memory = None;
        whole.eval.chunk = None;
        whole.nix.builds = minimal.nix.builds;
        whole.nix.nix_path = None;
        (whole.nix.builders, whole.nix.signing_key_file, whole.nix.cache) = (None, None, None);
        whole.source.format = None;
        whole.serve.token_file = None;
        whole.nix.options.clear();
        whole.ssh.identity_file = None;
        whole.ssh.known_hosts_file = None;
        assert_eq!(whole, minimal);
    }

    #[test]
    fn the_example_mentions_every_key() {
        let whole: toml::Table = whole_example().parse().unwrap();
        let sections = known_keys("no-such-key = 1\n");
        assert!(sections.contains(&"source".to_owned()), "{sections:?}");
        for section in sections {
            let mentioned = whole.get(&section).and_then(toml::Value::as_table);
            let mentioned = mentioned.unwrap_or_else(|| panic!("the example has no [{section}]"));
            let url = if section == "source" { "" } else { "[source]\nurl = \"x\"\n" };
            for key in known_keys(&format!("{url}[{section}]\nno-such-key = 1\n")) {
                assert!(mentioned.contains_key(&key), "the example does not mention {section}.{key}");
            }
        }
    }

    /// The keys that would have been known where the document has one that is not: the parser lists them.
    fn known_keys(document: &str) -> Vec<String> {
        let error = toml::from_str::<Config>(document).unwrap_err().message().to_owned();
        let (_, expected) = error.split_once("expected").expect("the parser lists what it knows");
        expected.split('`').skip(1).step_by(2).map(str::to_owned).collect()
    }
}
