//! Systems for nodes: real derivations, built by `tests/nixpkgs/system.nix`. Never cached here: an unchanged one costs Nix an
//! evaluation and nothing else.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::program::{bounded, require};

/// What a system does wrong. The words are those of `faults` in `tests/nixpkgs/system.nix`, which tells more about each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// Activation fails half-way; exit code 2.
    ActivationFails,
    /// A unit of it fails; exit code 4.
    UnitFails,
    /// `test` and `switch` never return.
    Hang,
    /// The same, and SIGTERM is ignored.
    HangStubbornly,
    /// sshd is stopped and its sessions are killed; at boot it does not start.
    KillSsh,
    /// The default route goes. Neighbours on the lab's bridge can still reach the node.
    DropRoute,
    /// The address goes.
    DropAddress,
    /// Fills the file system that holds this path.
    FillDisk(String),
    /// Leaves a child in its own session that keeps switch-to-configuration's lock for so many seconds.
    LeaveChild(u32),
    /// Leaves a unit behind that takes switch-to-configuration's lock next and keeps it for so many seconds.
    LeaveUnit(u32),
    /// Takes so many seconds before it activates.
    Slow(u32),
    /// With this action (`test`, `boot`, `switch`) waits until the gate is opened ([`crate::Node::open_gate`]), a minute at most.
    Gate(&'static str),
    /// `test` and `switch` do nothing and exit with this code; 11 and 100 say what the real ones say.
    Exit(u8),
    /// Has a switch inhibitor with this name.
    Inhibitor(String),
    /// The pre-switch checks fail, unless `NIXOS_NO_CHECK=1`.
    PreSwitchCheckFails,
    /// `boot` and `switch` fail to install the boot loader; exit code 1.
    BootLoaderFails,
    /// Installing the boot loader never returns.
    BootLoaderHangs,
    /// `boot` and `switch` say that the boot loader is installed, and do not touch it.
    BootLoaderLies,
    /// Booting it ends in a panic, after which the machine boots again.
    PanicAtBoot,
    /// D-Bus is stopped.
    StopDbus,
}

impl Fault {
    /// One of each kind, for tests that must know of all. A kind that is not in this chain does not compile.
    #[must_use]
    pub fn every() -> Vec<Fault> {
        std::iter::successors(Some(Fault::ActivationFails), Fault::following).collect()
    }

    fn following(&self) -> Option<Fault> {
        Some(match self {
            Fault::ActivationFails => Fault::UnitFails,
            Fault::UnitFails => Fault::Hang,
            Fault::Hang => Fault::HangStubbornly,
            Fault::HangStubbornly => Fault::KillSsh,
            Fault::KillSsh => Fault::DropRoute,
            Fault::DropRoute => Fault::DropAddress,
            Fault::DropAddress => Fault::FillDisk("/run".to_owned()),
            Fault::FillDisk(_) => Fault::LeaveChild(600),
            Fault::LeaveChild(_) => Fault::LeaveUnit(4),
            Fault::LeaveUnit(_) => Fault::Slow(1),
            Fault::Slow(_) => Fault::Gate("test"),
            Fault::Gate(_) => Fault::Exit(3),
            Fault::Exit(_) => Fault::Inhibitor("dbus".to_owned()),
            Fault::Inhibitor(_) => Fault::PreSwitchCheckFails,
            Fault::PreSwitchCheckFails => Fault::BootLoaderFails,
            Fault::BootLoaderFails => Fault::BootLoaderHangs,
            Fault::BootLoaderHangs => Fault::BootLoaderLies,
            Fault::BootLoaderLies => Fault::PanicAtBoot,
            Fault::PanicAtBoot => Fault::StopDbus,
            Fault::StopDbus => return None,
        })
    }

    /// Its name and value among `faults`, and among `lab.faults` of a configuration.
    #[must_use]
    pub fn attribute(&self) -> (&'static str, String) {
        let on = || "1".to_owned();
        match self {
            Fault::ActivationFails => ("activationFails", on()),
            Fault::UnitFails => ("unitFails", on()),
            Fault::Hang => ("hang", on()),
            Fault::HangStubbornly => ("hangStubbornly", on()),
            Fault::KillSsh => ("killSsh", on()),
            Fault::DropRoute => ("dropRoute", on()),
            Fault::DropAddress => ("dropAddress", on()),
            Fault::FillDisk(path) => ("fillDisk", path.clone()),
            Fault::LeaveChild(seconds) => ("leaveChild", seconds.to_string()),
            Fault::LeaveUnit(seconds) => ("leaveUnit", seconds.to_string()),
            Fault::Slow(seconds) => ("slow", seconds.to_string()),
            Fault::Gate(action) => ("gate", (*action).to_owned()),
            Fault::Exit(code) => ("exit", code.to_string()),
            Fault::Inhibitor(name) => ("inhibitor", name.clone()),
            Fault::PreSwitchCheckFails => ("preSwitchCheckFails", on()),
            Fault::BootLoaderFails => ("bootLoaderFails", on()),
            Fault::BootLoaderHangs => ("bootLoaderHangs", on()),
            Fault::BootLoaderLies => ("bootLoaderLies", on()),
            Fault::PanicAtBoot => ("panicAtBoot", on()),
            Fault::StopDbus => ("stopDbus", on()),
        }
    }
}

/// A system to build. Equal ones are the same store path.
#[derive(Debug, Clone, Default)]
pub struct System {
    text: String,
    name: Option<String>,
    kernel: Option<String>,
    interface: Option<String>,
    lock: Option<String>,
    packages: Vec<Value>,
    units: Vec<(String, String)>,
    etc: Vec<(String, String)>,
    faults: Vec<Fault>,
}

impl System {
    /// A good system; `text` (in its `/etc/lab-text`) makes it differ from others.
    #[must_use]
    pub fn new(text: &str) -> System {
        System { text: text.to_owned(), ..System::default() }
    }

    /// The host name in its store path, "node" if not given.
    #[must_use]
    pub fn name(mut self, name: &str) -> System {
        self.name = Some(name.to_owned());
        self
    }

    /// Adds something that it does wrong.
    #[must_use]
    pub fn fault(mut self, fault: Fault) -> System {
        self.faults.push(fault);
        self
    }

    /// Another kernel version than 6.6.1: another kernel, initrd and modules path.
    #[must_use]
    pub fn kernel(mut self, version: &str) -> System {
        self.kernel = Some(version.to_owned());
        self
    }

    /// Another init interface than "2": where a system with another one runs, `switch` and `test` exit with 100, until this
    /// one has been booted.
    #[must_use]
    pub fn init_interface(mut self, version: &str) -> System {
        self.interface = Some(version.to_owned());
        self
    }

    /// Its switch-to-configuration is as since nixpkgs 24.11: where somebody holds the lock it exits with 1, not 11.
    #[must_use]
    pub fn newer_switch(mut self) -> System {
        self.lock = Some("ng".to_owned());
        self
    }

    /// Adds a package to its system path.
    #[must_use]
    pub fn package(self, name: &str, version: &str) -> System {
        self.package_of_size(name, version, 0)
    }

    /// Adds a package of so many bytes, none of them zero.
    #[must_use]
    pub fn package_of_size(mut self, name: &str, version: &str, bytes: u64) -> System {
        self.packages.push(json!({ "name": name, "version": version, "bytes": bytes }));
        self
    }

    /// Adds a systemd unit that is started at activation.
    #[must_use]
    pub fn unit(mut self, name: &str, text: &str) -> System {
        self.units.push((name.to_owned(), text.to_owned()));
        self
    }

    /// Adds a file under `/etc`.
    #[must_use]
    pub fn etc(mut self, name: &str, text: &str) -> System {
        self.etc.push((name.to_owned(), text.to_owned()));
        self
    }

    /// Builds it in this machine's store and yields its store path. It has no garbage collector root.
    pub fn build(&self) -> Result<String> {
        let built = System::build_all(std::slice::from_ref(self))?;
        built.into_iter().next().context("nix-build named no store path")
    }

    /// Builds several at once, which costs hardly more than one; yields their store paths in the same order.
    pub fn build_all(systems: &[System]) -> Result<Vec<String>> {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../nixpkgs/system.nix");
        let json = Value::Array(systems.iter().map(System::json).collect());
        let paths = require(
            bounded(Duration::from_secs(120), "nix-build")
                .env("NIX_CONFIG", nix_config())
                .args(["--no-out-link", "-E"])
                .arg("{ file, json }: map (import (/. + file)) (builtins.fromJSON json)")
                .args(["--argstr", "file"])
                .arg(file.canonicalize().context("finding system.nix")?)
                .args(["--argstr", "json", &json.to_string()]),
        )
        .with_context(|| format!("building {systems:?}"))?;
        let paths: Vec<String> = paths.lines().map(str::to_owned).collect();
        anyhow::ensure!(paths.len() == systems.len(), "{} systems, and Nix built {paths:?}", systems.len());
        Ok(paths)
    }

    /// The argument of `system.nix`.
    fn json(&self) -> Value {
        let pairs = |pairs: &[(String, String)]| -> Value {
            let map = pairs.iter().map(|(name, value)| (name.clone(), json!(value)));
            Value::Object(map.collect())
        };
        let faults = self.faults.iter().map(|fault| {
            let (name, value) = fault.attribute();
            (name.to_owned(), json!(value))
        });
        let mut argument = json!({
            "text": self.text,
            "packages": self.packages,
            "units": pairs(&self.units),
            "etc": pairs(&self.etc),
            "faults": Value::Object(faults.collect()),
        });
        for (key, value) in [
            ("name", &self.name),
            ("kernel", &self.kernel),
            ("interface", &self.interface),
            ("lock", &self.lock),
        ] {
            if let Some(value) = value {
                argument[key] = json!(value);
            }
        }
        argument
    }
}

/// The settings for Nix on this machine: the caller's, else those that need neither build users nor a network. Where several
/// nodes share a derivation, the builds that wait for it look every second, not every five.
pub(crate) fn nix_config() -> String {
    std::env::var("NIX_CONFIG").unwrap_or_else(|_| {
        "build-users-group =\nsandbox = false\nsubstitute = false\nexperimental-features = nix-command flakes\n\
         build-poll-interval = 1"
            .to_owned()
    })
}

/// `HASH-NAME` of a store path.
pub(crate) fn store_path_name(path: &str) -> Result<&str> {
    path.strip_prefix("/nix/store/")
        .filter(|name| !name.is_empty() && !name.contains('/'))
        .with_context(|| format!("{path:?} is not a store path"))
}
