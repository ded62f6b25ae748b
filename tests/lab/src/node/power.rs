//! A node's power, and waiting for it to be up or down. Every wait has a deadline.

use std::fs;
use std::io::Read as _;
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::Node;
use crate::supervisor::Power;

/// How long a node may take to boot or to go down. On an idle machine it takes half a second; tests run on busy ones.
const BOOT: Duration = Duration::from_secs(60);

/// How long one knock at sshd's port may take: the answer comes at once or, where nobody has the address yet, never.
const CONNECT: Duration = Duration::from_millis(60);
/// The same where there is a wire with a delay or losses.
const CONNECT_BY_WIRE: Duration = Duration::from_secs(2);

impl Node {
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

    /// Makes the whole machine stand still, as a hypervisor pauses one: its clock goes on.
    pub fn freeze(&self) -> Result<()> {
        self.set_frozen("1")
    }

    /// Lets it go on.
    pub fn thaw(&self) -> Result<()> {
        self.set_frozen("0")
    }

    fn set_frozen(&self, state: &str) -> Result<()> {
        let file = self.cgroup().join("cgroup.freeze");
        fs::write(&file, state).with_context(|| format!("writing {}", file.display()))
    }

    /// Its services with this prefix that have processes, seen from outside: works whatever its systemd does.
    #[must_use]
    pub fn services(&self, prefix: &str) -> Vec<String> {
        let boots = fs::read_dir(self.cgroup()).into_iter().flatten().flatten();
        let slices = boots.map(|boot| boot.path().join("system.slice"));
        let units = slices.flat_map(|slice| fs::read_dir(slice).into_iter().flatten().flatten());
        let lives = |unit: &fs::DirEntry| {
            fs::read_to_string(unit.path().join("cgroup.events"))
                .is_ok_and(|events| events.contains("populated 1"))
        };
        units
            .filter(|unit| unit.file_name().to_string_lossy().starts_with(prefix) && lives(unit))
            .map(|unit| unit.file_name().to_string_lossy().into_owned())
            .collect()
    }

    fn cgroup(&self) -> PathBuf {
        self.lab.inner.cgroup.join(&self.name)
    }

    /// Waits until sshd answers on the node's address.
    pub fn wait_ssh(&self) -> Result<()> {
        let until = Instant::now() + BOOT;
        let connect = if self.is_wired() { CONNECT_BY_WIRE } else { CONNECT };
        loop {
            if ssh_answers(SocketAddr::new(self.address, 22), connect) {
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
}

/// Whether a server greets as SSH servers do.
fn ssh_answers(address: SocketAddr, connect: Duration) -> bool {
    let Ok(mut stream) = TcpStream::connect_timeout(&address, connect) else {
        return false;
    };
    let mut greeting = [0; 4];
    stream.set_read_timeout(Some(Duration::from_secs(2))).is_ok()
        && stream.read_exact(&mut greeting).is_ok()
        && greeting == *b"SSH-"
}
