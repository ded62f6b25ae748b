//! Which nodes of a commit are evaluated first: those that it touches, by what was read for them before. Pure.
//!
//! Only the order comes from here: every node is evaluated for every commit, and no result depends on what was read before.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::name::NodeName;
use crate::nix::{Order, Reads};

/// The paths in which the commit differs from what was evaluated before, by that one's `cache_key`.
pub type Changed = BTreeMap<String, BTreeSet<String>>;

/// How a commit touches a node, as far as one can tell. In the order of evaluation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Touch {
    /// It changes what was read for the node.
    Affected,
    /// Nobody knows: what was read is not known, or something changed near it that no evaluation is known to read. Nix
    /// does not tell of `readFile` and its like.
    Unknown,
    /// Everything that was read is as it was.
    Untouched,
}

/// Orders nodes by how the commit touches them.
pub fn order(nodes: &BTreeSet<NodeName>, reads: &BTreeMap<NodeName, Reads>, changed: &Changed) -> Order {
    let unread = unread(reads, changed);
    let mut groups: BTreeMap<Touch, BTreeSet<NodeName>> = BTreeMap::new();
    for node in nodes {
        let touch = touch(reads.get(node), changed, &unread);
        groups.entry(touch).or_default().insert(node.clone());
    }
    let count = |touch| groups.get(&touch).map_or(0, BTreeSet::len);
    let (affected, unknown) = (count(Touch::Affected), count(Touch::Unknown));
    tracing::debug!(affected, unknown, untouched = count(Touch::Untouched), "order of evaluation");
    Order(groups.into_values().collect())
}

fn touch(reads: Option<&Reads>, changed: &Changed, unread: &Changed) -> Touch {
    let Some(reads) = reads else { return Touch::Unknown };
    let Some(changes) = changed.get(&reads.of) else { return Touch::Unknown };
    let is_near = |folder: &String| is_inside(&reads.paths, folder);
    if changes.iter().any(|path| is_read(&reads.paths, path)) {
        Touch::Affected
    } else if unread.get(&reads.of).is_some_and(|folders| folders.iter().any(is_near)) {
        Touch::Unknown
    } else {
        Touch::Untouched
    }
}

/// Of the changed paths that are known to be read for nobody: the innermost folders around them from which something is read.
fn unread(reads: &BTreeMap<NodeName, Reads>, changed: &Changed) -> Changed {
    let mut folders = Changed::new();
    for (of, changes) in changed {
        let before = || reads.values().filter(|reads| reads.of == *of);
        for path in changes {
            if before().any(|reads| is_read(&reads.paths, path)) {
                continue;
            }
            let around = above(path).find(|folder| before().any(|reads| is_inside(&reads.paths, folder)));
            folders.entry(of.clone()).or_default().extend(around.map(str::to_owned));
        }
    }
    folders
}

/// Whether a path is among those that were read, or in a folder that was read as a whole.
fn is_read(paths: &BTreeSet<String>, path: &str) -> bool {
    paths.contains(path) || above(path).any(|folder| paths.contains(folder))
}

/// Whether something inside of a folder was read.
fn is_inside(paths: &BTreeSet<String>, folder: &str) -> bool {
    if folder.is_empty() {
        return !paths.is_empty();
    }
    let inside = format!("{folder}/");
    paths.range(inside.clone()..).next().is_some_and(|path| path.starts_with(&inside))
}

/// The folders that a path is in, the innermost one first, the top (which is empty) last.
fn above(path: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(Some(path), |path| match path.rsplit_once('/') {
        Some((folder, _)) => Some(folder),
        None if path.is_empty() => None,
        None => Some(""),
    })
    .skip(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(reads: &[(&str, &str, &[&str])], changed: &[(&str, &[&str])]) -> Vec<String> {
        let texts = |paths: &[&str]| paths.iter().map(|path| (*path).to_owned()).collect::<BTreeSet<_>>();
        let reads: BTreeMap<NodeName, Reads> = reads
            .iter()
            .map(|(name, of, paths)| {
                (name.parse().unwrap(), Reads { of: (*of).to_owned(), paths: texts(paths) })
            })
            .collect();
        let changed = changed.iter().map(|(of, paths)| ((*of).to_owned(), texts(paths))).collect();
        let mut nodes: BTreeSet<NodeName> = reads.keys().cloned().collect();
        nodes.insert("new".parse().unwrap());
        let Order(groups) = super::order(&nodes, &reads, &changed);
        let joined =
            |group: BTreeSet<NodeName>| group.iter().map(NodeName::as_str).collect::<Vec<_>>().join(" ");
        groups.into_iter().map(joined).collect()
    }

    const READS: [(&str, &str, &[&str]); 3] = [
        ("db", "t1", &["deployment.nix", "hosts/db/default.nix", "lib/base.nix"]),
        ("mail", "t1", &["deployment.nix", "hosts/mail", "lib/base.nix"]),
        ("web", "t1", &["deployment.nix", "hosts/web/default.nix", "lib/base.nix"]),
    ];

    #[test]
    fn a_node_whose_file_changed_comes_first_and_one_that_nobody_knows_before_the_others() {
        assert_eq!(order(&READS, &[("t1", &["hosts/web/default.nix"])]), ["web", "new", "db mail"]);
    }

    #[test]
    fn a_folder_that_was_read_as_a_whole_stands_for_what_is_in_it() {
        assert_eq!(order(&READS, &[("t1", &["hosts/mail/files/a/b"])]), ["mail", "new", "db web"]);
    }

    #[test]
    fn what_everyone_reads_touches_everyone() {
        assert_eq!(order(&READS, &[("t1", &["lib/base.nix"])]), ["db mail web", "new"]);
    }

    #[test]
    fn a_file_that_nobody_is_known_to_read_is_perhaps_its_neighbours() {
        assert_eq!(order(&READS, &[("t1", &["hosts/web/motd/text"])]), ["new web", "db mail"]);
        assert_eq!(order(&READS, &[("t1", &["hosts/new/default.nix"])]), ["db mail new web"]);
        assert_eq!(order(&READS, &[("t1", &["README.md"])]), ["db mail new web"]);
    }

    #[test]
    fn what_cannot_be_compared_is_not_known() {
        assert_eq!(order(&READS, &[]), ["db mail new web"]);
        let mut reads = READS.to_vec();
        reads[1].1 = "t0";
        assert_eq!(order(&reads, &[("t1", &["hosts/web/default.nix"])]), ["web", "mail new", "db"]);
    }

    #[test]
    fn where_nothing_changed_the_unknown_ones_come_first() {
        assert_eq!(order(&READS, &[("t1", &[])]), ["new", "db mail web"]);
    }
}
