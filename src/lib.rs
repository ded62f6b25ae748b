//! driftless keeps a fleet of NixOS machines equal to a Git branch.
//!
//! # The way of a commit
//!
//! ```text
//!          source              nix                       nix
//!  commit ────────▶ Revision ────────▶ Names, NodeSpecs ─────────▶ Release ────┐ what Git wants
//!          fetch              evaluate                   realise               │
//!                                                                              ▼
//!  nodes ──────────────── node: one read of each ───────────────▶ Observed ─▶ plan() ─▶ one Decision per node
//!                                                                              ▲               │
//!  clock · intent: what people said ─────────────────────────────────────────────┘               │ Decision::Act
//!                                                                                              ▼
//!       status · plan · report · JSON · page · metrics ◀── Snapshot ◀─────────────── the node's own switch
//!                                                                      copy ▸ start ▸ test ▸ contact ▸ health ▸ commit
//! ```
//!
//! Everything that decides is on the right of the middle row and pure; everything that touches the world only carries. A
//! commit is followed through the house like this:
//!
//! 1. [`source`] fetches the branch into a clone of its own. The newest commit is a [`model::revision::Revision`], and its
//!    files are written out for the evaluator.
//! 2. [`nix`] evaluates the deployment file of that commit through `nix/manifest.nix`: first the [names of the
//!    nodes](model::manifest::Names), which no node can break, then a few nodes at a time. Each node is a
//!    [`model::node::NodeSpec`]: how it is reached, how it is switched, and which system it should run. As soon as it is
//!    known, its system is built, and published where there is a cache or a signing key. A node may build its own.
//! 3. A revision with its nodes and how far each has come is a [`model::release::Release`]. A node that does not evaluate
//!    or build keeps its last good system in it.
//! 4. [`node`] asks each machine what it is: [`model::observed::NodeState`], with the [journal](model::journal) that the
//!    machine keeps of its own switches. Nothing that can be seen there is remembered here.
//! 5. [`plan::plan`] takes these two, what [people want](model::intent) and the time, and answers with one
//!    [`model::decision::Decision`] for each node: in sync, in flight, act, or hold with a typed reason. The order of its
//!    questions is at the top of the file; waves, windows and limits come last ([`plan::gate`], [`plan::room`]).
//! 6. [`node::Node::deploy`] does what an [`model::decision::Action`] says: copies the closure and hands over to
//!    `src/node/switch/`, [a script which runs on the node](node::SWITCH_SH). The node tries the system, waits for proof that it
//!    can still be reached, waits for the verdict of the health checks, and only then makes it the boot default. Without
//!    contact or verdict it goes back by itself, whoever is gone.
//! 7. [`controller`] is the loop around 1 to 6. Slow things are tasks beside it; a task that ends only says "look again".
//!    What is known, and what is to be started or looked at and when, is kept by [`reconcile`], which has no hands. Each pass
//!    ends with one immutable [`model::snapshot::Snapshot`].
//! 8. [`serve`], [`report`] and [`cli`] show that snapshot. [`plan::view`] has put every decision into words already, so
//!    that all of them say the same. `driftless deploy` goes the same way without a controller, from 2 to 6.
//!
//! A test, `tests/architecture.rs`, guards what the rooms may not do.

// The rooms, in the order in which one reads them.

// What is talked about: plain data, no I/O, no clock.
pub mod model;

// `driftless.toml`.
pub mod config;

// Git: the branch, its commits, their files.
pub mod source;

// The nix programs: evaluate, realise, copy. The Nix code that they run is in `nix/`.
pub mod nix;

// Secrets: from their sources to bytes in memory.
pub mod secrets;

// What to do about each node, and why not: pure.
pub mod plan;

// What the loop knows and orders: pure but for its memory.
pub mod reconcile;
// Servers, asked from here for health checks: HTTP, TCP, Prometheus.
pub mod probe;

// One machine: ssh, observe, switch, and the script that runs there.
pub mod node;

// Suspensions, approvals, overrides: a file that people's words survive in.
pub mod intent;

// The loop that owns all state.
pub mod controller;

// The windows: metrics, JSON, status page, control socket.
pub mod serve;

// The drift report.
pub mod report;

// The command line: one file per verb.
pub mod cli;

// Below everything: how a program is started with a deadline, and how an error is told with its causes.
pub mod command;
pub mod error_chain;

// Not in what is shipped: everything that is parsed from outside, for fuzzers.
#[cfg(any(test, fuzzing))]
pub mod fuzz;
