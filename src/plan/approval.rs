//! What exactly a person approves: the systems that the nodes of a wave, or one node, would get. Another system is another
//! plan, and needs another approval; the same one under another commit does not.

use std::fmt::Write as _;

use sha2::{Digest, Sha256};

use super::plan_time::PlanTime;
use crate::model::intent::{Intent, PlanHash};
use crate::model::name::NodeName;
use crate::model::release::{NodeRelease, Progress};

/// Stands for the systems of these nodes, given in the order of names. `None` while one of them is not evaluated yet.
pub fn hash<'a>(
    what: &str,
    nodes: impl Iterator<Item = (&'a NodeName, &'a NodeRelease)>,
) -> Option<PlanHash> {
    let mut digest = Sha256::new();
    digest.update(what);
    for (name, node) in nodes {
        match node.progress {
            Progress::Evaluating => return None,
            // It keeps what it has.
            Progress::NotEvaluated { .. } => continue,
            Progress::Building | Progress::NotBuilt { .. } | Progress::Built => {}
        }
        let toplevel = node.spec.as_ref().map_or("", |spec| spec.toplevel.as_str());
        digest.update(format!("\n{name}={toplevel}"));
    }
    let mut text = String::new();
    for byte in &digest.finalize()[..6] {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
    }
    text.parse().ok()
}

/// Whether a person has approved it, and that still counts.
pub fn is_given(intent: &Intent, hash: &PlanHash, time: &PlanTime) -> bool {
    intent
        .approvals
        .iter()
        .filter(|approval| approval.hash == *hash)
        .any(|approval| time.is_before(approval.until))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::tests::world::{fleet, node};

    fn of(world: &crate::plan::tests::world::World) -> Option<PlanHash> {
        hash("wave 1", world.release.nodes.iter())
    }

    #[test]
    fn another_system_is_another_plan_and_progress_is_not() {
        let one = of(&fleet([node("a").wants("s1"), node("b").wants("s1")]));
        assert!(one.is_some());
        let building = node("b").wants("s1").progress(Progress::Building);
        assert_eq!(one, of(&fleet([node("a").wants("s1").running("s1"), building])));
        assert_ne!(one, of(&fleet([node("a").wants("s1"), node("b").wants("s2")])));
        assert_ne!(one, of(&fleet([node("a").wants("s1")])));
        assert_eq!(of(&fleet([node("a").progress(Progress::Evaluating)])), None);
    }
}
