//! A deployment of so many nodes, and the ways to evaluate it: by hand, and as driftless does it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use driftless::config::{Bytes, EvalConfig, NixConfig};
use driftless::model::name::NodeName;
use driftless::nix::{Deployment, Evaluated, Nix, NixError, Place};
use tempfile::TempDir;
use tokio::process::Command;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

use crate::memory::{Cost, watching};

/// What real nodes are: a mail or web server of a small company.
const REAL: &str = "boot.loader.grub.device = \"nodev\"; fileSystems.\"/\".device = \"/dev/sda1\"; services.openssh.enable = true; \
                    services.nginx.enable = true; services.postgresql.enable = true; users.users.u.isNormalUser = true; documentation.enable = false;";
/// What the small nixpkgs of the tests knows.
const SMALL: &str = "boot.isContainer = true; environment.etc.hello.text = \"hello\";";

/// What the nodes are evaluated with.
pub enum Nixpkgs {
    /// That of the tests.
    Small(PathBuf),
    /// The one that was named.
    Real(PathBuf),
}

impl Nixpkgs {
    /// The one that is named by the environment, else that of the tests.
    pub fn chosen() -> Self {
        match std::env::var_os("DRIFTLESS_TEST_NIXPKGS") {
            Some(path) => Self::Real(path.into()),
            None => Self::Small(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/nixpkgs")),
        }
    }

    /// For people.
    pub fn told(&self) -> &'static str {
        match self {
            Self::Small(_) => "the small nixpkgs of the tests (DRIFTLESS_TEST_NIXPKGS names another)",
            Self::Real(_) => "a real nixpkgs; each node has openssh, nginx, postgresql and a user",
        }
    }

    fn path(&self) -> &Path {
        let (Self::Small(path) | Self::Real(path)) = self;
        path
    }
}

/// A deployment, and a state directory.
pub struct Fleet<'a> {
    folder: TempDir,
    nixpkgs: &'a Nixpkgs,
    /// How many nodes it has.
    pub nodes: usize,
    /// Processors.
    pub cores: usize,
}

impl<'a> Fleet<'a> {
    /// Writes the deployment.
    pub fn new(nixpkgs: &'a Nixpkgs, nodes: usize) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let body = match nixpkgs {
            Nixpkgs::Small(_) => SMALL,
            Nixpkgs::Real(_) => REAL,
        };
        let text = format!(
            "import {} {{ }} ({{ ... }}: {{ defaults = {{ ... }}: {{ nixpkgs = <nixpkgs>; }}; nodes = builtins.listToAttrs (builtins.genList \
             (i: {{ name = \"n${{toString i}}\"; value.configuration = {{ networking.hostName = \"n${{toString i}}\"; {body} system.stateVersion = \"24.05\"; }}; }}) {nodes}); }})",
            Path::new(env!("CARGO_MANIFEST_DIR")).join("nix").display()
        );
        fs::write(folder.path().join("deployment.nix"), text)?;
        let cores = std::thread::available_parallelism()?.get();
        Ok(Self { folder, nixpkgs, nodes, cores })
    }

    /// Whether its nodes cost next to nothing.
    pub fn is_small(&self) -> bool {
        matches!(self.nixpkgs, Nixpkgs::Small(_))
    }

    /// The memory that driftless may have here: 2 GiB for each processor.
    pub fn budget(&self) -> Bytes {
        Bytes(self.cores as u64 * (2 << 30))
    }

    /// Has driftless know nothing of the nodes.
    pub fn forget(&self) -> Result<()> {
        let known = self.folder.path().join("state/evaluated");
        if known.exists() { fs::remove_dir_all(&known).context("forgetting") } else { Ok(()) }
    }

    fn search_path(&self) -> String {
        format!("nixpkgs={}", self.nixpkgs.path().display())
    }

    fn deployment(&self) -> PathBuf {
        self.folder.path().join("deployment.nix")
    }

    /// Evaluates as driftless does; the same `tree` is the same commit.
    pub async fn divided(&self, tree: &str, budget: Bytes) -> Result<Cost> {
        let config = NixConfig { nix_path: Some(self.search_path()), ..NixConfig::default() };
        let eval = EvalConfig { memory: Some(budget), ..EvalConfig::default() };
        let nix = Nix::new(&config, &self.folder.path().join("state"))?.evaluating(&eval);
        let deployment = Deployment {
            place: Place::File(self.deployment()),
            cache_key: Some(tree.to_owned()),
            top: Some(self.folder.path().to_owned()),
            read_as: None,
        };
        let work = async {
            let names = nix.names(&deployment).await?;
            let (out, mut answers) = mpsc::channel::<(NodeName, Result<Evaluated, NixError>)>(16);
            // Moved: who stops listening has to be noticed by who sends.
            let count = async move {
                let mut count = 0;
                while let Some((name, answer)) = answers.recv().await {
                    answer.with_context(|| name.to_string())?;
                    count += 1;
                }
                anyhow::Ok(count)
            };
            tokio::join!(nix.evaluate(&deployment, names.nodes, out), count).1
        };
        let (count, cost) = watching(work).await;
        if count? != self.nodes {
            bail!("not every node was evaluated");
        }
        Ok(cost)
    }

    /// Evaluates with commands as a person would write them: so many nodes in a process, so many processes at a time.
    pub async fn by_hand(&self, chunk: usize, processes: usize, heap: Option<&str>) -> Result<Cost> {
        let limit = Arc::new(Semaphore::new(processes));
        let names: Vec<String> = (0..self.nodes).map(|at| format!("n{at}")).collect();
        let work = async {
            let mut running = JoinSet::new();
            for chunk in names.chunks(chunk) {
                let (limit, mut command) = (Arc::clone(&limit), self.command(&chunk.iter().collect(), heap));
                running.spawn(async move {
                    let _permit = limit.acquire_owned().await;
                    command.status().await
                });
            }
            while let Some(ended) = running.join_next().await {
                let status = ended??;
                if !status.success() {
                    bail!("nix-instantiate ended with {status}");
                }
            }
            Ok(())
        };
        let (done, cost) = watching(work).await;
        done.map(|()| cost)
    }

    fn command(&self, nodes: &BTreeSet<&String>, heap: Option<&str>) -> Command {
        let quoted: Vec<String> = nodes.iter().map(|name| format!("{name:?}")).collect();
        let mut command = Command::new("nix-instantiate");
        command.args(["--eval", "--strict", "--json", "--read-write-mode"]);
        command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("nix/manifest.nix"));
        command.arg("--argstr").arg("deployment").arg(self.deployment());
        command.args(["--argstr", "want", "nodes", "--argstr", "nodes", &format!("[{}]", quoted.join(","))]);
        command.env("NIX_PATH", self.search_path()).stdout(Stdio::null()).kill_on_drop(true);
        if let Some(heap) = heap {
            command.env("GC_INITIAL_HEAP_SIZE", heap);
        }
        command
    }
}
