//! Placeholder until the first rooms land.
