//! Nodes at the end of bad lines: far away, losing packets, dropping, stalling, deaf one way. What a deployment over such a
//! line costs in round trips, and how each ends.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::{Duration, Instant};

use driftless::config::{NixConfig, SshConfig};
use driftless::model::journal::{Cause, Entry, Outcome, Phase};
use driftless::model::node::{Goal, NodeSpec};
use driftless::model::observed::Stage;
use driftless::model::store_path::StorePath;
use driftless::nix::Nix;
use driftless::node::{Node, NodeError, Order};
use driftless_lab::{Fault, Lab, System, Way, Wire};
use tokio::sync::watch;

/// Some lab nodes, each at the end of a line of its own.
struct Region {
    machines: Vec<driftless_lab::Node>,
    first: StorePath,
    state: tempfile::TempDir,
    lab: Lab,
}

impl Region {
    fn new(text: &str, count: usize) -> Self {
        let lab = Lab::start().unwrap();
        let first = System::new(text).build().unwrap();
        let names: Vec<String> = (1..=count).map(|number| format!("n{number}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let machines = lab.nodes(&names, &first).unwrap();
        // Short: it holds sockets.
        let state = tempfile::Builder::new().prefix("dl").tempdir_in("/tmp").unwrap();
        Self { machines, first: first.parse().unwrap(), state, lab }
    }

    fn node(&self, number: usize, toplevel: &StorePath, tune: impl FnOnce(&mut NodeSpec)) -> Node {
        let machine = &self.machines[number];
        let mut spec: NodeSpec = serde_json::from_value(serde_json::json!({
            "drv": format!("{toplevel}.drv"),
            "toplevel": toplevel,
            "system": "x86_64-linux",
            "host": format!("root@{}", machine.address()),
            "hostKeys": [machine.host_key()],
            "hasFastConnection": true,
            "switchTimeout": 30,
            "successTimeout": 30,
            "healthTimeout": 30,
        }))
        .unwrap();
        tune(&mut spec);
        let ssh = SshConfig { identity_file: Some(self.lab.identity()), ..SshConfig::default() };
        Node::new(&machine.name().parse().unwrap(), &spec, &ssh, &self.state.path().join("r")).unwrap()
    }

    fn nix(&self) -> Nix {
        Nix::new(&NixConfig::default(), self.state.path()).unwrap()
    }

    fn order(&self, toplevel: &StorePath) -> Order {
        Order {
            toplevel: toplevel.clone(),
            expected: self.first.clone(),
            goal: Goal::Switch,
            revision: "0123456789abcdef0123456789abcdef01234567".into(),
            asker: "controller test".into(),
            hooks: Vec::new(),
        }
    }

    /// Deploys, and does something to the wire when the deployment has come that far.
    async fn deploy_and(
        &self,
        node: &Node,
        toplevel: &StorePath,
        reached: impl Fn(&Stage) -> bool,
        act: impl AsyncFnOnce(),
    ) -> Result<Entry, NodeError> {
        let (show, mut stage) = watch::channel(Stage::Preparing);
        let (nix, order) = (self.nix(), self.order(toplevel));
        let disturb = async {
            if stage.wait_for(reached).await.is_ok() {
                act().await;
            }
        };
        let deploy = async {
            let ended = node.deploy(&nix, &order, &show).await;
            drop(show);
            ended
        };
        tokio::join!(deploy, disturb).0
    }

    /// The last line of a node's journal, once it says how that switch ended.
    async fn ended(&self, number: usize) -> String {
        let deadline = Instant::now() + Duration::from_secs(90);
        loop {
            let list = "cat /var/lib/driftless-node/switches/*/summary";
            let journal = self.machines[number].enter(list).unwrap().stdout;
            let last = journal.lines().last().unwrap_or_default().to_owned();
            if last.contains("\tfinished\t") {
                return last;
            }
            assert!(Instant::now() < deadline, "it never ended: {journal}");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// A node that one can still reach, which runs and boots this.
    fn assert_runs(&self, number: usize, system: &StorePath) {
        let machine = &self.machines[number];
        assert_eq!(machine.running().unwrap(), system.as_str(), "{}", machine.name());
        assert_eq!(machine.boot_default().unwrap(), system.as_str(), "{}", machine.name());
        assert_eq!(machine.loader_default().unwrap(), system.as_str(), "{}", machine.name());
    }

    /// No ssh of ours is left on this side.
    async fn assert_nothing_left(&self) {
        let own = self.state.path().display().to_string();
        let deadline = Instant::now() + Duration::from_secs(15);
        loop {
            let left: Vec<String> = std::fs::read_dir("/proc")
                .unwrap()
                .flatten()
                .filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok())
                .map(|line| String::from_utf8_lossy(&line).replace('\0', " "))
                .filter(|line| line.contains(&own))
                .collect();
            let sockets = std::fs::read_dir(self.state.path().join("r")).unwrap().flatten();
            let sockets: Vec<_> = sockets
                .map(|entry| entry.path())
                .filter(|path| path.to_string_lossy().contains(".sock"))
                .collect();
            if left.is_empty() && sockets.is_empty() {
                return;
            }
            assert!(Instant::now() < deadline, "left: {left:?} {sockets:?}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

fn built(system: &System) -> StorePath {
    system.build().unwrap().parse().unwrap()
}

/// A dead peer is noticed within 3 s instead of 45.
fn impatient(spec: &mut NodeSpec) {
    for (key, value) in [("ServerAliveInterval", "1"), ("ServerAliveCountMax", "3"), ("ConnectTimeout", "5")]
    {
        spec.ssh_options.insert(key.into(), value.into());
    }
}

fn in_phase(phase: Phase) -> impl Fn(&Stage) -> bool {
    move |stage| matches!(stage, Stage::Switching { phase: now, .. } if *now == phase)
}

/// A path that refers to so many others, small ones, which nobody had before.
fn many_small_paths(count: usize) -> StorePath {
    let tag = format!("{}-{}", std::process::id(), jiff::Timestamp::now().as_nanosecond());
    let expression = format!(
        r#"let part = i: builtins.toFile "part" "{tag} ${{toString i}}";
           in builtins.toFile "parts" (toString (builtins.genList part {count}))"#
    );
    let made = Command::new("nix-instantiate")
        .args(["--eval", "--read-write-mode", "-E", &expression])
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    String::from_utf8(made.stdout).unwrap().trim().trim_matches('"').parse().unwrap()
}

/// How long each part of a deployment took over this round trip: the quickest of some looks, preparing, copying, and all of it.
async fn measured(region: &Region, number: usize, system: &StorePath, round_trip: u64) -> [Duration; 4] {
    let parts = many_small_paths(100);
    region.machines[number].wire(Wire::new(Duration::from_millis(round_trip), 0.0)).unwrap();
    let node = region.node(number, system, |spec| {
        spec.closure_paths = vec![parts];
        spec.health_checks.after.units = vec!["sshd.service".into()];
    });
    let mut look = Duration::MAX;
    for _ in 0..4 {
        let began = Instant::now();
        node.observe(Duration::from_secs(60)).await.unwrap();
        look = look.min(began.elapsed());
    }
    let began = Instant::now();
    let (show, mut stage) = watch::channel(Stage::Preparing);
    let tell = async {
        stage.wait_for(|stage| matches!(stage, Stage::Copying { .. })).await.unwrap();
        let preparing = began.elapsed();
        stage.wait_for(|stage| matches!(stage, Stage::Switching { .. })).await.unwrap();
        (preparing, began.elapsed() - preparing)
    };
    let (nix, order) = (region.nix(), region.order(system));
    let (ended, (preparing, copying)) = tokio::join!(node.deploy(&nix, &order, &show), tell);
    let took = [look, preparing, copying, began.elapsed()];
    println!("{round_trip} ms: look, preparing, copying, deployment: {took:.1?}");
    let ended = ended.unwrap();
    assert_eq!(ended.outcome, Some(Outcome::Succeeded), "{round_trip} ms: {ended:?}");
    node.close().await;
    took
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deployment_at_the_other_end_of_the_world_costs_a_fixed_number_of_round_trips() {
    let region = Region::new("first", 3);
    let system = built(&System::new("second"));
    let (near, _, far) = tokio::join!(
        measured(&region, 0, &system, 0),
        measured(&region, 1, &system, 100),
        measured(&region, 2, &system, 300),
    );
    // On an idle machine 4, 4, 7 and 30: for each command one for the session, one for the command, one for the script, one
    // more because TCP does not send all of it at once; 13 for a login. Here with much air for a busy machine, and yet too
    // little for one round trip per path.
    let most = [10, 30, 50, 90];
    let what = ["look", "preparing", "copying", "deployment"];
    for (((near, far), most), what) in near.into_iter().zip(far).zip(most).zip(what) {
        assert!(far < near + Duration::from_millis(300) * most, "{what}: {near:?} {far:?}");
    }
    region.assert_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_falls_silent_before_a_switch_has_said_that_it_began_is_not_waited_for() {
    let region = Region::new("first", 1);
    let system = built(&System::new("second"));
    let node = region.node(0, &system, |_| {});
    let machine = &region.machines[0];
    let freeze = "until ls /var/lib/driftless-node/switches/*/order; do sleep 0.01; done >/dev/null 2>&1
        pkill -STOP -f '^sshd: root@'";
    std::thread::scope(|scope| {
        let frozen = scope.spawn(|| machine.enter(freeze).unwrap().ok().unwrap());
        let ended = tokio::task::block_in_place(|| {
            tokio::runtime::Handle::current().block_on(region.deploy_and(
                &node,
                &system,
                |_| false,
                async || {},
            ))
        });
        frozen.join().unwrap();
        let ended = ended.unwrap();
        assert_eq!(ended.outcome, Some(Outcome::Succeeded), "{ended:?}");
    });
    region.assert_runs(0, &system);
    machine.enter("pkill -CONT -f '^sshd: root@'").unwrap().ok().unwrap();
    node.close().await;
    region.assert_nothing_left().await;
}

/// What becomes of a deployment whose wire is dead for a while (`None`: until the node has decided alone), from one moment on.
async fn after_silence(
    region: &Region,
    number: usize,
    system: &StorePath,
    wire: Wire,
    reached: impl Fn(&Stage) -> bool,
    silence: Option<Duration>,
) -> Result<Entry, NodeError> {
    let node = region.node(number, system, |spec| {
        impatient(spec);
        // For who stays silent, this is to be waited for.
        let seconds = if silence.is_some() { 15 } else { 8 };
        (spec.success_timeout, spec.health_timeout) =
            (Duration::from_secs(seconds), Duration::from_secs(seconds));
        // So that the verdict is not given before the wire is dead.
        spec.health_checks.after.commands =
            BTreeMap::from([("settles".to_owned(), "sleep 2".to_owned().into())]);
    });

    let began = Instant::now();
    let ended = region
        .deploy_and(&node, system, reached, async || {
            region.machines[number].wire(wire).unwrap();
            match silence {
                Some(silence) => tokio::time::sleep(silence).await,
                None => drop(region.ended(number).await),
            }
            region.machines[number].wire(Wire::default()).unwrap();
        })
        .await;
    println!("{number}: after {:.1?}: {ended:?}", began.elapsed());
    node.close().await;
    ended
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wire_that_is_dead_for_a_while_in_any_phase_costs_time_and_nothing_else() {
    let region = Region::new("first", 6);
    let system = built(&System::new("second").fault(Fault::Slow(2)));
    let silent = |number, reached: fn(&Stage) -> bool, seconds| {
        let silence = Some(Duration::from_secs(seconds));
        after_silence(&region, number, &system, Wire::DEAD, reached, silence)
    };
    let ended = tokio::join!(
        silent(0, |stage| matches!(stage, Stage::Copying { .. }), 2),
        silent(1, |stage| in_phase(Phase::Checking)(stage), 6),
        silent(2, |stage| in_phase(Phase::Testing)(stage), 7),
        silent(3, |stage| in_phase(Phase::Contact)(stage), 5),
        silent(4, |stage| in_phase(Phase::Health)(stage), 5),
        silent(5, |stage| in_phase(Phase::Committing)(stage), 8),
    );
    for (number, ended) in [ended.0, ended.1, ended.2, ended.3, ended.4, ended.5].into_iter().enumerate() {
        let ended = match ended {
            // Before the start, the connection may be lost with all that was to be done; the next pass does it.
            Err(error)
                if number < 2 && (error.is_connection() || matches!(error, NodeError::Copy { .. })) =>
            {
                region.assert_runs(number, &region.first);
                let node = region.node(number, &system, impatient);
                let again = region.deploy_and(&node, &system, |_| false, async || {}).await;
                node.close().await;
                again
            }
            ended => ended,
        };
        let ended = ended.unwrap_or_else(|error| panic!("{number}: {error:?}"));
        assert_eq!((ended.outcome, ended.cause), (Some(Outcome::Succeeded), None), "{number}: {ended:?}");
        region.assert_runs(number, &system);
    }
    region.assert_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wire_that_stays_dead_leaves_the_node_to_decide_and_the_controller_learns_how() {
    let region = Region::new("first", 4);
    let system = built(&System::new("second").fault(Fault::Slow(2)));
    let silent = |number, wire, reached: fn(&Stage) -> bool| {
        after_silence(&region, number, &system, wire, reached, None)
    };
    let deaf = Wire { from_node: Way::DEAD, ..Wire::default() };
    let ended = tokio::join!(
        silent(0, Wire::DEAD, |stage| in_phase(Phase::Testing)(stage)),
        silent(1, Wire::DEAD, |stage| in_phase(Phase::Health)(stage)),
        silent(2, deaf, |stage| in_phase(Phase::Testing)(stage)),
        silent(3, Wire::DEAD, |stage| in_phase(Phase::Committing)(stage)),
    );
    let (first, second) = (region.first.clone(), system.clone());
    let wanted = [
        (Outcome::RolledBack, Some(Cause::Contact), &first),
        (Outcome::RolledBack, Some(Cause::Silence), &first),
        (Outcome::RolledBack, Some(Cause::Contact), &first),
        (Outcome::Succeeded, None, &second),
    ];
    for (number, (ended, (outcome, cause, runs))) in
        [ended.0, ended.1, ended.2, ended.3].into_iter().zip(wanted).enumerate()
    {
        let ended = ended.unwrap_or_else(|error| panic!("{number}: {error:?}"));
        assert_eq!((ended.outcome, ended.cause), (Some(outcome), cause), "{number}: {ended:?}");
        region.assert_runs(number, runs);
    }
    region.assert_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_look_and_a_copy_into_silence_end_in_time_and_the_next_try_goes_on_from_there() {
    let region = Region::new("first", 2);
    let system = (1..=20).fold(System::new("second"), |system, number| {
        system.package_of_size(&format!("part{number}"), "1", 500_000)
    });
    let system = built(&system);
    let look = async {
        for dead in
            [Wire::DEAD, Wire { to_node: Way { largest: Some(1_000), ..Way::default() }, ..Wire::default() }]
        {
            let node = region.node(0, &system, |_| {});
            node.observe(Duration::from_secs(20)).await.unwrap();
            let missing = node.run(&["no-such-program".to_owned()], Duration::from_secs(20)).await.unwrap();
            assert_eq!(missing.code, 127, "this is no lost connection: {missing:?}");
            region.machines[0].wire(dead).unwrap();
            let began = Instant::now();
            let error = node.observe(Duration::from_secs(3)).await.unwrap_err();
            assert!(matches!(error, NodeError::Deadline { .. }), "{error:?}");
            println!("look given up after {:?}", began.elapsed());
            region.machines[0].wire(Wire::default()).unwrap();
            let began = Instant::now();
            node.observe(Duration::from_secs(20)).await.unwrap();
            println!("next look after {:?}", began.elapsed());
            node.close().await;
        }
    };
    let copy = async {
        // Slow, so that there is a middle: 10 MB take 5 s. At half of it some has arrived, however much of it is still in the
        // buffers of ssh and of the kernel.
        let slow = Way { rate: Some(2_000_000), ..Way::default() };
        region.machines[1].wire(Wire { to_node: slow, ..Wire::default() }).unwrap();
        let node = region.node(1, &system, impatient);
        let half = |stage: &Stage| matches!(stage, Stage::Copying { bytes, .. } if *bytes > 6_000_000);
        let began = Instant::now();
        let ended = region
            .deploy_and(&node, &system, half, async || region.machines[1].wire(Wire::DEAD).unwrap())
            .await;
        println!("copy given up after {:?}: {ended:?}", began.elapsed());
        assert!(matches!(ended, Err(NodeError::Copy { .. })), "{ended:?}");
        region.machines[1].wire(Wire::default()).unwrap();
        // The end of the first copy may still be written there, which Nix 2.8 cannot stand: the next pass is the retry. How
        // many it takes depends on when the kernel sends again what was not acknowledged.
        let mut copied = u64::MAX;
        let deadline = Instant::now() + Duration::from_secs(90);
        loop {
            let (show, mut stage) = watch::channel(Stage::Preparing);
            let (nix, order) = (region.nix(), region.order(&system));
            let rest = async {
                let stage = stage.wait_for(|stage| matches!(stage, Stage::Copying { .. })).await;
                if let Ok(Stage::Copying { total, .. }) = stage.as_deref() { *total } else { 0 }
            };
            let (ended, total) = tokio::join!(node.deploy(&nix, &order, &show), rest);
            copied = copied.min(total);
            println!("second copy of {total}: {ended:?}");
            match ended {
                Ok(ended) if ended.outcome == Some(Outcome::Succeeded) => break,
                ended => assert!(Instant::now() < deadline, "{ended:?}"),
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        assert!(copied < 10_000_000, "what had arrived was copied again: {copied}");
        region.assert_runs(1, &system);
        node.close().await;
    };
    tokio::join!(look, copy);
    region.assert_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn over_lines_that_lose_packets_a_deployment_succeeds_or_is_undone_until_it_succeeds() {
    let region = Region::new("first", 2);
    let system = built(&System::new("second"));
    let go = |number: usize, wire| {
        let (region, system) = (&region, &system);
        async move {
            region.machines[number].wire(wire).unwrap();
            let node = region.node(number, system, |_| {});
            let began = Instant::now();
            // As a controller does: each pass that fails is followed by another.
            for _ in 0..5 {
                let ended = region.deploy_and(&node, system, |_| false, async || {}).await;
                println!("{number}: after {:.1?}: {ended:?}", began.elapsed());
                match ended {
                    Ok(entry) if entry.outcome == Some(Outcome::Succeeded) => break,
                    Ok(entry) => {
                        assert_eq!(entry.outcome, Some(Outcome::RolledBack), "{entry:?}");
                        region.assert_runs(number, &region.first);
                    }
                    Err(error) => assert!(
                        error.is_connection()
                            || matches!(error, NodeError::Copy { .. } | NodeError::Refused { .. }),
                        "{error:?}"
                    ),
                }
            }
            region.assert_runs(number, system);
            node.close().await;
        }
    };
    tokio::join!(
        go(0, Wire::new(Duration::from_millis(100), 0.05)),
        go(1, Wire { seed: 7, ..Wire::new(Duration::from_millis(20), 0.2) }),
    );
    region.assert_nothing_left().await;
}
