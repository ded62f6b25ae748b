//! What must hold of a node whenever nobody is switching it, whatever happened before. One place for the tests of the switch
//! and for the fault campaign. Reads what the node shows; knows of driftless what its README says it leaves on a node.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::Node;

/// The last breath of a unit, its ExecStopPost, may outlive the news of an outcome by a moment.
const LAST_BREATH: Duration = Duration::from_secs(20);

/// One line of the report per thing that is left; nothing where nothing is.
const LEFT: &str = r#"
systemctl list-units --all --plain --no-legend 'driftless-*' | sed 's/^/unit /'
for dir in /sys/fs/cgroup/*/driftless-*; do
  [ ! -d "$dir" ] || echo "cgroup $dir: $(cat "$dir/cgroup.procs")"
done
for process in /proc/[0-9]*; do
  tr '\0\n' '  ' <"$process/cmdline" 2>/dev/null | sed "s/^/process ${process#\/proc\/}: /"
done | grep -E ': [^ ]*sh [^ ]*/(switch\.sh|bin/switch-to-configuration) '
for lock in /run/driftless-node/lock /run/nixos/switch-to-configuration.lock; do
  [ ! -e "$lock" ] || flock -n "$lock" true || echo "held $lock"
done
for file in /run/driftless-node/start-* /run/driftless-node/*/reserve /run/driftless-node/*/*.new \
  /var/lib/driftless-node/switches/*/*.new; do
  [ ! -e "$file" ] || echo "file $file"
done
for live in /run/driftless-node/*/; do
  live=${live%/}
  [ ! -d "$live" ] || [ -d "/var/lib/driftless-node/switches/${live##*/}" ] || echo "run directory $live"
done
for root in /nix/var/nix/gcroots/driftless/*/; do
  id=${root%/}
  id=${id##*/}
  summary=/var/lib/driftless-node/switches/$id/summary
  # What a power cut ended keeps its roots until somebody ends it; every other switch has given them back.
  if [ -d "$root" ] && { [ ! -e "$summary" ] || grep -q "$(printf '\tfinished\t')" "$summary"; }; then echo "root $root"; fi
done
"#;

impl Node {
    /// Insists that the node is sound: it can be logged into, runs a system of `runs`, its profile and its boot loader agree
    /// on a system of `boots`, and nothing of a switch is left on it but the journal, in which nothing is unfinished but what
    /// another boot left so. Waits a moment for units to end; a switch that still runs is an error.
    pub fn assert_sound(&self, runs: &[&str], boots: &[&str]) -> Result<()> {
        self.check_soundness(runs, boots).with_context(|| {
            let tell = "cat /var/lib/driftless-node/switches/*/summary; cat /var/lib/driftless-node/switches/*/log | tail -n 80";
            let journal = self.enter(tell).map(|said| said.stdout).unwrap_or_default();
            format!("{} is not sound; its journal and log:\n{journal}", self.name)
        })
    }

    fn check_soundness(&self, runs: &[&str], boots: &[&str]) -> Result<()> {
        self.ssh(["true"])?.ok().context("logging in")?;
        let running = self.running()?;
        ensure!(runs.contains(&running.as_str()), "it runs {running}, not one of {runs:?}");
        let (profile, loader) = (self.boot_default()?, self.loader_default()?);
        ensure!(profile == loader, "the profile is {profile}, and the boot loader starts {loader}");
        ensure!(boots.contains(&profile.as_str()), "it boots {profile}, not one of {boots:?}");
        let began = Instant::now();
        while let left = self.enter(LEFT)?.ok()?
            && !left.is_empty()
        {
            if began.elapsed() > LAST_BREATH {
                bail!("this is left:\n{left}");
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        self.check_journal()
    }

    /// Every line has its twelve fields, and none is unfinished in this boot.
    fn check_journal(&self) -> Result<()> {
        let boot = self.boot_id()?;
        // On /run first, as driftless itself reads it: /var may have been full.
        let tell = "cd /var/lib/driftless-node/switches 2>/dev/null || exit 0; for id in *; do \
                    cat /run/driftless-node/$id/summary 2>/dev/null || tail -n 1 $id/summary 2>/dev/null; done; :";
        let told = self.enter(tell)?.ok()?;
        let mut seen = BTreeMap::new();
        for line in told.lines() {
            let fields: Vec<&str> = line.split('\t').collect();
            ensure!(fields.len() == 12, "a line of the journal has {} fields: {line:?}", fields.len());
            let (id, phase, outcome, of_boot) = (fields[0], fields[3], fields[4], fields[10]);
            ensure!(seen.insert(id, line).is_none(), "two entries are called {id}");
            ensure!(
                (phase == "finished") == (outcome != "-"),
                "an entry in phase {phase} with outcome {outcome}"
            );
            ensure!(outcome != "-" || of_boot != boot, "unfinished in this boot: {line:?}");
        }
        Ok(())
    }
}
