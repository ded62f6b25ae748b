//! The five parts of the story, each with what must be true at its end.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use driftless_lab::{Fleet, System};
use serde_json::Value;

use crate::infra;
use crate::interrupt::Interrupt;
use crate::teller::Teller;

/// Longest time for one part. It is a limit for failures; a part takes a few seconds.
const SOON: Duration = Duration::from_secs(90);

/// The fleet, and who tells of it.
pub struct Story<'a> {
    /// Nodes, repository, controller.
    pub fleet: Fleet,
    binary: PathBuf,
    teller: &'a Teller,
    interrupt: &'a Interrupt,
}

impl<'a> Story<'a> {
    /// Before the beginning.
    pub fn new(fleet: Fleet, binary: PathBuf, teller: &'a Teller, interrupt: &'a Interrupt) -> Self {
        Story { fleet, binary, teller, interrupt }
    }

    /// From the first commit to the end, which is an orderly shutdown of the controller.
    pub fn tell(&mut self) -> Result<()> {
        self.interrupt.check()?;
        self.first_commit().context("the first commit")?;
        self.merge().context("the merge")?;
        self.lock_out().context("the commit that kills sshd")?;
        self.drift().context("the change by hand")?;
        self.windows().context("the windows")?;
        if std::env::var("KEEP").is_ok_and(|keep| !["", "0"].contains(&keep.as_str())) {
            self.keep();
        }
        let code = self.fleet.stop()?;
        ensure!(code == Some(0) || self.interrupt.heard(), "the controller ended with exit code {code:?}");
        Ok(())
    }

    fn first_commit(&mut self) -> Result<()> {
        self.teller.heading("1. The first commit reaches all three nodes");
        let deployment = infra::deployment(&self.fleet.nodes);
        self.teller.say("A Git repository with a file per role, and this deployment.nix:");
        self.teller.show(&deployment);
        let commit = self.fleet.commit(
            "Our fleet",
            &[
                ("deployment.nix", &deployment),
                ("common.nix", infra::COMMON),
                ("web.nix", infra::WEB),
                ("web2.nix", infra::WEB2),
                ("db.nix", infra::DB),
            ],
        )?;
        self.teller.say(&format!("Commit {}. The controller is started.", short(&commit)));
        self.fleet.start()?;
        self.in_sync(&commit)?;
        for (name, node) in &self.fleet.nodes {
            ensure!(node.running()? == node.boot_default()?, "{name} would boot something else");
            ensure!(self.read(name, "/etc/hostname")? == *name, "{name} has another host name");
        }
        self.teller.checked("each node runs its system, and would boot it");
        self.driftless(&["status"])
    }

    fn merge(&mut self) -> Result<()> {
        self.teller.heading("2. A merge changes two nodes; the third is not touched");
        let untouched = self.fleet.nodes["db1"].running()?;
        let before = self.journal("db1")?;
        self.fleet.git(&["switch", "-q", "-c", "http3"])?;
        self.fleet.commit("nginx: enable HTTP/3", &[("web.nix", infra::WEB_LATER)])?;
        self.fleet.git(&["switch", "-q", "main"])?;
        self.fleet.git(&["merge", "-q", "--no-ff", "-m", "Merge branch 'http3'", "http3"])?;
        let merged = self.fleet.git(&["rev-parse", "HEAD"])?;
        self.teller.say(&format!("A pull request is merged as {}:", short(&merged)));
        self.show_change(&["diff", "HEAD^1", "HEAD"])?;
        self.in_sync(&merged)?;
        for name in ["web1", "web2"] {
            ensure!(
                self.read(name, "/etc/nginx/http3.conf")? == "listen 443 quic;",
                "{name} was not changed"
            );
            ensure!(self.journal(name)?.len() == 2, "{name} should have seen two switches");
        }
        ensure!(self.fleet.nodes["db1"].running()? == untouched, "db1 runs something else");
        let after = self.journal("db1")?;
        ensure!(after == before && after.len() == 1, "db1 should have seen one switch: {after:?}");
        self.teller.checked("db1 was not touched: its own journal knows of one switch, the first");
        self.driftless(&["status"])?;
        self.driftless(&["history"])
    }

    fn lock_out(&mut self) -> Result<()> {
        self.teller.heading("3. A commit that kills sshd on one node is rolled back by that node");
        let before = self.fleet.nodes["web2"].running()?;
        let commit = self.fleet.commit(
            "curl for all, and web2 needs no logins",
            &[("common.nix", infra::COMMON_LATER), ("web2.nix", infra::WEB2_LOCKED)],
        )?;
        self.teller.say(&format!("Commit {} goes too far on web2:", short(&commit)));
        self.show_change(&["show", "--format="])?;
        self.wait("web2 has gone back and the others are in sync", |seen| {
            let settled = ["web1", "db1"].iter().all(|name| {
                seen["nodes"][name]["state"] == "in-sync"
                    && seen["nodes"][name]["runningRevision"] == short(&commit)
            });
            settled
                && seen["nodes"]["web2"]["state"] == "rolled-back"
                && seen["nodes"]["web2"]["inFlight"].is_null()
        })?;
        let web2 = &self.fleet.nodes["web2"];
        ensure!(web2.running()? == before, "web2 runs something else than before");
        ensure!(web2.boot_default()? == before, "web2 would boot something else than before");
        web2.ssh(["true"])?.ok().context("logging in to web2")?;
        self.teller
            .checked("web2 let nobody in, noticed it by itself, and is back: running, boot default, sshd");
        self.teller.checked("web1 and db1 were not held up");
        self.driftless(&["status"])
    }

    fn drift(&mut self) -> Result<()> {
        self.teller.heading("4. Somebody changes a node by hand; the controller reports it and heals it");
        let node = &self.fleet.nodes["db1"];
        let desired = node.running()?;
        let stray = System::new("by hand").name("db1").package("htop", "3.3.0").build()?;
        self.teller.say("On db1, somebody runs nixos-rebuild switch with a configuration that has htop.");
        node.nixos_rebuild(&stray)?.ok()?;
        ensure!(node.running()? == stray, "the change by hand did not arrive");
        let seen = self.wait("the drift is reported", |seen| {
            let db1 = &seen["nodes"]["db1"];
            db1["drift"].as_array().is_some_and(|kinds| !kinds.is_empty())
                && db1["why"].as_str().is_some_and(|why| why.contains("htop 3.3.0"))
        })?;
        ensure!(
            seen["nodes"]["db1"]["drift"][0] == "diverged",
            "it is another drift: {}",
            seen["nodes"]["db1"]["drift"]
        );
        self.teller.checked("the drift is known, down to the package");
        self.driftless(&["status"])?;
        self.wait("db1 is healed", |seen| seen["nodes"]["db1"]["state"] == "in-sync")?;
        let node = &self.fleet.nodes["db1"];
        ensure!(node.running()? == desired && node.boot_default()? == desired, "db1 is not what it was");
        self.teller.checked("db1 is again what Git says");
        self.driftless(&["status"])
    }

    fn windows(&mut self) -> Result<()> {
        self.teller.heading("5. Where to look");
        let report = self.fleet.driftless(&["report", "--format", "json"])?.ok()?;
        ensure!(report.contains("web2"), "the report does not speak of web2: {report}");
        self.driftless(&["report"])?;
        let address = self.fleet.address();
        let fleet = self.fleet.snapshot()?;
        self.teller.command(&format!("curl http://{address}/api/v1/nodes/web2"));
        let web2: Value = serde_json::from_str(&self.fleet.get("/api/v1/nodes/web2")?)?;
        ensure!(
            web2["state"] == fleet["nodes"]["web2"]["state"],
            "two pages of one controller differ: {web2:#}"
        );
        anstream::println!("{{ … \"state\": {}, \"why\": {} … }}", web2["state"], web2["why"]);
        self.teller.command(&format!("curl http://{address}/metrics"));
        let metrics = self.fleet.get("/metrics")?;
        let shown: Vec<&str> =
            metrics.lines().filter(|line| line.starts_with("driftless_node_in_sync{")).collect();
        ensure!(shown.len() == infra::NODES.len(), "not one driftless_node_in_sync per node: {shown:?}");
        anstream::println!("…\n{}\n…\n", shown.join("\n"));
        self.fleet.get("/readyz")?;
        let page = self.fleet.get("/")?;
        ensure!(page.contains("web2"), "the status page does not show web2");
        self.teller.say(&format!("Status page http://{address}/ · JSON http://{address}/api/v1/fleet · metrics http://{address}/metrics"));
        Ok(())
    }

    fn keep(&self) {
        self.teller.heading("The fleet stays up until Ctrl-C");
        let driftless = format!("{} --config {}", self.binary.display(), self.fleet.config_file().display());
        let lines = [
            format!("look        {driftless} status"),
            format!("try again   {driftless} retry web2"),
            format!("the page    http://{}/", self.fleet.address()),
            format!("log in      ssh -F {} web2", self.fleet.ssh_config().display()),
            format!("commit      in {}; it is watched", self.fleet.repository().display()),
        ];
        self.teller.show(&lines.join("\n"));
        self.interrupt.wait();
        self.teller.say("Removing everything.");
    }

    /// Follows the fleet until it is as wanted.
    fn wait(&mut self, what: &str, is: impl Fn(&Value) -> bool) -> Result<Value> {
        let (teller, interrupt) = (self.teller, self.interrupt);
        let seen = self.fleet.wait(what, SOON, |seen| {
            teller.follow(seen);
            interrupt.heard() || is(seen)
        });
        interrupt.check()?;
        seen
    }

    fn in_sync(&mut self, commit: &str) -> Result<()> {
        let short = short(commit);
        self.wait(&format!("all nodes are in sync with {short}"), |seen| {
            infra::NODES.iter().all(|name| {
                let node = &seen["nodes"][name];
                node["state"] == "in-sync" && node["runningRevision"] == short
            })
        })
        .map(drop)
    }

    /// Runs the command line as a person would, on this terminal.
    fn driftless(&self, arguments: &[&str]) -> Result<()> {
        self.interrupt.check()?;
        self.teller.command(&format!("driftless {}", arguments.join(" ")));
        let mut command = Command::new(&self.binary);
        command.args(arguments).arg("--config").arg(self.fleet.config_file());
        self.fleet.environment(&mut command);
        let status = command.status().with_context(|| format!("starting {}", self.binary.display()))?;
        anstream::println!();
        if !status.success() {
            bail!("driftless {} ended with {status}", arguments.join(" "));
        }
        Ok(())
    }

    /// The switches that a node remembers, by their names.
    fn journal(&self, node: &str) -> Result<Vec<String>> {
        let list = self.fleet.nodes[node].enter("ls /var/lib/driftless-node/switches")?.ok()?;
        Ok(list.lines().map(str::to_owned).collect())
    }

    fn read(&self, node: &str, file: &str) -> Result<String> {
        self.fleet.nodes[node].enter(&format!("cat {file}"))?.ok()
    }

    /// The lines that a commit adds and removes.
    fn show_change(&self, diff: &[&str]) -> Result<()> {
        let text = self.fleet.git(&[diff, &["--unified=0", "--no-color", "--no-prefix"]].concat())?;
        let lines = text.lines().filter_map(|line| match line {
            _ if line.starts_with("+++ ") => Some(format!("{}:", line.trim_start_matches("+++ "))),
            _ if line.starts_with("--- ") => None,
            _ if line.starts_with(['+', '-']) => Some(line.to_owned()),
            _ => None,
        });
        self.teller.show(&lines.collect::<Vec<_>>().join("\n"));
        Ok(())
    }
}

/// A commit as it is shown everywhere.
fn short(commit: &str) -> &str {
    commit.get(..7).unwrap_or(commit)
}
