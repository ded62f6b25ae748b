//! All of driftless that decides, as a crate of its own: `tests/simulation` compiles it without what touches the world, which
//! thereby cannot be needed.

pub mod model;
pub mod plan;
pub mod reconcile;
