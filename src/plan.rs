//! Decisions, pure and total. Nothing here performs I/O or asks a clock.

pub mod selection;
