//! What a node's `/usr` comes from. Never changes the base.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::program::{bounded, require};

/// The tree whose `/usr` the nodes share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Base {
    /// The machine the lab runs on.
    Host,
    /// A Debian 13, whose Nix is 2.26. Built once (about a minute, with debootstrap) into `$DRIFTLESS_LAB_CACHE`, else
    /// `/var/cache/driftless-lab`.
    Debian13,
}

impl Base {
    /// The base that `$DRIFTLESS_LAB_BASE` names: `host` (also when unset) or `debian13`.
    pub fn from_env() -> Result<Base> {
        match std::env::var("DRIFTLESS_LAB_BASE").as_deref() {
            Err(_) | Ok("" | "host") => Ok(Base::Host),
            Ok("debian13") => Ok(Base::Debian13),
            Ok(other) => {
                bail!("DRIFTLESS_LAB_BASE is {other:?}: it must be \"host\" or \"debian13\"")
            }
        }
    }

    /// The root of the base's tree, built if need be.
    pub(crate) fn tree(self) -> Result<PathBuf> {
        match self {
            Base::Host => Ok(PathBuf::from("/")),
            Base::Debian13 => {
                let cache = std::env::var_os("DRIFTLESS_LAB_CACHE")
                    .map_or_else(|| PathBuf::from("/var/cache/driftless-lab"), PathBuf::from);
                let tree = cache.join("debian13");
                // What was added to it last: a tree of before is built anew.
                if !tree.join("usr/bin/curl").exists() {
                    require(
                        bounded(Duration::from_secs(900), "sh")
                            .args(["-c", include_str!("scripts/debian13.sh"), "debian13.sh"])
                            .arg(&tree),
                    )
                    .context("building the Debian 13 tree")?;
                }
                Ok(tree)
            }
        }
    }
}
