//! One node: its power, its wire, its files, and three ways in (ssh, namespaces, file system). Never more than a machine
//! and the person in front of it could do.

use std::ffi::OsStr;
use std::fs;
use std::io::Read as _;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::lab::Lab;
use crate::program::{Output, bounded, require, run};
use crate::setup::Setup;
use crate::supervisor::{Machine, Power, Supervisor};
use crate::system::nix_config;

/// How long a command on a node may take.
const COMMAND: Duration = Duration::from_secs(60);
/// How long a node may take to boot or to go down. On an idle machine it takes half a second; tests run on busy ones.
const BOOT: Duration = Duration::from_secs(60);

/// How long one knock at sshd's port may take: the answer comes at once or, where nobody has the address yet, never.
const CONNECT: Duration = Duration::from_millis(60);

/// A node of a [`Lab`].
pub struct Node {
    lab: Lab,
    name: String,
    address: IpAddr,
    host_key: String,
    dir: PathBuf,
    port: String,
    sizes: [(&'static str, u64); 2],
    supervisor: Arc<Supervisor>,
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
        install(&lab.store_of(system)?, &root, system)
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
        };
        lab.register_node(&node, &node.supervisor)?;
        Ok(node)
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

    /// Puts the closure of a system (or of any store path of this machine) into its store, without the network.
    pub fn receive(&self, path: &str) -> Result<()> {
        require(
            bounded(COMMAND, "nix")
                .env("NIX_CONFIG", nix_config())
                .args(["copy", "--no-check-sigs", "--to"])
                .arg(self.path("/"))
                .arg(path),
        )
        .with_context(|| format!("copying {path} to {}", self.name))
        .map(drop)
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

    /// How it stands.
    #[must_use]
    pub fn power(&self) -> Power {
        self.supervisor.power()
    }

    /// How often it was booted; 1 after the first boot.
    #[must_use]
    pub fn boot_count(&self) -> u32 {
        self.supervisor.boots()
    }

    /// Turns it on if it is off; returns when sshd answers.
    pub fn start(&self) -> Result<()> {
        self.supervisor.turn_on()?;
        self.wait_ssh()
    }

    /// Boots it again in order (`systemctl reboot`), and returns when sshd answers.
    pub fn reboot(&self) -> Result<()> {
        let boots = self.boot_count();
        self.enter("systemctl reboot")?.ok().with_context(|| format!("rebooting {}", self.name))?;
        self.wait_for_boot(boots + 1)
    }

    /// Waits until it was booted `count` times (see [`Node::boot_count`]) and sshd answers.
    pub fn wait_for_boot(&self, count: u32) -> Result<()> {
        self.supervisor.wait_boots(count, BOOT)?;
        self.wait_ssh()
    }

    /// Waits until it was booted `count` times and its systemd has started what it starts: for systems that no sshd survives.
    pub fn wait_for_boot_without_ssh(&self, count: u32) -> Result<()> {
        self.supervisor.wait_boots(count, BOOT)?;
        let until = Instant::now() + BOOT;
        // Fails for as long as there is no systemd to ask; degraded is up, too.
        let up = "[ -S /run/systemd/private ] && systemctl is-system-running --wait";
        loop {
            let asked = self.enter(up);
            match asked {
                Ok(output) if ["running", "degraded"].contains(&output.stdout.trim()) => {
                    return Ok(());
                }
                other if Instant::now() > until => bail!("{} does not come up: {other:?}", self.name),
                Ok(_) | Err(_) => std::thread::sleep(Duration::from_millis(15)),
            }
        }
    }

    /// Turns it off in order, and returns when it is off.
    pub fn power_off(&self) -> Result<()> {
        self.enter("systemctl poweroff")?.ok().with_context(|| format!("powering {} off", self.name))?;
        self.wait_for_power_off()
    }

    /// Waits until it is off.
    pub fn wait_for_power_off(&self) -> Result<()> {
        self.supervisor.wait_off(BOOT)
    }

    /// Pulls the plug: everything on it is killed at once. [`Node::start`] boots it again.
    pub fn power_cut(&self) -> Result<()> {
        self.supervisor.cut_power()
    }

    /// Its wire.
    #[must_use]
    pub fn link(&self) -> Link<'_> {
        Link { port: &self.port }
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

    /// Waits until sshd answers on the node's address.
    pub fn wait_ssh(&self) -> Result<()> {
        let until = Instant::now() + BOOT;
        loop {
            if ssh_answers(SocketAddr::new(self.address, 22)) {
                return Ok(());
            }
            if Instant::now() > until || matches!(self.power(), Power::Broken(_)) {
                bail!(
                    "sshd of {} does not answer; its power is {:?}, its console says: {}",
                    self.name,
                    self.power(),
                    self.supervisor.console()
                );
            }
            // Nothing on this side tells when a port of another machine opens.
            std::thread::sleep(Duration::from_millis(15));
        }
    }

    /// Leaves no free byte on `/nix` or `/var`.
    pub fn fill(&self, file_system: &str) -> Result<()> {
        let place = self.path(file_system);
        let used = require(bounded(COMMAND, "df").arg("--output=used").arg("-B1").arg(&place))?;
        let used = used.lines().last().unwrap_or_default().trim().to_owned();
        self.resize(file_system, &used)
    }

    /// Gives back what [`Node::fill`] took.
    pub fn empty(&self, file_system: &str) -> Result<()> {
        let (_, size) = self
            .sizes
            .iter()
            .find(|(place, _)| *place == file_system)
            .with_context(|| format!("{file_system} is no file system of its own"))?;
        self.resize(file_system, &size.to_string())
    }

    fn resize(&self, file_system: &str, bytes: &str) -> Result<()> {
        if !self.sizes.iter().any(|(place, _)| *place == file_system) {
            bail!("{file_system} is no file system of its own");
        }
        require(
            bounded(COMMAND, "mount")
                .args(["-o", &format!("remount,size={bytes}")])
                .arg(self.path(file_system)),
        )
        .map(drop)
    }

    fn link_target(&self, path: &str) -> Result<String> {
        let target =
            fs::read_link(self.path(path)).with_context(|| format!("reading {path} of {}", self.name))?;
        Ok(target.display().to_string())
    }
}

/// The wire between a node and the lab's bridge.
pub struct Link<'a> {
    port: &'a str,
}

impl Link<'_> {
    /// Cuts it: nothing arrives any more, and neither side is told.
    pub fn cut(&self) -> Result<()> {
        self.set("down")
    }

    /// Mends it.
    pub fn restore(&self) -> Result<()> {
        self.set("up")
    }

    fn set(&self, state: &str) -> Result<()> {
        require(bounded(COMMAND, "ip").args(["link", "set", self.port, state])).map(drop)
    }
}

/// Puts a closure into a node's `/nix` and makes it generation 1 of the system profile and the boot loader's default.
fn install(store: &Path, root: &Path, system: &str) -> Result<()> {
    require(bounded(COMMAND, "cp").arg("-a").arg(store.join("nix").join(".")).arg(root.join("nix")))?;
    let var = root.join("nix/var/nix");
    for dir in ["profiles/per-user/root", "gcroots", "daemon-socket"] {
        fs::create_dir_all(var.join(dir))?;
    }
    symlink(system, var.join("profiles/system-1-link"))?;
    symlink("system-1-link", var.join("profiles/system"))?;
    for (name, target) in [
        ("current-system", "/run/current-system"),
        ("booted-system", "/run/booted-system"),
        ("profiles", "/nix/var/nix/profiles"),
    ] {
        let link = var.join("gcroots").join(name);
        let _ = fs::remove_file(&link);
        symlink(target, link)?;
    }
    let loader = root.join("boot/loader");
    fs::write(loader.join("loader.conf"), "timeout 0\ndefault nixos-generation-1.conf\n")?;
    fs::write(
        loader.join("entries/nixos-generation-1.conf"),
        format!("title NixOS\nversion Generation 1\noptions init={system}/init\n"),
    )?;
    Ok(())
}

/// Whether a server greets as SSH servers do.
fn ssh_answers(address: SocketAddr) -> bool {
    let Ok(mut stream) = TcpStream::connect_timeout(&address, CONNECT) else {
        return false;
    };
    let mut greeting = [0; 4];
    stream.set_read_timeout(Some(Duration::from_secs(2))).is_ok()
        && stream.read_exact(&mut greeting).is_ok()
        && greeting == *b"SSH-"
}
