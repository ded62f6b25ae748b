//! Copying 200 small paths: `nix copy` by hand on one node, by both of Nix's protocols, against driftless on another, near and
//! far.
//!
//! driftless's side is the library's [`Node::push`]: root, questions, copy. Both sides have a connection open before.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use driftless::config::{NixConfig, SshConfig};
use driftless::model::observed::Stage;
use driftless::model::store_path::StorePath;
use driftless::nix::Nix;
use driftless::node::Node;
use driftless_lab::Wire;
use tokio::sync::watch;

use crate::table::{Bound, Table, median, seconds};
use crate::world::World;

/// Runs that count; one more comes before them.
const RUNS: usize = 5;
/// Paths that are copied each time, beside the one that refers to them.
const PATHS: usize = 200;
/// The same for the legacy protocol far away: each takes as long as all others together.
const FEW: usize = 1;
/// Round trips.
const FAR: [Duration; 2] = [Duration::ZERO, Duration::from_millis(100)];

/// Copies by hand and by driftless in turn, and adds both to the table.
pub fn measure(world: &World, table: &mut Table) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let (_, hand) = world.by_hand().next().context("no node for hands")?;
    let (name, ours) = world.ours().next().context("no node for driftless")?;
    let socket = world.fleet.dir().join("copy.sock");
    let node = connection(world, name, ours)?;
    let config = NixConfig { options: settings(), ..NixConfig::default() };
    let nix = Nix::new(&config, &world.fleet.dir().join("copy"))?;
    let mut ssh = world.program("ssh");
    ssh.arg("-F").arg(world.fleet.ssh_config()).args(["-M", "-N", "-f", "-S"]).arg(&socket);
    ssh.arg(format!("root@{}", hand.address()));
    world.require(ssh).context("connecting by hand")?;
    runtime.block_on(node.observe(Duration::from_secs(20))).context("connecting")?;
    for far in FAR {
        for node in [hand, ours] {
            node.wire(Wire::new(far, 0.0))?;
        }
        let (mut by_hand, mut by_us, mut by_legacy) = (Vec::new(), Vec::new(), Vec::new());
        let options = format!("-F {} -S {}", world.fleet.ssh_config().display(), socket.display());
        let copy = |scheme: &str, root: &StorePath| {
            let mut copy = world.program("nix");
            copy.env("NIX_SSHOPTS", &options).args(["copy", "--quiet", "--no-check-sigs", "--to"]);
            copy.arg(format!("{scheme}://root@{}", hand.address())).arg(root.as_str());
            let began = Instant::now();
            world.require(copy).map(|_| began.elapsed())
        };
        for run in 0..if far.is_zero() { RUNS } else { FEW } {
            by_legacy.push(copy("ssh", &paths(world, &format!("legacy {} {run}", far.as_millis()))?)?);
        }
        for run in 0..=RUNS {
            let root = paths(world, &format!("{} {run}", far.as_millis()))?;
            let hand = copy("ssh-ng", &root)?;
            let (stage, _) = watch::channel(Stage::Preparing);
            let began = Instant::now();
            runtime.block_on(node.push(&nix, &root, &stage))?;
            let us = began.elapsed();
            if run > 0 {
                by_hand.push(hand);
                by_us.push(us);
            }
        }
        let trip = far.as_millis();
        let what = format!("copy of {PATHS} small paths at {trip} ms round trip, `nix copy` by hand, ssh-ng");
        table.put(&what, seconds(median(by_hand)), Bound::None);
        let what = format!("the same by the legacy protocol, as nix-copy-closure does it ({trip} ms)");
        table.put(&what, seconds(median(by_legacy)), Bound::None);
        let what =
            format!("the same by driftless: rooted, asked what is missing and whether it fits ({trip} ms)");
        table.put(&what, seconds(median(by_us)), Bound::None);
    }
    for node in [hand, ours] {
        node.wire(Wire::default())?;
    }
    runtime.block_on(node.close());
    let mut ssh = world.program("ssh");
    ssh.args(["-q", "-S"]).arg(&socket).args(["-O", "exit", &hand.address().to_string()]);
    world.require(ssh).map(drop)
}

/// driftless's way to one node.
fn connection(world: &World, name: &str, node: &driftless_lab::Node) -> Result<Node> {
    let spec = serde_json::json!({
        "drv": format!("/nix/store/{}-x.drv", "b".repeat(32)),
        "toplevel": format!("/nix/store/{}-x", "b".repeat(32)),
        "system": "x86_64-linux",
        "host": format!("root@{}", node.address()),
        "hostKeys": [node.host_key()],
        "hasFastConnection": true,
    });
    let identity_file = Some(world.fleet.identity());
    let ssh = SshConfig { identity_file, ..SshConfig::default() };
    let spec = serde_json::from_value(spec).context("a declaration")?;
    Ok(Node::new(&name.parse()?, &spec, &ssh, &world.fleet.dir().join("c"))?)
}

/// What [`World::program`] gives to Nix by its environment.
fn settings() -> std::collections::BTreeMap<String, String> {
    let pairs = [("build-users-group", ""), ("sandbox", "false"), ("substitute", "false")];
    pairs.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// New paths in this machine's store, and one that refers to all of them.
fn paths(world: &World, text: &str) -> Result<StorePath> {
    let folder = world.fleet.dir().join("small");
    fs::create_dir_all(&folder)?;
    for number in 0..PATHS {
        let unique = format!("{} {text} {number}\n", std::process::id());
        fs::write(folder.join(number.to_string()), unique.repeat(20))?;
    }
    let expression = format!(
        "builtins.toFile \"paths\" (builtins.concatStringsSep \"\\n\" (builtins.genList \
         (i: \"${{builtins.path {{ name = \"small\"; path = {} + \"/${{toString i}}\"; }}}}\") {PATHS}))",
        folder.display()
    );
    let mut add = world.program("nix-instantiate");
    add.args(["--eval", "--read-write-mode", "-E", &expression]);
    let said = world.require(add)?;
    said.trim().trim_matches('"').parse().with_context(|| format!("{said:?} is not a store path"))
}
