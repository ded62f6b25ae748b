//! The fault campaign: a small fleet of lab nodes under a real controller, random merges and random faults, and invariants
//! that must hold whatever happens. Knows driftless only as a program.
//!
//! A [`Schedule`] is made from a seed alone. [`run`] plays it: each round of merges and faults ends with a checkpoint, at which
//! faults stop, a person repairs what only a person can, and a good release must reach every node in a bounded time. Then
//! journals are held against what the lab saw, and nothing may be left behind anywhere.

mod campaign;
mod checkpoint;
mod diary;
mod dice;
mod fault;
mod field;
mod inject;
mod journal;
mod ledger;
mod merge;
mod report;
mod schedule;
mod truth;
mod witness;

pub use campaign::{Broken, Options, run};
pub use fault::{ControllerFault, Fault, NodeFault};
pub use merge::{MergeKind, Wrong};
pub use report::Report;
pub use schedule::{Injection, Merge, NODES, Round, Schedule, When};
