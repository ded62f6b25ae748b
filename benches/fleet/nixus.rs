//! The original nixus on the same deployment, where the environment names a checkout of it.
//!
//! The checkout is copied; in the copy, `nixpkgs.nix` is another file and nothing else is. Where nixus would fetch a nixpkgs, it
//! gets the small one of the tests with what `nixus.nix` adds to it: its programs are this machine's.

use std::fs;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::world::World;

/// The variable that names the checkout.
pub const VARIABLE: &str = "DRIFTLESS_NIXUS";
/// Its name tells `nixus.nix` where the lab's configuration for ssh is.
const SSH_CONFIG: &str = "DRIFTLESS_BENCH_SSH";
/// What its script calls on this machine or on the nodes, beyond what the lab needs anyway.
const PROGRAMS: [&str; 2] = ["jq", "rsync"];

/// A person with a copy of nixus.
pub struct Nixus<'a> {
    world: &'a World,
    folder: PathBuf,
}

impl<'a> Nixus<'a> {
    /// The one that is given, if any is.
    pub fn given(world: &'a World) -> Result<Option<Nixus<'a>>> {
        let Some(checkout) = std::env::var_os(VARIABLE).map(PathBuf::from) else { return Ok(None) };
        if !checkout.join("modules/deploy.nix").is_file() {
            bail!("{VARIABLE}={}: this is no checkout of nixus", checkout.display());
        }
        for program in PROGRAMS {
            let mut which = world.program("sh");
            which.args(["-c", &format!("command -v {program} >/dev/null")]);
            world.require(which).with_context(|| format!("nixus needs {program} on this machine"))?;
        }
        let folder = world.fleet.dir().join("original");
        fs::create_dir(&folder)?;
        let mut copy = world.program("cp");
        copy.arg("-R").arg(&checkout).arg(folder.join("nixus"));
        world.require(copy).context("copying nixus")?;
        fs::write(folder.join("nixus/nixpkgs.nix"), format!("{}\n", quoted_nixpkgs()))?;
        Ok(Some(Nixus { world, folder }))
    }

    /// Brings every node that is switched by hand to a new system. Yields how long that took.
    pub fn deploy(&self, text: &str) -> Result<Duration> {
        fs::write(self.folder.join("deployment.nix"), self.deployment(text))?;
        let log = fs::File::create(self.folder.join("log"))?;
        let mut bash = self.world.program("bash");
        bash.args(["-c", "nix-build deployment.nix && ./result"]).current_dir(&self.folder);
        bash.env(SSH_CONFIG, self.world.fleet.ssh_config());
        bash.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let began = Instant::now();
        let status = bash.status()?;
        let took = began.elapsed();
        // It waits for the scripts of the nodes, and does not look at how they ended.
        if !status.success() {
            bail!("nixus ended with {status}: {}", self.log());
        }
        match self.check() {
            Ok(()) => Ok(took),
            Err(error) => bail!("{error:#}; nixus said: {}", self.log()),
        }
    }

    /// Fails unless each node runs and boots what the deployment says.
    fn check(&self) -> Result<()> {
        let mut evaluate = self.world.program("nix-instantiate");
        evaluate.current_dir(&self.folder).args(["--eval", "--strict", "--json", "-E"]).arg(
            "builtins.mapAttrs (_: node: node.configuration.system.build.toplevel.outPath) \
             (import ./deployment.nix).config.nodes",
        );
        let systems: Value = serde_json::from_str(&self.world.require(evaluate)?)?;
        for (name, node) in self.world.by_hand() {
            let wanted = systems[name].as_str().with_context(|| format!("{name} has no system"))?;
            let has = [node.running()?, node.boot_default()?, node.loader_default()?];
            if has.iter().any(|system| system != wanted) {
                bail!("nixus left {name} with {has:?} (running, profile, boot loader) instead of {wanted}");
            }
        }
        Ok(())
    }

    /// The deployment of [`World::deployment`] as the original has it: it knows no host keys, and each node names its nixpkgs.
    fn deployment(&self, text: &str) -> String {
        let nodes = self.world.by_hand().map(|(name, node)| {
            format!(
                "  nodes.{name} = {{ host = \"root@{}\"; configuration.lab.text = \"{text}\"; }};\n",
                node.address()
            )
        });
        // With socket activation, nixus leaves sshd's unit alone: the lab's nodes have one that is not NixOS's.
        format!(
            "import ./nixus {{ }} ({{ ... }}: {{\n  defaults = {{ name, ... }}: {{\n    nixpkgs = <nixpkgs>;\n    \
             hasFastConnection = true;\n    configuration = {{ lib, ... }}: {{\n      \
             options.services.openssh.startWhenNeeded = lib.mkOption {{ default = true; }};\n      \
             config._module.args.pkgs = import {} {{ }};\n      \
             config.networking.hostName = lib.mkDefault name;\n    }};\n  }};\n{}}})\n",
            quoted_nixpkgs(),
            nodes.collect::<String>()
        )
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }
}

/// An expression for the nixpkgs that nixus gets.
fn quoted_nixpkgs() -> String {
    format!("\"{}/benches/fleet/nixus.nix\"", env!("CARGO_MANIFEST_DIR"))
}
