//! A fleet as people have one: lab nodes, a Git repository with a deployment, and a controller that follows it.
//!
//! Starts the `driftless` binary as anybody would, with a configuration file; knows nothing of its code.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::lab::Lab;
use crate::node::Node;
use crate::program::{Output, bounded, require, run};
use crate::system::nix_config;

/// Longest time for one command line.
const COMMAND: Duration = Duration::from_secs(120);
/// Between two looks at a condition.
const LOOK: Duration = Duration::from_millis(100);

/// Nodes, repository and controller. The controller is stopped when this is dropped.
pub struct Fleet {
    /// The nodes by name.
    pub nodes: BTreeMap<String, Node>,
    dir: tempfile::TempDir,
    lab: Lab,
    binary: PathBuf,
    project: PathBuf,
    port: u16,
    controller: Option<Child>,
    /// Further environment of the controller.
    further: BTreeMap<String, String>,
}

impl Fleet {
    /// A fleet of running nodes with an empty repository. `project` is the checkout with `nix/` and `tests/nixpkgs/`.
    pub fn new(lab: &Lab, nodes: Vec<Node>, binary: &Path, project: &Path) -> Result<Fleet> {
        let dir = tempfile::Builder::new().prefix("dl").tempdir_in("/tmp")?;
        // Free now; whoever takes it meanwhile makes the controller say so.
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let fleet = Fleet {
            nodes: nodes.into_iter().map(|node| (node.name().to_owned(), node)).collect(),
            dir,
            lab: lab.clone(),
            binary: binary.to_owned(),
            project: project.to_owned(),
            port,
            controller: None,
            further: BTreeMap::new(),
        };
        fs::create_dir(fleet.repository())?;
        fleet.git(&["init", "-q", "-b", "main"])?;
        fs::write(fleet.config_file(), fleet.config_text(&fleet.repository().display().to_string()))?;
        Ok(fleet)
    }

    /// The work tree that is followed.
    #[must_use]
    pub fn repository(&self) -> PathBuf {
        self.dir.path().join("infra")
    }

    /// The controller's configuration file.
    #[must_use]
    pub fn config_file(&self) -> PathBuf {
        self.dir.path().join("driftless.toml")
    }

    /// Follows another repository from the next start on.
    pub fn follow(&self, url: &str) -> Result<()> {
        Ok(fs::write(self.config_file(), self.config_text(url))?)
    }

    /// Sets a variable of the controller's environment from the next start on.
    pub fn set_env(&mut self, name: &str, value: &str) {
        self.further.insert(name.to_owned(), value.to_owned());
    }

    /// A place for whatever a test needs beside the repository; gone with the fleet.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The controller's state directory.
    #[must_use]
    pub fn state(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    /// The lab's configuration for ssh, which knows each node by its name.
    #[must_use]
    pub fn ssh_config(&self) -> PathBuf {
        self.lab.ssh_config()
    }

    /// The private key that may log in on every node.
    #[must_use]
    pub fn identity(&self) -> PathBuf {
        self.lab.identity()
    }

    /// Where the controller answers HTTP.
    #[must_use]
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// A configuration that follows `url`, with short intervals.
    #[must_use]
    pub fn config_text(&self, url: &str) -> String {
        format!(
            "[source]\nurl = \"{url}\"\npoll = \"5s\"\n\n[nix]\nnix_path = \"{}\"\n\n[ssh]\nidentity_file = \"{}\"\n\
             \n[observe]\ninterval = \"2s\"\n\n[serve]\nlisten = \"{}\"\nsocket = \"{}\"\n",
            self.nix_path(),
            self.lab.identity().display(),
            self.address(),
            self.dir.path().join("r/control.sock").display(),
        )
    }

    /// `NIX_PATH` with the test nixpkgs and driftless itself.
    #[must_use]
    pub fn nix_path(&self) -> String {
        let project = self.project.display();
        format!("nixpkgs={project}/tests/nixpkgs:driftless={project}")
    }

    /// A deployment file in the style of nixus: every node with how it is reached, and what `body` says of it.
    #[must_use]
    pub fn deployment(&self, fleet_wide: &str, body: impl Fn(&str) -> String) -> String {
        self.deployment_of(self.nodes.iter().map(|(name, node)| (name.as_str(), node)), fleet_wide, body)
    }

    /// The same for these nodes alone, each under the name that the deployment gives it: one machine may have several.
    #[must_use]
    pub fn deployment_of<'a>(
        &self,
        nodes: impl IntoIterator<Item = (&'a str, &'a Node)>,
        fleet_wide: &str,
        body: impl Fn(&str) -> String,
    ) -> String {
        let mut text = format!(
            "import <driftless> {{ }} ({{ config, lib, ... }}: {{\n  {fleet_wide}\n  defaults = {{ name, ... }}: {{\n    \
             hasFastConnection = true;\n    switchTimeout = lib.mkDefault 20;\n    successTimeout = lib.mkDefault 8;\n    healthTimeout = lib.mkDefault 8;\n    \
             configuration = {{ networking.hostName = lib.mkDefault name; }};\n  }};\n"
        );
        for (name, node) in nodes {
            let _ = writeln!(
                text,
                "  nodes.{name} = {{ pkgs, ... }}: {{\n    host = \"root@{}\";\n    hostKeys = [ \"{}\" ];\n    {}\n  }};",
                node.address(),
                node.host_key(),
                body(name)
            );
        }
        text + "})\n"
    }

    /// Writes files into the repository and commits them. Returns the commit.
    pub fn commit(&self, message: &str, files: &[(&str, &str)]) -> Result<String> {
        for (name, text) in files {
            let path = self.repository().join(name);
            if let Some(parent) = path.parent() {
                fs::create_dir_all(parent)?;
            }
            fs::write(path, text)?;
        }
        self.git(&["add", "--all"])?;
        self.git(&["commit", "-q", "--allow-empty", "-m", message])?;
        self.git(&["rev-parse", "HEAD"])
    }

    /// Runs git in the repository, untouched by whoever's configuration this machine has.
    pub fn git(&self, arguments: &[&str]) -> Result<String> {
        let mut git = bounded(COMMAND, "git");
        git.arg("-C").arg(self.repository()).args(arguments);
        git.env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_SYSTEM", "/dev/null");
        for role in ["AUTHOR", "COMMITTER"] {
            git.env(format!("GIT_{role}_NAME"), "Alice")
                .env(format!("GIT_{role}_EMAIL"), "alice@example.org");
        }
        require(&mut git)
    }

    /// Starts the controller; its words go to `controller.log` beside the configuration.
    pub fn start(&mut self) -> Result<()> {
        if self.controller.is_some() {
            bail!("the controller is running already");
        }
        let log = fs::OpenOptions::new().create(true).append(true).open(self.log_file())?;
        let mut command = Command::new(&self.binary);
        command.args(["run", "--config"]).arg(self.config_file());
        self.environment(&mut command);
        command.envs(&self.further);
        let child = command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn();
        self.controller = Some(child.context("starting the controller")?);
        Ok(())
    }

    /// The controller's process id, while it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.controller.as_ref().map(Child::id)
    }

    /// Makes the controller try everything now, as `systemctl reload` does.
    pub fn hang_up(&self) -> Result<()> {
        let pid = self.pid().context("no controller runs")?;
        require(bounded(COMMAND, "kill").args(["-HUP", &pid.to_string()])).map(drop)
    }

    /// Command lines of processes that have to do with this fleet: they name its directory, by argument or environment.
    #[must_use]
    pub fn processes(&self) -> Vec<String> {
        let own = self.dir.path().as_os_str().as_encoded_bytes();
        let names = |bytes: &[u8]| bytes.windows(own.len()).any(|part| part == own);
        let of = |entry: fs::DirEntry| {
            let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
            let line = fs::read(entry.path().join("cmdline")).ok()?;
            let environment = fs::read(entry.path().join("environ")).unwrap_or_default();
            let line = (names(&line) || names(&environment))
                .then(|| String::from_utf8_lossy(&line).replace('\0', " "))?;
            Some(format!("{pid} {line}"))
        };
        fs::read_dir("/proc").into_iter().flatten().flatten().filter_map(of).collect()
    }

    /// Everything the controller has said.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    fn log_file(&self) -> PathBuf {
        self.dir.path().join("controller.log")
    }

    /// Stops the controller as systemd would, and waits for it. Returns its exit code.
    pub fn stop(&mut self) -> Result<Option<i32>> {
        self.stop_within(Duration::from_secs(90))
    }

    fn stop_within(&mut self, patience: Duration) -> Result<Option<i32>> {
        let Some(mut child) = self.controller.take() else { return Ok(None) };
        let deadline = Instant::now() + patience;
        let told = require(bounded(COMMAND, "kill").args(["-TERM", &child.id().to_string()]));
        loop {
            if let Some(status) = child.try_wait()? {
                return Ok(status.code());
            }
            if told.is_err() || Instant::now() > deadline {
                child.kill()?;
                child.wait()?;
                bail!("the controller did not stop; {}", self.log());
            }
            std::thread::sleep(LOOK);
        }
    }

    /// Kills the controller without a word of warning.
    pub fn kill(&mut self) -> Result<()> {
        if let Some(mut child) = self.controller.take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    /// Whether the controller was started and still runs. One that ended by itself stays in the way of [`Fleet::start`].
    pub fn lives(&mut self) -> Result<bool> {
        match self.controller.as_mut() {
            Some(child) => Ok(child.try_wait()?.is_none()),
            None => Ok(false),
        }
    }

    /// Runs a command line of driftless against this fleet, in the repository.
    pub fn driftless(&self, arguments: &[&str]) -> Result<Output> {
        self.ready_to_say(arguments)()
    }

    /// The same for somebody who does not want to keep the fleet while it runs.
    pub fn ready_to_say(&self, arguments: &[&str]) -> impl FnOnce() -> Result<Output> + use<> {
        let mut command = bounded(COMMAND, &self.binary);
        command.args(arguments).arg("--config").arg(self.config_file()).current_dir(self.repository());
        self.environment(&mut command);
        move || run(&mut command)
    }

    /// What the fleet's programs need to know: no terminal, the test nixpkgs, a Nix without daemon and substituters.
    pub fn environment(&self, command: &mut Command) {
        command
            .env("STATE_DIRECTORY", self.state())
            .env("RUNTIME_DIRECTORY", self.dir.path().join("r"))
            .env("HOME", self.dir.path())
            .env("XDG_CACHE_HOME", self.dir.path().join("cache"))
            .env("NIX_PATH", self.nix_path())
            .env("NIX_CONFIG", nix_config())
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env_remove("SSH_AUTH_SOCK")
            .env_remove("NOTIFY_SOCKET");
    }

    /// One page of the controller's HTTP server.
    pub fn get(&self, path: &str) -> Result<String> {
        require(bounded(COMMAND, "curl").args([
            "-sS",
            "--fail-with-body",
            &format!("http://{}{path}", self.address()),
        ]))
    }

    /// The whole fleet, as the controller shows it.
    pub fn snapshot(&self) -> Result<Value> {
        Ok(serde_json::from_str(&self.get("/api/v1/fleet")?)?)
    }

    /// Waits until the controller shows what is wanted. Fails with what it shows instead, and with its log.
    pub fn wait(&mut self, what: &str, within: Duration, is: impl Fn(&Value) -> bool) -> Result<Value> {
        let deadline = Instant::now() + within;
        let mut last = Value::Null;
        while Instant::now() < deadline {
            if let Some(child) = self.controller.as_mut()
                && let Some(status) = child.try_wait()?
            {
                bail!("waiting until {what}: the controller ended with {status}: {}", self.log());
            }
            if let Ok(snapshot) = self.snapshot() {
                if is(&snapshot) {
                    return Ok(snapshot);
                }
                last = snapshot;
            }
            std::thread::sleep(LOOK);
        }
        bail!("waited {within:?} until {what}; it shows {last:#}\n{}", self.log());
    }

    /// Waits until every node is in sync with a commit.
    pub fn wait_in_sync(&mut self, commit: &str, within: Duration) -> Result<Value> {
        let names: Vec<String> = self.nodes.keys().cloned().collect();
        let short = commit.get(..7).unwrap_or(commit).to_owned();
        self.wait(&format!("all nodes are in sync with {short}"), within, |snapshot| {
            names.iter().all(|name| {
                let node = &snapshot["nodes"][name];
                node["state"] == "in-sync" && node["runningRevision"] == short.as_str()
            })
        })
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        // Best effort: a test that fails must still not leave a controller behind. One that is asked first ends the programs
        // that it runs; only for switches it would wait longer.
        let _ = self.stop_within(Duration::from_secs(2));
        for socket in fs::read_dir(self.dir.path().join("r")).into_iter().flatten().flatten() {
            let path = socket.path();
            if path.extension().is_some_and(|extension| extension == "sock") {
                // A killed controller's ssh keeps the connection for its successor; there is none.
                let _ = run(bounded(COMMAND, "ssh").arg("-S").arg(&path).args(["-O", "exit", "nobody"]));
            }
        }
        // Nix's own list of roots would name what is about to be removed until somebody collects garbage.
        for root in fs::read_dir("/nix/var/nix/gcroots/auto").into_iter().flatten().flatten() {
            if fs::read_link(root.path()).is_ok_and(|place| place.starts_with(self.dir.path())) {
                let _ = fs::remove_file(root.path());
            }
        }
    }
}
