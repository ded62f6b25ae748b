//! The nouns of driftless, as plain data.
//!
//! Everything here is pure: no I/O, no async, no clock. Values are parsed at the border into these types and can then
//! be trusted; `plan` decides over them, the adapters produce and consume them, the windows print them.

#[macro_use]
mod parsed;

pub mod name;
pub mod packages;
pub mod revision;
pub mod store_path;

pub mod glob;
pub mod selector;

pub mod format;
pub mod health;
pub mod hook;
pub mod manifest;
pub mod node;
pub mod release;
pub mod rollout;
pub mod secret;
pub mod way;

pub mod intent;

pub mod journal;
pub mod observed;

pub mod action;
pub mod decision;
pub mod drift;
pub mod progress;
pub mod snapshot;
pub mod spoken;

#[cfg(test)]
pub(crate) mod sample;

pub use parsed::ParseError;
