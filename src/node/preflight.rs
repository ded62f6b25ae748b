//! Before a copy: which paths the node lacks, and whether they fit.

use std::collections::BTreeSet;
use std::time::Duration;

use super::{Node, NodeError};
use crate::model::store_path::StorePath;
use crate::nix::{CopyTarget, Nix, PathSize, Substitute};

/// A copy must leave this much, bytes: the node's own logs, database and boot loader need to go on.
const RESERVE: u64 = 64 << 20;
/// The least that a new kernel and initrd may need on `/boot`, bytes; checked only where the node has to change them.
const BOOT_RESERVE: u64 = 8 << 20;

impl Node {
    /// The paths of a closure that the node does not have, with their sizes.
    pub(super) async fn missing(&self, closure: &[PathSize]) -> Result<Vec<PathSize>, NodeError> {
        let attempt = "ask which paths are missing";
        let mut list = String::new();
        for path in closure {
            list.push_str(path.path.as_str());
            list.push('\n');
        }
        // By stdin: a closure is longer than one argument may be (execve(2), MAX_ARG_STRLEN).
        let line = "xargs nix-store --check-validity --print-invalid";
        let output =
            self.link().shell(&self.name, attempt, line, list.as_bytes(), Duration::from_secs(120)).await?;
        if output.code != 0 {
            let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            return Err(NodeError::Script { node: self.name.clone(), attempt, said });
        }
        let invalid: BTreeSet<StorePath> = String::from_utf8_lossy(&output.stdout)
            .lines()
            .filter_map(|line| line.trim().parse().ok())
            .collect();
        Ok(closure.iter().filter(|path| invalid.contains(&path.path)).cloned().collect())
    }

    /// Whether what is missing fits. A copy that would fill the disk is never begun.
    pub(super) async fn preflight(&self, missing: &[PathSize]) -> Result<(), NodeError> {
        let needed: u64 = missing.iter().map(|path| path.nar_bytes).sum();
        let state = self.observe(Duration::from_secs(30)).await?;
        let no_space = |file_system, needed, free| {
            Err(NodeError::NoSpace { node: self.name.clone(), file_system, needed, free })
        };
        if let Some(free) = state.free_nix
            && needed + RESERVE > free
        {
            return no_space("/nix", needed + RESERVE, free);
        }
        let boots_differently = missing.iter().any(|path| path.path.name().starts_with("initrd-"));
        if let Some(free) = state.free_boot
            && boots_differently
            && free < BOOT_RESERVE
        {
            return no_space("/boot", BOOT_RESERVE, free);
        }
        Ok(())
    }

    /// How Nix reaches the node's store over the kept connection; `None` is this machine's own store.
    async fn copy_target(&self) -> Result<Option<CopyTarget>, NodeError> {
        let Some((host, ssh_options)) = self.link().kept_options().await? else { return Ok(None) };
        let escalation = self.link().escalation().await?;
        let substitute =
            if self.spec.has_fast_connection { Substitute::Never } else { Substitute::OnDestination };
        Ok(Some(CopyTarget { host, ssh_options, escalation, substitute }))
    }

    /// Copies what is missing.
    pub(super) async fn copy(
        &self,
        nix: &Nix,
        toplevel: &StorePath,
        progress: impl FnMut(u64, u64),
    ) -> Result<(), NodeError> {
        let failed = |source| NodeError::Copy { node: self.name.clone(), toplevel: toplevel.clone(), source };
        let Some(target) = self.copy_target().await? else { return Ok(()) };
        // A valid path is valid with all it refers to: what a node goes back to need not be in the store here.
        let wanted = std::iter::once(toplevel).chain(&self.spec.closure_paths);
        let wanted: Vec<_> = wanted.map(|path| PathSize { path: path.clone(), nar_bytes: 0 }).collect();
        if self.missing(&wanted).await?.is_empty() {
            return Ok(());
        }
        let mut closure = nix.closure(toplevel).await.map_err(failed)?;
        for path in &self.spec.closure_paths {
            closure.extend(nix.closure(path).await.map_err(failed)?);
        }
        let missing = self.missing(&closure).await?;
        if missing.is_empty() {
            return Ok(());
        }
        self.preflight(&missing).await?;
        let mut paths = vec![toplevel.clone()];
        paths.extend(self.spec.closure_paths.iter().cloned());
        let total = missing.iter().map(|path| path.nar_bytes).sum();
        let mut progress = progress;
        progress(0, total);
        nix.copy(&target, &paths, |copied| progress(copied.bytes_sent, total)).await.map_err(failed)
    }
}
