//! The systems that revisions of the repository declare for nodes, and how each of them behaves when it is switched to.

use deciding::model::journal::Cause;
use deciding::model::store_path::StorePath;

use crate::chance::Chance;

/// How switches to a system end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    Works,
    /// Always for this reason.
    Fails(Cause),
    /// Now and then, in passing.
    Flaky,
}

impl Fate {
    pub fn is(self, cause: Cause) -> bool {
        self == Self::Fails(cause)
    }

    /// What fails before anything is activated.
    pub fn in_checking(self) -> Option<Cause> {
        match self {
            Self::Fails(cause @ (Cause::Check | Cause::NeedsReboot)) => Some(cause),
            Self::Fails(_) | Self::Works | Self::Flaky => None,
        }
    }

    /// What fails while it is activated.
    pub fn in_testing(self) -> Option<Cause> {
        match self {
            Self::Fails(cause @ (Cause::Activation | Cause::Units | Cause::Deadline)) => Some(cause),
            Self::Fails(_) | Self::Works | Self::Flaky => None,
        }
    }

    /// Whether a new login gets through to it.
    pub fn lets_in(self) -> bool {
        !self.is(Cause::Contact)
    }

    /// Whether its health checks pass.
    pub fn is_healthy(self) -> bool {
        !self.is(Cause::Rejected)
    }
}

/// The reasons for which a system fails on a node, and would again.
pub const BAD: [Cause; 8] = [
    Cause::Check,
    Cause::NeedsReboot,
    Cause::Activation,
    Cause::Units,
    Cause::Deadline,
    Cause::Contact,
    Cause::Rejected,
    Cause::Commit,
];

/// Every system that there ever was in a schedule. Its number is in its path.
#[derive(Debug, Default)]
pub struct Systems {
    known: Vec<System>,
}

#[derive(Debug)]
struct System {
    fate: Fate,
    kernel: u64,
}

impl Systems {
    pub fn add(&mut self, node: usize, fate: Fate, kernel: u64) -> StorePath {
        let path = system_path(self.known.len(), node);
        self.known.push(System { fate, kernel });
        path
    }

    /// What only a boot changes.
    pub fn kernel(&self, path: &StorePath) -> u64 {
        self.number(path).map_or(0, |number| self.known[number].kernel)
    }

    pub fn fate(&self, path: &StorePath) -> Fate {
        self.number(path).map_or(Fate::Works, |number| self.known[number].fate)
    }

    fn number(&self, path: &StorePath) -> Option<usize> {
        path.hash().trim_start_matches('0').parse().ok().filter(|number| *number < self.known.len())
    }
}

/// `n3-s17`: the eighteenth system, of node 3.
fn system_path(number: usize, node: usize) -> StorePath {
    format!("/nix/store/{number:032}-n{node}-s{number}").parse().unwrap()
}

/// Most systems bring no other kernel.
pub fn a_kernel(chance: &mut Chance) -> u64 {
    chance.pick(&[0, 0, 0, 0, 0, 1])
}

/// How a new system turns out.
pub fn a_fate(chance: &mut Chance, bad: u64, flaky: u64) -> Fate {
    if chance.happens(bad) {
        Fate::Fails(chance.pick(&BAD))
    } else if chance.happens(flaky) {
        Fate::Flaky
    } else {
        Fate::Works
    }
}
