//! The GC roots of what was built: the memory of a controller whose other memory is lost.

use std::collections::BTreeSet;
use std::path::Path;

use super::prepare::system_root;
use crate::model::name::NodeName;
use crate::model::release::{NodeRelease, Release};
use crate::model::store_path::StorePath;

/// Lets the garbage collector have what was built for nodes that are declared no more.
pub fn forget_roots(roots: &Path, release: &Release) {
    for entry in std::fs::read_dir(roots).into_iter().flatten().flatten() {
        let name = entry.file_name().to_str().and_then(|name| name.parse::<NodeName>().ok());
        if name.is_some_and(|name| !release.nodes.contains_key(&name))
            && let Err(error) = std::fs::remove_dir_all(entry.path())
        {
            tracing::warn!(path = %entry.path().display(), %error, "the GC roots of a removed node stay");
        }
    }
}

/// The nodes that are deployed to now: by the release in force or, where nobody remembers one, by what was built for them.
pub fn deployed_to(release: Option<&Release>, roots: &Path) -> BTreeSet<NodeName> {
    let Some(release) = release else { return rooted_nodes(roots).collect() };
    let declared = |node: &NodeRelease| match &node.spec {
        Some(spec) => spec.host.is_some(),
        None => node.last_good.is_some(),
    };
    release.nodes.iter().filter(|(_, node)| declared(node)).map(|(name, _)| name.clone()).collect()
}

fn rooted_nodes(roots: &Path) -> impl Iterator<Item = NodeName> {
    let names = std::fs::read_dir(roots).into_iter().flatten().flatten();
    let names = names.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    names.filter(|name| system_root(roots, name).is_symlink())
}

/// What an earlier controller built for a node last: its GC root is the memory.
pub fn rooted(roots: &Path, node: &NodeName) -> Option<StorePath> {
    let target = std::fs::read_link(system_root(roots, node)).ok()?;
    target.exists().then_some(())?;
    target.to_str()?.parse().ok()
}
