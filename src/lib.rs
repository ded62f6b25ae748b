//! driftless keeps a fleet of NixOS machines equal to a Git branch.

pub mod cli;
pub mod command;
pub mod config;
pub mod controller;
pub mod error_chain;
pub mod model;
pub mod nix;
pub mod node;
pub mod plan;
pub mod report;
pub mod serve;
pub mod source;
