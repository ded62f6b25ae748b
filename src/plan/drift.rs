//! In which ways a node differs from what it should be. Looks at one fresh state; decides nothing.
//!
//! The goal says which system counts: what runs (`switch`, `test`) or what the next boot starts (`boot`).

use std::collections::BTreeSet;

use super::history;
use crate::model::drift::DriftKind;
use crate::model::glob;
use crate::model::health::FailingCheck;
use crate::model::node::{Goal, NodeSpec};
use crate::model::observed::{NodeState, Observation};
use crate::model::store_path::StorePath;

/// Whether the node is where its goal wants it: nothing that a switch could do is left.
pub fn is_installed(toplevel: &StorePath, goal: Goal, state: &NodeState) -> bool {
    let runs = !goal.activates() || state.running == *toplevel;
    let boots = !goal.persists()
        || state.boot_default.as_ref() == Some(toplevel) && !boots_otherwise(Some(toplevel), state);
    runs && boots
}

/// Whether the next boot starts another system, once.
fn boots_otherwise(than: Option<&StorePath>, state: &NodeState) -> bool {
    state.staged.is_some() && state.staged.as_ref() != than
}

/// Every kind in which the node differs. Never call it with the kept state of an unreachable node.
pub fn kinds(
    desired: Option<&StorePath>,
    spec: &NodeSpec,
    state: &NodeState,
    failing: &[FailingCheck],
) -> BTreeSet<DriftKind> {
    let mut kinds = BTreeSet::new();
    let counts = match spec.goal {
        Goal::Switch | Goal::Test => &state.running,
        // Booted once, and not the default yet.
        Goal::Boot if desired == Some(&state.running) => &state.running,
        Goal::Boot => state.boot_default.as_ref().unwrap_or(&state.running),
    };
    if desired.is_some_and(|desired| desired != counts) {
        let ours = history::was_installed(counts, state);
        kinds.insert(if ours { DriftKind::Outdated } else { DriftKind::Diverged });
    }
    if is_unpersisted(desired, spec.goal, state) {
        kinds.insert(DriftKind::Unpersisted);
    }
    if needs_reboot(desired, spec.goal, state) {
        kinds.insert(DriftKind::RebootRequired);
    }
    if !failing.is_empty() || !failed_units(spec, state).is_empty() {
        kinds.insert(DriftKind::Degraded);
    }
    kinds
}

/// Whether something on the node is not well that was before.
pub fn is_degraded(spec: &NodeSpec, seen: &Observation, state: &NodeState) -> bool {
    !seen.health.is_empty() || !failed_units(spec, state).is_empty()
}

/// The failed units that count: those that had not failed before the last switch already, whatever is deployed.
pub fn failed_units(spec: &NodeSpec, state: &NodeState) -> Vec<String> {
    let ignored = |unit: &str| spec.ignore_units.iter().any(|pattern| glob::matches(pattern, unit));
    let counts = |unit: &&String| !state.baseline.contains(unit) && !ignored(unit);
    state.failed_units.iter().filter(counts).cloned().collect()
}

/// With the other goals, running and boot default differ because the deployment says so.
fn is_unpersisted(desired: Option<&StorePath>, goal: Goal, state: &NodeState) -> bool {
    let running = Some(&state.running);
    match goal {
        Goal::Switch => {
            state.boot_default.as_ref() != running
                || boots_otherwise(running, state) && !awaited(desired, state)
        }
        Goal::Boot => {
            desired == running && state.boot_default.as_ref() != running
                || desired.is_some() && boots_otherwise(desired, state)
        }
        Goal::Test => false,
    }
}

/// Whether the next boot starts the desired system, once.
fn awaited(desired: Option<&StorePath>, state: &NodeState) -> bool {
    state.staged.is_some() && state.staged.as_ref() == desired
}

/// Kernel, initrd and modules are loaded once per boot; systemd re-executes itself and needs no reboot.
fn needs_reboot(desired: Option<&StorePath>, goal: Goal, state: &NodeState) -> bool {
    let kernel = &state.kernel;
    let known = !kernel.booted.is_empty() && !kernel.running.is_empty();
    let waits_for_boot = match goal {
        Goal::Boot if desired == Some(&state.running) => false,
        Goal::Boot => state.boot_default.as_ref().is_some_and(|next| *next != state.running),
        Goal::Switch | Goal::Test => false,
    };
    waits_for_boot || awaited(desired, state) || (known && kernel.booted != kernel.running)
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::model::sample;

    #[test]
    fn what_had_failed_before_the_last_switch_degrades_nobody_and_a_failing_check_does() {
        let view = sample::in_sync("web1");
        let (mut spec, seen) = (sample::spec("web1"), view.observation.unwrap());
        let mut state = seen.state.clone().unwrap();
        let kinds = |spec: &NodeSpec, state: &NodeState, failing: &[FailingCheck]| {
            kinds(Some(&spec.toplevel), spec, state, failing)
        };
        state.failed_units = vec!["chronic.service".into(), "ignored.service".into()];
        state.baseline = vec!["chronic.service".into()];
        spec.ignore_units = vec!["ignored.*".into()];
        assert_eq!(kinds(&spec, &state, &[]), BTreeSet::new());
        let failing =
            FailingCheck { name: "http web".into(), output: "no".into(), since: Timestamp::UNIX_EPOCH };
        assert_eq!(kinds(&spec, &state, &[failing]), BTreeSet::from([DriftKind::Degraded]));
        state.failed_units.push("fresh.service".into());
        assert_eq!(kinds(&spec, &state, &[]), BTreeSet::from([DriftKind::Degraded]));
        assert_eq!(failed_units(&spec, &state), ["fresh.service"]);
    }
}
