//! One lab: a bridge, a client identity, an ssh configuration and its nodes. Never outlives its owner: a keeper process holds
//! the other end of a pipe and removes everything when the pipe closes.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::network::Subnet;
use crate::node::Node;
use crate::program::{bounded, require};
use crate::setup::Setup;
use crate::supervisor::Supervisor;
use crate::system::{nix_config, store_path_name};

/// Where labs live, one directory each, each a file system in memory.
const HOME: &str = "/run/driftless-lab";

/// A lab. Cheap to clone; it is removed when the last clone and the last [`Node`] are dropped.
#[derive(Clone)]
pub struct Lab {
    pub(crate) inner: Arc<Inner>,
}

/// What a lab and its nodes share.
pub(crate) struct Inner {
    pub(crate) subnet: Subnet,
    pub(crate) dir: PathBuf,
    pub(crate) cgroup: PathBuf,
    keeper: Mutex<Child>,
    /// Guards the ssh files, the numbers and the supervisors to abandon.
    register: Mutex<Register>,
    /// What is made once and copied for each node, by what it was made from: `/nix` by system, `/etc` by base.
    templates: Mutex<BTreeMap<String, PathBuf>>,
}

#[derive(Default)]
struct Register {
    nodes: u8,
    supervisors: Vec<Arc<Supervisor>>,
}

impl Lab {
    /// Makes an empty lab. Labs do not see each other; any number may run on a machine.
    pub fn start() -> Result<Lab> {
        sweep()?;
        make_room_for_watches()?;
        let subnet = Subnet::claim()?;
        let dir = Path::new(HOME).join(subnet.id());
        let cgroup = cgroup_root()?.join(format!("driftless-lab-{}", subnet.id()));
        let mut keeper = keeper(&dir, &cgroup, subnet)
            .arg(subnet.gateway().to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("starting the lab's keeper")?;
        let mut ready = String::new();
        if let Some(said) = keeper.stdout.take() {
            BufReader::new(said).read_line(&mut ready)?;
        }
        let lab = Lab {
            inner: Arc::new(Inner {
                subnet,
                dir,
                cgroup,
                keeper: Mutex::new(keeper),
                register: Mutex::default(),
                templates: Mutex::default(),
            }),
        };
        if ready.trim() != "ready" {
            bail!(
                "the lab's keeper could not set it up (root, cgroup2 and iproute2 are needed; its errors are on standard error)"
            );
        }
        lab.furnish()?;
        Ok(lab)
    }

    /// Boots a plain node that runs `system`, a toplevel in this machine's store; returns when sshd answers.
    pub fn node(&self, name: &str, system: &str) -> Result<Node> {
        self.node_with(name, system, &Setup::default())
    }

    /// Boots a node with this setup.
    pub fn node_with(&self, name: &str, system: &str, setup: &Setup) -> Result<Node> {
        let node = self.assemble(name, system, setup)?;
        node.start()?;
        Ok(node)
    }

    /// Boots plain nodes side by side.
    pub fn nodes(&self, names: &[&str], system: &str) -> Result<Vec<Node>> {
        self.nodes_with(names, system, &Setup::default())
    }

    /// Boots nodes with this setup side by side.
    pub fn nodes_with(&self, names: &[&str], system: &str, setup: &Setup) -> Result<Vec<Node>> {
        std::thread::scope(|scope| {
            let boot = |name| self.node_with(name, system, setup);
            let booting: Vec<_> = names.iter().map(|name| scope.spawn(move || boot(name))).collect();
            booting
                .into_iter()
                .map(|thread| match thread.join() {
                    Ok(node) => node,
                    Err(panic) => std::panic::resume_unwind(panic),
                })
                .collect()
        })
    }

    /// Lays a node out without booting it; [`Node::start`] does.
    pub fn assemble(&self, name: &str, system: &str, setup: &Setup) -> Result<Node> {
        Node::assemble(self, name, system, setup)
    }

    /// The private key that may log in as root (and as each user of a [`Setup`]) on every node.
    #[must_use]
    pub fn identity(&self) -> PathBuf {
        self.inner.dir.join("identity")
    }

    /// A configuration for ssh that knows every node by its name, with strict host keys.
    #[must_use]
    pub fn ssh_config(&self) -> PathBuf {
        self.inner.dir.join("ssh_config")
    }

    /// The nodes' host keys, by address.
    #[must_use]
    pub fn known_hosts(&self) -> PathBuf {
        self.inner.dir.join("known_hosts")
    }

    /// The lab's directory: in memory, gone with the lab. Tests may keep files under names that are not a node's.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.inner.dir
    }

    fn furnish(&self) -> Result<()> {
        let dir = &self.inner.dir;
        for (name, script) in [
            ("assemble.sh", include_str!("scripts/assemble.sh")),
            ("etc.sh", include_str!("scripts/etc.sh")),
            ("boot.sh", include_str!("scripts/boot.sh")),
            ("init.sh", include_str!("scripts/init.sh")),
        ] {
            fs::write(dir.join(name), script)?;
        }
        require(
            bounded(Duration::from_secs(10), "ssh-keygen")
                .args(["-q", "-t", "ed25519", "-N", "", "-C", "driftless-lab", "-f"])
                .arg(self.identity()),
        )?;
        fs::write(self.known_hosts(), "")?;
        fs::write(
            self.ssh_config(),
            format!(
                "Host *\n  User root\n  IdentityFile {}\n  IdentitiesOnly yes\n  UserKnownHostsFile {}\n  \
                 GlobalKnownHostsFile /dev/null\n  StrictHostKeyChecking yes\n  ConnectTimeout 3\n",
                self.identity().display(),
                self.known_hosts().display()
            ),
        )?;
        Ok(())
    }

    /// The next node's number, which is the last byte of its address.
    pub(crate) fn number(&self) -> Result<u8> {
        let mut register = self.register();
        if register.nodes >= 240 {
            bail!("a lab holds 240 nodes");
        }
        register.nodes += 1;
        Ok(register.nodes + 9)
    }

    /// Makes a node known to ssh, and to the end of the lab.
    pub(crate) fn register_node(&self, node: &Node, supervisor: &Arc<Supervisor>) -> Result<()> {
        let mut register = self.register();
        register.supervisors.push(Arc::clone(supervisor));
        let append = |path: PathBuf, text: String| -> Result<()> {
            let mut file = fs::OpenOptions::new().append(true).open(path)?;
            Ok(file.write_all(text.as_bytes())?)
        };
        append(self.known_hosts(), format!("{} {}\n", node.address(), node.host_key()))?;
        append(self.ssh_config(), format!("Host {}\n  HostName {}\n", node.name(), node.address()))
    }

    /// A directory whose `nix` holds the closures of `system` and `further`, and nothing else.
    pub(crate) fn store_of(&self, system: &str, further: &[String]) -> Result<PathBuf> {
        store_path_name(system)?;
        let mut paths: Vec<&str> = further.iter().map(String::as_str).chain([system]).collect();
        paths.sort_unstable();
        paths.dedup();
        self.template(&paths.join(" "), |store| {
            let mut copy = bounded(Duration::from_secs(120), "nix");
            copy.env("NIX_CONFIG", nix_config())
                .args(["copy", "--no-check-sigs", "--to"])
                .arg(store)
                .args(&paths);
            copy
        })
    }

    /// An `/etc` for nodes on the base in this tree.
    pub(crate) fn etc_of(&self, tree: &Path) -> Result<PathBuf> {
        self.template(&tree.to_string_lossy(), |etc| {
            let mut copy = bounded(Duration::from_secs(20), "sh");
            copy.arg(self.inner.dir.join("etc.sh")).args([tree, etc]);
            copy
        })
    }

    fn template(&self, of: &str, make: impl Fn(&Path) -> Command) -> Result<PathBuf> {
        let mut templates = self.inner.templates.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(made) = templates.get(of) {
            return Ok(made.clone());
        }
        let place = self.inner.dir.join(format!("template{}", templates.len()));
        require(&mut make(&place)).with_context(|| format!("preparing {of} for the nodes"))?;
        templates.insert(of.to_owned(), place.clone());
        Ok(place)
    }

    fn register(&self) -> std::sync::MutexGuard<'_, Register> {
        self.inner.register.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let register = self.register.get_mut().unwrap_or_else(PoisonError::into_inner);
        for supervisor in &register.supervisors {
            supervisor.abandon();
        }
        let keeper = self.keeper.get_mut().unwrap_or_else(PoisonError::into_inner);
        drop(keeper.stdin.take());
        // It bounds itself: its one loop has a limit.
        let _ = keeper.wait();
    }
}

fn keeper(dir: &Path, cgroup: &Path, subnet: Subnet) -> Command {
    let mut command = Command::new("sh");
    command
        .args(["-c", include_str!("scripts/keeper.sh"), "keeper.sh"])
        .arg(dir)
        .arg(cgroup)
        .arg(subnet.bridge())
        .current_dir("/")
        .process_group(0);
    command
}

/// Where this machine has mounted cgroup2.
fn cgroup_root() -> Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    mounts
        .lines()
        .filter_map(|line| {
            let mut words = line.split(' ').skip(1);
            Some((words.next()?, words.next()?))
        })
        .find(|(_, kind)| *kind == "cgroup2")
        .map(|(place, _)| PathBuf::from(place))
        .context("no cgroup2 file system is mounted")
}

/// Each systemd, D-Bus and sshd of a node takes some of the inotify instances that all of root's processes share; with the
/// kernel's 128 (inotify(7)) the thirtieth node does not boot. Raised until this machine's next boot, never lowered.
fn make_room_for_watches() -> Result<()> {
    const LIMIT: &str = "/proc/sys/fs/inotify/max_user_instances";
    const ENOUGH: u32 = 1024;
    let now: u32 = fs::read_to_string(LIMIT).context(LIMIT)?.trim().parse().context(LIMIT)?;
    if now < ENOUGH {
        fs::write(LIMIT, ENOUGH.to_string()).context(LIMIT)?;
    }
    Ok(())
}

/// Removes labs of this machine whose keeper was killed together with its owner.
fn sweep() -> Result<()> {
    let Ok(labs) = fs::read_dir(HOME) else {
        return Ok(());
    };
    // Two brooms at once would sweep each other's steps away.
    let home = fs::File::open(HOME)?;
    home.lock().with_context(|| format!("locking {HOME}"))?;
    for lab in labs.flatten() {
        let (dir, name) = (lab.path(), lab.file_name());
        let Ok(pid) = fs::read_to_string(dir.join("keeper.pid")) else {
            continue;
        };
        let command = fs::read(format!("/proc/{}/cmdline", pid.trim())).unwrap_or_default();
        let name = name.to_string_lossy();
        if String::from_utf8_lossy(&command).contains(&*dir.to_string_lossy()) {
            continue;
        }
        if let Some(subnet) = Subnet::of_id(&name) {
            let cgroup = cgroup_root()?.join(format!("driftless-lab-{name}"));
            keeper(&dir, &cgroup, subnet).stdin(Stdio::null()).status()?;
        }
    }
    Ok(())
}
