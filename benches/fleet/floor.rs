//! The floor: the same kind of commit brought to the nodes by hand-run commands, as many nodes at a time as processors.
//!
//! Uses nothing of driftless but its Nix library, which the deployment imports.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use driftless_lab::Node;

use crate::world::World;

/// What is done for each node, in order.
pub const STEPS: [&str; 7] = ["evaluate", "realise", "copy", "test", "login", "profile", "boot"];

/// A person with an open connection to each node that is switched by hand.
pub struct Floor<'a> {
    world: &'a World,
    script: PathBuf,
}

impl<'a> Floor<'a> {
    /// Opens the connections.
    pub fn new(world: &'a World) -> Result<Floor<'a>> {
        let script = world.fleet.dir().join("floor.sh");
        fs::write(&script, include_str!("floor.sh"))?;
        let floor = Floor { world, script };
        for (name, node) in world.by_hand() {
            let mut ssh = world.program("ssh");
            ssh.arg("-F").arg(world.fleet.ssh_config()).args(["-M", "-N", "-f", "-S"]);
            ssh.arg(floor.socket(name)).arg(format!("root@{}", node.address()));
            world.require(ssh).with_context(|| format!("connecting to {name}"))?;
        }
        Ok(floor)
    }

    /// Brings every node to a new system. Yields how long that took, and adds the time of each step to `steps`.
    pub fn deploy(&self, text: &str, steps: &mut BTreeMap<String, Duration>) -> Result<Duration> {
        let file = self.world.fleet.dir().join("by-hand.nix");
        let nodes: Vec<(&str, &Node)> = self.world.by_hand().collect();
        fs::write(&file, self.world.deployment(nodes.iter().copied(), text))?;
        let (next, told) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
        let hand = || -> Result<()> {
            while let Some((name, node)) = nodes.get(next.fetch_add(1, Ordering::Relaxed)) {
                let mut bash = self.world.program("bash");
                bash.arg(&self.script).arg(&file).arg(name).arg(node.address().to_string());
                bash.arg(self.world.fleet.ssh_config()).arg(self.socket(name));
                let said = self.world.require(bash).with_context(|| format!("{name} by hand"))?;
                told.lock().map_err(|_| anyhow::anyhow!("another hand panicked"))?.push(said);
            }
            Ok(())
        };
        let began = Instant::now();
        std::thread::scope(|scope| {
            let hands: Vec<_> = (0..self.world.cores).map(|_| scope.spawn(hand)).collect();
            hands.into_iter().try_for_each(|thread| match thread.join() {
                Ok(done) => done,
                Err(panic) => std::panic::resume_unwind(panic),
            })
        })?;
        let took = began.elapsed();
        for said in told.into_inner().unwrap_or_default() {
            add_steps(&said, steps)?;
        }
        Ok(took)
    }

    fn socket(&self, name: &str) -> PathBuf {
        self.world.fleet.dir().join(format!("{name}.sock"))
    }
}

impl Drop for Floor<'_> {
    fn drop(&mut self) {
        for (name, node) in self.world.by_hand() {
            let mut ssh = self.world.program("ssh");
            ssh.args(["-q", "-S"]).arg(self.socket(name)).args(["-O", "exit", &node.address().to_string()]);
            let _ = self.world.require(ssh);
        }
    }
}

/// Adds what one run of the script said.
fn add_steps(said: &str, steps: &mut BTreeMap<String, Duration>) -> Result<()> {
    let mut before = None;
    for line in said.lines() {
        let Some((step, at)) = line.split_once(' ') else { bail!("the script said {line:?}") };
        let at: f64 = at.parse()?;
        if let Some(before) = before {
            *steps.entry(step.to_owned()).or_default() += Duration::from_secs_f64(f64::max(at - before, 0.0));
        }
        before = Some(at);
    }
    Ok(())
}
