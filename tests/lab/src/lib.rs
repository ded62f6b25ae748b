//! The lab: real nodes on one machine, for the tests, the demo and the benchmarks.
//!
//! A node is systemd as PID 1 in its own namespaces, with a real sshd, a real Nix store with its daemon, its own address on a
//! bridge of the lab, and its own `/etc`, `/run`, `/var`, `/boot` and (at first empty) `/nix`. Of the machine it runs on it
//! sees nothing but `/usr`, read-only. It needs root, Linux 5.14 (with TAP devices, for a [`Wire`]) with cgroup2, systemd, iproute2, util-linux, openssh and Nix.
//!
//! ```no_run
//! use driftless_lab::{Fault, Lab, System};
//! # fn main() -> anyhow::Result<()> {
//! let lab = Lab::start()?;
//! let good = System::new("one").build()?;
//! let bad = System::new("two").fault(Fault::KillSsh).build()?;
//! let n1 = lab.node("n1", &good)?;
//! assert_eq!(n1.running()?, good);
//! # let _ = bad;
//! # Ok(()) }
//! ```
//!
//! Everything a lab makes is removed when the [`Lab`] and its [`Node`]s are dropped, and also when their process is killed.
//! The lab touches nothing that it did not make (but one limit of the kernel, which it raises), never fakes a program, and
//! knows driftless only as a program ([`Fleet`]).

mod base;
mod fleet;
mod lab;
mod network;
mod node;
mod program;
mod setup;
mod supervisor;
mod system;
mod wire;

pub use base::Base;
pub use fleet::Fleet;
pub use lab::Lab;
pub use node::{Link, Node};
pub use program::Output;
pub use setup::{Setup, Sudo, User};
pub use supervisor::Power;
pub use system::{Fault, System};
pub use wire::{Way, Wire};
