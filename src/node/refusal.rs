//! Why a node does not start a switch, in the node's words and in ours. Never decides what follows from it.

/// Why a node does not start a switch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// Another switch is running.
    Busy,
    /// It runs another system than expected.
    Changed {
        /// What it runs.
        running: String,
    },
    /// The system is not on the node.
    Missing,
    /// The running system has no switch-to-configuration: there would be no way back.
    NoWayBack,
    /// A switch of that id exists already.
    Exists,
    /// An earlier switch was interrupted, and its guard is still ending it.
    Unfinished {
        /// That switch.
        id: String,
    },
    /// What must be written down first cannot be: a full or read-only file system.
    Unwritable {
        /// What and where, in the node's words.
        what: String,
    },
    /// It starts signed systems alone, and this one is not.
    Unsigned {
        /// What its Nix says of it.
        said: String,
    },
    /// A health check that has to pass before does not. Nobody has asked the node to start anything.
    NotReady {
        /// Which: kind and name.
        check: String,
        /// What it said.
        said: String,
    },
    /// Anything else, in the node's words.
    Other(String),
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Self::NotReady { check, said } = self {
            return write!(f, "not touched, because its check {check} must pass first: {said}");
        }
        f.write_str("the node refused to start the switch: ")?;
        match self {
            Self::NotReady { .. } => Ok(()),
            Self::Busy => f.write_str("another switch is running"),
            Self::Changed { running } => write!(f, "it now runs {running}"),
            Self::Missing => f.write_str("the system is not on the node"),
            Self::NoWayBack => f.write_str(
                "the running system has no switch-to-configuration, so there would be no way back",
            ),
            Self::Exists => f.write_str("a switch of that id exists already"),
            Self::Unfinished { id } => {
                write!(
                    f,
                    "the node is still ending switch {id}, which was interrupted; try again in a moment"
                )
            }
            Self::Unwritable { what } => {
                write!(f, "it cannot write {what}; is the file system full, or read-only?")
            }
            Self::Unsigned { said } => write!(
                f,
                "the system is signed by none of the node's services.driftless-node.trustedPublicKeys, nor was it installed \
                 there before; sign what is deployed with one of these keys ({said})"
            ),
            Self::Other(said) => f.write_str(said),
        }
    }
}
