//! What is measured on: twenty lab nodes, ten for the controller and ten for hand-run commands, a repository, a controller.

use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::available_parallelism;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use driftless_lab::{Fleet, Lab, Node, Setup, System};

use crate::usage::Usage;

/// Nodes on each side.
pub const SIDE: usize = 10;
/// Longest time for one program.
const PROGRAM: Duration = Duration::from_secs(120);

/// Nodes, repository and controller.
pub struct World {
    /// All of it; the nodes of the controller are `n..`, the others `h..`.
    pub fleet: Fleet,
    /// Processors: so many nodes are switched by hand at a time.
    pub cores: usize,
    usage: Option<Usage>,
}

impl World {
    /// Boots the nodes.
    pub fn set_up() -> Result<World> {
        let lab = Lab::start().context("making the lab")?;
        let installed = System::new("installed").build()?;
        let names: Vec<String> = ["n", "h"]
            .iter()
            .flat_map(|side| (0..SIDE).map(move |number| format!("{side}{number}")))
            .collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        // What a login costs is a part of what is measured.
        let setup = Setup { sshd_options: Vec::new(), ..Setup::default() };
        let nodes = lab.nodes_with(&names, &installed, &setup).context("booting the nodes")?;
        let binary = Path::new(env!("CARGO_BIN_EXE_driftless"));
        let fleet = Fleet::new(&lab, nodes, binary, Path::new(env!("CARGO_MANIFEST_DIR")))?;
        let world = World { fleet, cores: available_parallelism()?.get(), usage: None };
        world.configure()?;
        Ok(world)
    }

    /// Writes the controller's configuration: that of the lab, with the intervals that people have.
    pub fn configure(&self) -> Result<()> {
        let text = self.fleet.config_text(&self.fleet.repository().display().to_string());
        let text = text.replace("poll = \"5s\"\n", "").replace("interval = \"2s\"\n", "");
        Ok(std::fs::write(self.fleet.config_file(), text)?)
    }

    /// Starts the controller.
    pub fn start(&mut self) -> Result<()> {
        self.fleet.start()?;
        let pid = self.fleet.pid().context("no controller runs")?;
        self.usage = Some(Usage::of(pid)?);
        Ok(())
    }

    /// Stops it, and the connections that it kept.
    pub fn stop(&mut self) -> Result<()> {
        self.fleet.stop()?;
        self.usage = None;
        Ok(())
    }

    /// What the controller and all that it has started cost.
    pub fn usage(&self) -> Result<&Usage> {
        self.usage.as_ref().context("no controller runs")
    }

    /// The controller's nodes.
    pub fn ours(&self) -> impl Iterator<Item = (&str, &Node)> {
        self.side('n')
    }

    /// The nodes that are switched by hand.
    pub fn by_hand(&self) -> impl Iterator<Item = (&str, &Node)> {
        self.side('h')
    }

    fn side(&self, side: char) -> impl Iterator<Item = (&str, &Node)> {
        let all = self.fleet.nodes.iter().map(|(name, node)| (name.as_str(), node));
        all.filter(move |(name, _)| name.starts_with(side))
    }

    /// A deployment of these nodes; another text is another system for each.
    pub fn deployment<'a>(&self, nodes: impl Iterator<Item = (&'a str, &'a Node)>, text: &str) -> String {
        let limit = format!("rollout.maxInFlight = {};", self.in_flight());
        self.fleet.deployment_of(nodes, &limit, |_| format!("configuration.lab.text = \"{text}\";"))
    }

    /// `rollout.maxInFlight`.
    pub fn in_flight(&self) -> usize {
        SIDE
    }

    /// A program with the fleet's environment and a deadline.
    pub fn program(&self, name: &str) -> Command {
        let mut command = Command::new("timeout");
        command.args(["--kill-after=2", &PROGRAM.as_secs().to_string(), name]);
        self.fleet.environment(&mut command);
        command
    }

    /// Runs it to a good end; yields what it said.
    pub fn require(&self, mut command: Command) -> Result<String> {
        // A kept connection holds on to stderr for as long as it lives.
        let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output()?;
        if !output.status.success() {
            bail!("{command:?} ended with {}", output.status);
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}
