//! The one integration binary.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed, which is what it is for")]

mod addresses;
mod architecture;
mod beginning;
mod campaign;
mod cli;
mod cli_on_nodes;
mod declaring;
mod health;
mod hooks;
mod links;
mod logins;
mod managed;
mod nix_copies;
mod nix_formats;
mod nix_library;
mod nix_parity;
mod nix_programs;
mod own_host;
mod packaging;
mod reconcile;
mod secrets;
mod service_files;
mod shipping;
mod switch;
mod windows;
