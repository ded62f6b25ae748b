//! The scripts that run on nodes, carried in the binary.

/// Observes a node and switches it: all files of `node/switch`, in the order of their names.
pub const SWITCH_SH: &str = concat!(
    include_str!("switch/1-base.sh"),
    "\n",
    include_str!("switch/2-asked.sh"),
    "\n",
    include_str!("switch/3-verbs.sh"),
    "\n",
    include_str!("switch/4-journal.sh"),
    "\n",
    include_str!("switch/5-start.sh"),
    "\n",
    include_str!("switch/6-units.sh"),
    "\n",
    include_str!("switch/7-phases.sh"),
    "\n",
    include_str!("switch/8-boot.sh"),
    "\n",
    include_str!("switch/9-back.sh"),
);
/// Takes secrets to a node.
pub(super) const SECRETS_SH: &str = include_str!("secrets.sh");
