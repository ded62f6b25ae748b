//! One node: its power, its wire, its files, and three ways in (ssh, namespaces, file system). Never more than a machine
//! and the person in front of it could do.

mod disk;
mod power;
mod spine;

use std::ffi::OsStr;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::lab::Lab;
use crate::program::{Output, bounded, require, run};
use crate::setup::Setup;
use crate::supervisor::{Machine, Supervisor};
use crate::wire::{Relay, Wire};

/// How long a command on a node may take.
const COMMAND: Duration = Duration::from_secs(60);
/// A node of a [`Lab`]. A clone is the same machine.
#[derive(Clone)]
pub struct Node {
    lab: Lab,
    name: String,
    address: IpAddr,
    host_key: String,
    dir: PathBuf,
    port: String,
    sizes: [(&'static str, u64); 2],
    supervisor: Arc<Supervisor>,
    relay: Arc<Mutex<Option<Relay>>>,
}

impl Node {
    pub(crate) fn assemble(lab: &Lab, name: &str, system: &str, setup: &Setup) -> Result<Node> {
        let base = match setup.base {
            Some(base) => base,
            None => crate::Base::from_env()?,
        };
        let (subnet, number) = (lab.inner.subnet, lab.number()?);
        let dir = lab.dir().join(name);
        fs::create_dir(&dir).with_context(|| format!("a node called {name} exists"))?;
        let root = dir.join("root");
        let tree = base.tree()?;
        require(
            bounded(COMMAND, "sh")
                .arg(lab.dir().join("assemble.sh"))
                .args([tree.as_path(), lab.dir(), dir.as_path()])
                .args([name, &setup.nix_bytes.to_string(), &setup.var_bytes.to_string()])
                .arg(lab.etc_of(&tree)?),
        )
        .with_context(|| format!("laying out {name}"))?;
        disk::install(&lab.store_of(system, &setup.store)?, &root, system)
            .with_context(|| format!("installing {system} on {name}"))?;
        setup.apply(&root)?;
        let key = fs::read_to_string(root.join("etc/ssh/ssh_host_ed25519_key.pub"))?;
        let address = subnet.address(number);
        let cgroup = lab.inner.cgroup.join(name);
        let supervisor = Supervisor::start(Machine {
            dir: dir.clone(),
            cgroup: cgroup.clone(),
            script: lab.dir().join("boot.sh"),
            arguments: vec![
                dir.display().to_string(),
                cgroup.display().to_string(),
                subnet.port(number),
                subnet.bridge(),
                address.to_string(),
                subnet.gateway().to_string(),
                name.to_owned(),
            ],
        });
        let node = Node {
            lab: lab.clone(),
            name: name.to_owned(),
            address: IpAddr::V4(address),
            host_key: key.split(' ').take(2).collect::<Vec<_>>().join(" "),
            dir,
            port: subnet.port(number),
            sizes: [("/nix", setup.nix_bytes), ("/var", setup.var_bytes)],
            supervisor,
            relay: Arc::default(),
        };
        lab.register_node(&node, &node.supervisor)?;
        Ok(node)
    }

    /// Lets a system go on that waits at its gate ([`crate::Fault::Gate`]).
    pub fn open_gate(&self) -> Result<()> {
        let gate = self.path("/run/lab-gate");
        fs::write(&gate, "").with_context(|| format!("opening {}", gate.display()))
    }

    /// Its name: in the ssh configuration, and its host name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its address, reachable from this machine.
    #[must_use]
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// Its host key, as `ssh-ed25519 AAAA...`.
    #[must_use]
    pub fn host_key(&self) -> &str {
        &self.host_key
    }

    /// Runs a command over a new SSH connection as root; the words are joined by the remote shell, as always with ssh.
    pub fn ssh<S: AsRef<OsStr>>(&self, command: impl IntoIterator<Item = S>) -> Result<Output> {
        self.ssh_as("root", command)
    }

    /// The same as another user.
    pub fn ssh_as<S: AsRef<OsStr>>(
        &self,
        user: &str,
        command: impl IntoIterator<Item = S>,
    ) -> Result<Output> {
        run(bounded(COMMAND, "ssh")
            .arg("-F")
            .arg(self.lab.ssh_config())
            .args(["-l", user, &self.name, "--"])
            .args(command))
    }

    /// Runs a shell script in the node's namespaces: works without sshd, without a network, without systemd.
    pub fn enter(&self, script: &str) -> Result<Output> {
        run(bounded(COMMAND, "nsenter")
            .args(["--target", &self.supervisor.pid1()?.to_string()])
            .args(["--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--root", "--wd"])
            .args(["env", "-i", "HOME=/root", "LC_ALL=C.UTF-8"])
            .arg("PATH=/run/current-system/sw/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .args(["sh", "-c", script]))
    }

    /// A file of the node as a path of this machine, `/run` included (but neither `/proc`, `/dev` nor `/tmp`). Absolute
    /// symbolic links in it are not the node's.
    #[must_use]
    pub fn path(&self, path: impl AsRef<Path>) -> PathBuf {
        let path = path.as_ref();
        self.dir.join("root").join(path.strip_prefix("/").unwrap_or(path))
    }

    /// The system it runs (`/run/current-system`), a store path.
    pub fn running(&self) -> Result<String> {
        self.link_target("/run/current-system")
    }

    /// The system it booted (`/run/booted-system`).
    pub fn booted(&self) -> Result<String> {
        self.link_target("/run/booted-system")
    }

    /// The system its profile points to.
    pub fn boot_default(&self) -> Result<String> {
        let profiles = "/nix/var/nix/profiles";
        let generation = self.link_target(&format!("{profiles}/system"))?;
        self.link_target(&format!("{profiles}/{generation}"))
    }

    /// The system that its boot loader would boot now, one-shot entries aside: what counts after a power cut.
    pub fn loader_default(&self) -> Result<String> {
        let loader = self.path("/boot/loader");
        let conf = fs::read_to_string(loader.join("loader.conf"))?;
        let entry = conf
            .lines()
            .find_map(|line| line.strip_prefix("default"))
            .context("loader.conf names no default")?;
        let entry = fs::read_to_string(loader.join("entries").join(entry.trim()))?;
        let (_, rest) = entry.split_once("init=").context("the entry has no init=")?;
        let (system, _) = rest.split_once("/init").context("the entry's init= is no system's")?;
        Ok(system.to_owned())
    }

    /// The boot id that programs on the node see.
    pub fn boot_id(&self) -> Result<String> {
        Ok(fs::read_to_string(self.dir.join("boot_id"))?.trim().to_owned())
    }

    /// Its wire.
    #[must_use]
    pub fn link(&self) -> Link<'_> {
        Link { port: &self.port, bridge: self.lab.inner.subnet.bridge(), address: self.address }
    }

    /// Makes its wire one of this kind, now and for all further boots. Frames that are under way go on as they were sent.
    /// Unlike [`Link::cut`], a dead wire leaves the neighbours in place: packets vanish in silence, as behind a router.
    pub fn wire(&self, wire: Wire) -> Result<()> {
        let mut relay = self.relay.lock().unwrap_or_else(PoisonError::into_inner);
        match relay.as_ref() {
            Some(relay) => relay.set(wire),
            None => *relay = Some(Relay::lay(&self.port, &self.lab.inner.subnet.bridge(), wire)?),
        }
        Ok(())
    }

    fn is_wired(&self) -> bool {
        self.relay.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// Stops sshd and ends the sessions that it has.
    pub fn stop_sshd(&self) -> Result<()> {
        self.enter("systemctl stop sshd.service && systemctl kill --signal=KILL sshd.service 2>/dev/null; :")?
            .ok()
            .map(drop)
    }

    /// Starts sshd and waits until it answers.
    pub fn start_sshd(&self) -> Result<()> {
        self.enter("systemctl start sshd.service")?.ok()?;
        self.wait_ssh()
    }

    fn link_target(&self, path: &str) -> Result<String> {
        let target =
            fs::read_link(self.path(path)).with_context(|| format!("reading {path} of {}", self.name))?;
        Ok(target.display().to_string())
    }
}

/// States of a bridge's port (BR_STATE_DISABLED and BR_STATE_FORWARDING of linux/if_bridge.h). Taking the interface down
/// instead would tell the node by its carrier, and coming back would take up to a second.
const PORT_DISABLED: &str = "0";
const PORT_FORWARDING: &str = "3";

/// The wire between a node and the lab's bridge.
pub struct Link<'a> {
    port: &'a str,
    bridge: String,
    address: IpAddr,
}

impl Link<'_> {
    /// Cuts it: nothing arrives any more, and neither side is told.
    pub fn cut(&self) -> Result<()> {
        self.set(PORT_DISABLED)
    }

    /// Mends it: who knocks next, gets through.
    pub fn restore(&self) -> Result<()> {
        self.set(PORT_FORWARDING)?;
        // This machine may be about to give its search for the node up, and would take the next knock down with it.
        let address = self.address.to_string();
        let forget = ["neigh", "flush", "to", &address, "dev", &self.bridge];
        require(bounded(COMMAND, "ip").args(forget)).map(drop)
    }

    fn set(&self, state: &str) -> Result<()> {
        require(bounded(COMMAND, "bridge").args(["link", "set", "dev", self.port, "state", state])).map(drop)
    }
}
