//! Before a copy: what roots the system on the node, which paths it lacks, and whether they fit. One question, because each
//! costs round trips of its own.

use std::collections::BTreeSet;
use std::time::Duration;

use super::frame::Reply;
use super::installed::{self, Program, Sure};
use super::{Node, NodeError};
use crate::model::journal::SwitchId;
use crate::model::store_path::StorePath;
use crate::nix::{CopyTarget, Nix, NixError, PathSize, Substitute};

/// A copy must leave this much, bytes: the node's own logs, database and boot loader need to go on.
const RESERVE: u64 = 64 << 20;
/// The least that a new kernel and initrd may need on `/boot`, bytes; checked only where the node has to change them.
const BOOT_RESERVE: u64 = 8 << 20;
/// Longest time for the node to look for every path of a closure in its database.
pub(super) const PREPARE: Duration = Duration::from_secs(120);

/// What has to be copied. Nothing, where the node has it all.
#[derive(Debug, Default)]
pub struct Delta {
    missing: Vec<PathSize>,
    /// What Nix is asked to copy, with everything it needs.
    paths: Vec<StorePath>,
}

impl Node {
    /// Roots a system on the node, then tells what has to be copied. A copy that would fill the disk is never begun.
    pub(super) async fn prepare(
        &self,
        nix: &Nix,
        toplevel: &StorePath,
        id: &SwitchId,
    ) -> Result<Delta, NodeError> {
        let paths: Vec<StorePath> =
            std::iter::once(toplevel).chain(&self.spec.closure_paths).cloned().collect();
        let closure = if self.link().is_local() { Ok(Vec::new()) } else { closure(nix, &paths).await };
        // A valid path is valid with all it refers to: what a node goes back to need not be in the store here.
        let wanted = closure.as_ref().map_or_else(|_| paths.clone(), Vec::clone);
        let verb = ["prepare", id.as_str(), toplevel.as_str()];
        let reply = self.ask_about("prepare the copy", &verb, &wanted, PREPARE).await?;
        let missing: BTreeSet<StorePath> =
            reply.all("missing").filter_map(|path| path.parse().ok()).collect();
        if missing.is_empty() {
            return Ok(Delta::default());
        }
        let not_here =
            |source| NodeError::Copy { node: self.name.clone(), toplevel: toplevel.clone(), source };
        let missing: Vec<_> =
            closure.map_err(not_here)?.into_iter().filter(|path| missing.contains(path)).collect();
        let missing = nix.sizes(toplevel, &missing).await.map_err(not_here)?;
        self.preflight(&missing, &reply)?;
        Ok(Delta { missing, paths })
    }

    pub(super) fn preflight(&self, missing: &[PathSize], reply: &Reply) -> Result<(), NodeError> {
        let needed: u64 = missing.iter().map(|path| path.nar_bytes).sum();
        let no_space = |file_system, needed, free| {
            Err(NodeError::NoSpace { node: self.name.clone(), file_system, needed, free })
        };
        if let Some(free) = reply.optional("free-nix")
            && needed + RESERVE > free
        {
            return no_space("/nix", needed + RESERVE, free);
        }
        let boots_differently = missing.iter().any(|path| path.path.name().starts_with("initrd-"));
        if let Some(free) = reply.optional("free-boot")
            && boots_differently
            && free < BOOT_RESERVE
        {
            return no_space("/boot", BOOT_RESERVE, free);
        }
        Ok(())
    }

    /// How Nix reaches the node's store over the kept connection; `None` is this machine's own store.
    pub(super) async fn copy_target(&self) -> Result<Option<CopyTarget>, NodeError> {
        let Some((host, ssh_options)) = self.link().kept_options().await? else { return Ok(None) };
        let escalation = match self.link().program().await {
            // It knows which Nix it lets us have, and as whom.
            (Program::Installed, Sure::Known) => vec![installed::NAME.to_owned()],
            (Program::Shell | Program::Installed, _) => self.link().escalation().await?,
        };
        let substitute =
            if self.spec.has_fast_connection { Substitute::Never } else { Substitute::OnDestination };
        Ok(Some(CopyTarget { host, ssh_options, escalation, substitute }))
    }

    /// Copies what is missing.
    pub(super) async fn copy(
        &self,
        nix: &Nix,
        toplevel: &StorePath,
        delta: Delta,
        mut progress: impl FnMut(u64, u64),
    ) -> Result<(), NodeError> {
        if delta.missing.is_empty() {
            return Ok(());
        }
        let Some(target) = self.copy_target().await? else { return Ok(()) };
        let total = delta.missing.iter().map(|path| path.nar_bytes).sum();
        progress(0, total);
        nix.copy(&target, &delta.paths, |copied| progress(copied.bytes_sent, total))
            .await
            .map_err(|source| NodeError::Copy { node: self.name.clone(), toplevel: toplevel.clone(), source })
    }
}

async fn closure(nix: &Nix, paths: &[StorePath]) -> Result<Vec<StorePath>, NixError> {
    let mut closure = Vec::new();
    for path in paths {
        closure.extend(nix.requisites(path).await?.iter().cloned());
    }
    Ok(closure)
}
