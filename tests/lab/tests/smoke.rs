//! The lab itself: that its nodes are machines enough to test against, and that nothing of it stays behind.

use std::fs;
use std::io::{BufRead as _, BufReader, ErrorKind};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Result;
use driftless_lab::{Fault, Lab, Power, Setup, Sudo, System, User, Way, Wire};

#[test]
fn a_node_boots_its_system_and_has_a_store_of_its_own() -> Result<()> {
    let lab = Lab::start()?;
    let system = System::new("smoke").package("openssh", "9.7").build()?;
    let node = lab.node("n1", &system)?;

    assert_eq!(node.ssh(["hostname"])?.ok()?, "n1");
    assert_eq!(node.running()?, system);
    assert_eq!(node.booted()?, system);
    assert_eq!(node.boot_default()?, system);
    assert_eq!(node.loader_default()?, system);
    assert_eq!(node.ssh(["readlink", "/run/current-system"])?.ok()?, system);
    assert_eq!(node.ssh(["cat", "/proc/sys/kernel/random/boot_id"])?.ok()?, node.boot_id()?);
    assert_eq!(node.ssh(["systemctl", "--failed", "--plain", "--no-legend"])?.ok()?, "");
    node.ssh(["nix-store", "--verify", "--check-contents"])?.ok()?;

    let other = System::new("not on the node").build()?;
    assert!(!node.path(&other).exists(), "the host's store shows through");
    assert!(!node.path("/var/lib/driftless").exists());
    assert_eq!(node.ssh(["ls", "/home"])?.ok()?, "");
    Ok(())
}

#[test]
fn a_system_that_is_copied_to_a_node_can_be_tested_there() -> Result<()> {
    let lab = Lab::start()?;
    let (old, new) = (System::new("old"), System::new("new"));
    let new = new.unit("lab-hello.service", "[Service]\nExecStart=/bin/sleep 1000\n");
    let (old, new) = (old.build()?, new.build()?);
    let node = lab.node("n1", &old)?;
    copy(&lab, "n1", &new)?;

    let stc = format!("{new}/bin/switch-to-configuration");
    node.ssh([&stc, "test"])?.ok()?;
    assert_eq!(node.running()?, new);
    assert_eq!(node.boot_default()?, old);
    assert_eq!(node.loader_default()?, old);
    assert_eq!(node.ssh(["cat", "/etc/lab-text"])?.ok()?, "new");
    node.ssh(["systemctl", "is-active", "lab-hello.service"])?.ok()?;

    node.ssh([&stc, "boot"])?.ok()?;
    assert_eq!(node.loader_default()?, new);
    node.ssh(["nix-env -p /nix/var/nix/profiles/system --set", &new])?.ok()?;
    node.ssh([&stc, "boot"])?.ok()?;
    assert_eq!(node.boot_default()?, new);
    assert_eq!(node.loader_default()?, new);
    Ok(())
}

#[test]
fn a_reboot_brings_back_the_boot_default_with_another_boot_id() -> Result<()> {
    let lab = Lab::start()?;
    let (old, new) = (System::new("old").build()?, System::new("new").build()?);
    let node = lab.node("n1", &old)?;
    copy(&lab, "n1", &new)?;
    let stc = format!("{new}/bin/switch-to-configuration");
    node.ssh([&stc, "test"])?.ok()?;
    let before = node.boot_id()?;

    node.reboot()?;
    assert_eq!(node.running()?, old);
    assert_ne!(node.boot_id()?, before);
    assert_eq!(node.boot_count(), 2);

    node.power_cut()?;
    assert_eq!(node.power(), Power::Off);
    node.start()?;
    node.enter("systemctl reboot -ff")?;
    node.wait_for_boot(4)?;

    node.power_off()?;
    assert_eq!(node.power(), Power::Off);
    assert_eq!(node.boot_count(), 4);
    Ok(())
}

#[test]
fn a_rebuild_by_hand_changes_everything_and_one_with_another_init_needs_a_reboot() -> Result<()> {
    let lab = Lab::start()?;
    let old = System::new("old").build()?;
    let new = System::new("new").package_of_size("htop", "3.3.0", 1 << 20).build()?;
    let other_init = System::new("init").init_interface("3").build()?;
    let node = lab.node("n1", &old)?;
    node.nixos_rebuild(&new)?.ok()?;
    assert_eq!(node.running()?, new);
    assert_eq!(node.boot_default()?, new);
    assert_eq!(node.loader_default()?, new);
    assert_eq!(node.ssh(["htop"])?.ok()?, "htop 3.3.0");

    assert_eq!(node.nixos_rebuild(&other_init)?.code, Some(100));
    assert_eq!(node.running()?, new);
    node.reboot()?;
    assert_eq!(node.running()?, other_init);
    node.nixos_rebuild(&other_init)?.ok()?;
    Ok(())
}

#[test]
fn a_one_shot_entry_is_booted_once() -> Result<()> {
    let lab = Lab::start()?;
    let (old, new) = (System::new("old").build()?, System::new("new").kernel("6.6.2").build()?);
    let node = lab.node("n1", &old)?;
    copy(&lab, "n1", &new)?;
    node.ssh(["nix-env -p /nix/var/nix/profiles/system --set", &new])?.ok()?;
    node.ssh([format!("{old}/bin/switch-to-configuration boot")])?.ok()?;
    assert_eq!(node.loader_default()?, old);
    node.ssh(["bootctl set-oneshot nixos-generation-2.conf"])?.ok()?;

    node.reboot()?;
    assert_eq!(node.booted()?, new);
    node.reboot()?;
    assert_eq!(node.booted()?, old);
    Ok(())
}

#[test]
fn a_good_system_repairs_what_a_bad_one_broke() -> Result<()> {
    let lab = Lab::start()?;
    let good = System::new("good").build()?;
    let bad =
        System::new("bad").fault(Fault::KillSsh).fault(Fault::DropAddress).fault(Fault::UnitFails).build()?;
    let node = lab.node("n1", &good)?;
    copy(&lab, "n1", &bad)?;

    let code = |system: &str, action: &str| -> Result<Option<i32>> {
        Ok(node.enter(&format!("{system}/bin/switch-to-configuration {action}"))?.code)
    };
    assert_eq!(code(&bad, "test")?, Some(4));
    assert_eq!(node.running()?, bad);
    assert!(!node.ssh(["true"])?.success());
    assert_eq!(code(&good, "test")?, Some(0));
    node.wait_ssh()?;
    assert_eq!(node.ssh(["cat", "/etc/lab-text"])?.ok()?, "good");

    node.link().cut()?;
    assert!(!node.ssh(["true"])?.success());
    node.link().restore()?;
    node.ssh(["true"])?.ok()?;

    node.fill("/nix")?;
    assert!(!node.enter("echo x >/nix/x")?.success());
    node.empty("/nix")?;
    node.enter("echo x >/nix/x")?.ok()?;
    Ok(())
}

#[test]
fn each_fault_ends_as_the_real_thing_would() -> Result<()> {
    let lab = Lab::start()?;
    let good = System::new("good").build()?;
    let node = lab.node("n1", &good)?;
    let run_for = |seconds: u32, system: &System, action: &str| -> Result<driftless_lab::Output> {
        let system = system.build()?;
        node.receive(&system)?;
        // `exit` keeps the shell there: bash would become `timeout`, which dies of the KILL that it sends.
        let run = format!(
            "timeout --kill-after=1 {seconds} {system}/bin/switch-to-configuration {action}; exit $?"
        );
        node.enter(&run)
    };
    let run = |system: &System, action: &str| run_for(30, system, action);
    let with = |fault: Fault| System::new("bad").fault(fault);
    let expect = |fault: Fault, action: &str, code: i32| -> Result<String> {
        let hangs = matches!(fault, Fault::Hang | Fault::HangStubbornly);
        let output = run_for(if hangs { 1 } else { 30 }, &with(fault.clone()), action)?;
        anyhow::ensure!(output.code == Some(code), "{fault:?}: {output:?}");
        Ok(output.stderr)
    };

    expect(Fault::ActivationFails, "test", 2)?;
    assert_eq!(node.running()?, with(Fault::ActivationFails).build()?);
    expect(Fault::UnitFails, "test", 4)?;
    assert_eq!(run(&System::new("good"), "test")?.code, Some(0));
    assert!(expect(Fault::Exit(100), "test", 100)?.contains("until you reboot"));
    assert!(expect(Fault::Exit(11), "switch", 11)?.contains("acquire lock"));
    assert!(expect(Fault::Inhibitor("dbus-broker".into()), "test", 1)?.contains("critical components"));
    expect(Fault::Inhibitor("dbus-broker".into()), "boot", 0)?;
    expect(Fault::PreSwitchCheckFails, "check", 1)?;
    expect(Fault::BootLoaderFails, "boot", 1)?;
    expect(Fault::BootLoaderFails, "test", 0)?;
    assert_eq!(node.running()?, with(Fault::BootLoaderFails).build()?);
    expect(Fault::FillDisk("/var".into()), "test", 0)?;
    assert!(!node.enter("echo x >/var/x")?.success());
    node.enter("rm /var/.lab-fill")?.ok()?;
    expect(Fault::StopDbus, "test", 0)?;
    assert!(!node.enter("busctl --timeout=2 list")?.success());
    assert_eq!(run(&System::new("good"), "test")?.code, Some(0));
    node.enter("busctl --timeout=2 list")?.ok()?;
    expect(Fault::DropRoute, "test", 0)?;
    assert_eq!(node.enter("ip route show default")?.ok()?, "");
    expect(Fault::Hang, "test", 124)?;
    expect(Fault::HangStubbornly, "test", 137)?;
    expect(Fault::LeaveChild(600), "test", 0)?;
    assert_eq!(run(&System::new("good"), "test")?.code, Some(11));
    Ok(())
}

#[test]
fn a_system_that_breaks_when_booted_is_left_by_another_reboot() -> Result<()> {
    let lab = Lab::start()?;
    let good = System::new("good").build()?;
    let panics = System::new("panics").fault(Fault::PanicAtBoot).build()?;
    let deaf = System::new("deaf").fault(Fault::KillSsh).build()?;
    let node = lab.node("n1", &good)?;
    let boot_once = |system: &str| -> Result<()> {
        node.receive(system)?;
        let script = format!(
            "nix-env -p /nix/var/nix/profiles/system --set {system} && {good}/bin/switch-to-configuration boot &&
             bootctl set-oneshot nixos-generation-$(readlink /nix/var/nix/profiles/system | tr -dc 0-9).conf &&
             systemctl reboot -ff"
        );
        node.enter(&script).map(drop)
    };

    boot_once(&panics)?;
    node.wait_for_boot(3)?;
    assert_eq!(node.booted()?, good);

    boot_once(&deaf)?;
    node.wait_for_boot_without_ssh(4)?;
    assert_eq!(node.booted()?, deaf);
    assert!(!node.ssh(["true"])?.success());
    node.power_cut()?;
    node.start()?;
    assert_eq!(node.booted()?, good);
    Ok(())
}

#[test]
fn the_lock_is_refused_as_the_real_ones_refuse_it() -> Result<()> {
    let lab = Lab::start()?;
    let system = System::new("held").build()?;
    let node = lab.node("n1", &system)?;
    let held = node.enter(&format!(
        "mkdir -p /run/nixos; flock /run/nixos/switch-to-configuration.lock {system}/bin/switch-to-configuration test"
    ))?;
    assert_eq!(held.code, Some(11));
    assert!(held.stderr.contains("Could not acquire lock"));
    Ok(())
}

#[test]
fn a_transient_unit_has_no_coreutils_and_a_declared_one_has() -> Result<()> {
    let lab = Lab::start()?;
    let script = "[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/sh -c 'touch /run/declared'\n";
    let system = System::new("path").unit("lab-path.service", script);
    let node = lab.node("n1", &system.build()?)?;
    // sshd may answer before the system's own units are up.
    node.wait_for_boot_without_ssh(1)?;
    assert!(node.path("/run/declared").exists());
    let transient = "systemd-run --wait --quiet /bin/sh -c";
    assert!(!node.enter(&format!("{transient} 'touch /run/t'"))?.success());
    node.enter(&format!("{transient} 'systemctl --version'"))?.ok()?;
    Ok(())
}

#[test]
fn a_user_may_be_given_sudo_and_a_noisy_shell() -> Result<()> {
    let lab = Lab::start()?;
    let setup = Setup {
        users: vec![User { name: "deploy".to_owned(), sudo: Sudo::WithoutPassword }],
        bashrc: Some("echo welcome\n".to_owned()),
        ssh_banner: Some("for members only\n".to_owned()),
        ..Setup::default()
    };
    let node = lab.node_with("n1", &System::new("users").build()?, &setup)?;
    let output = node.ssh_as("deploy", ["sudo id -un"])?;
    assert_eq!(output.stdout, "welcome\nroot\n");
    assert!(output.stderr.contains("for members only"));
    Ok(())
}

#[test]
fn nodes_boot_side_by_side_and_know_each_other() -> Result<()> {
    let lab = Lab::start()?;
    let nodes = lab.nodes(&["n1", "n2", "n3"], &System::new("many").build()?)?;
    let mut ids =
        nodes.iter().map(|node| node.ssh(["cat", "/etc/machine-id"])?.ok()).collect::<Result<Vec<_>>>()?;
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 3);
    let greeting = format!("exec 3<>/dev/tcp/{}/22; head -c4 <&3", nodes[2].address());
    assert_eq!(nodes[0].enter(&format!("bash -c '{greeting}'"))?.ok()?, "SSH-");
    Ok(())
}

#[test]
fn a_wire_delays_loses_and_swallows_packets_also_after_a_reboot() -> Result<()> {
    let lab = Lab::start()?;
    let node = lab.node("n1", &System::new("far away").build()?)?;
    let address = SocketAddr::new(node.address(), 22);
    // The handshake of TCP takes one round trip.
    let knock = || {
        let began = Instant::now();
        TcpStream::connect_timeout(&address, Duration::from_millis(700)).map(|_| began.elapsed())
    };
    node.wire(Wire::new(Duration::from_millis(100), 0.0))?;
    let took = knock()?;
    assert!(took >= Duration::from_millis(100), "{took:?}");
    node.reboot()?;
    assert!(knock()? >= Duration::from_millis(100), "the wire is still there");

    node.wire(Wire::DEAD)?;
    assert_eq!(knock().unwrap_err().kind(), ErrorKind::TimedOut, "nobody says that it is dead");
    let Wire { to_node, .. } = Wire::default();
    node.wire(Wire { to_node, ..Wire::DEAD })?;
    assert_eq!(knock().unwrap_err().kind(), ErrorKind::TimedOut, "no answer comes back");
    assert!(
        node.enter("ss -Htn state syn-recv '( sport = 22 )'")?.stdout.contains(":22 "),
        "but it was heard"
    );

    let small = Way { largest: Some(1_000), ..Way::default() };
    node.wire(Wire { from_node: small, ..Wire::default() })?;
    let mut long = Command::new("timeout");
    long.args(["1", "ssh", "-F"]).arg(lab.ssh_config()).args(["n1", "head", "-c", "20000", "/dev/zero"]);
    assert_eq!(long.stdout(Stdio::null()).status()?.code(), Some(124), "long packets vanish");

    // A handshake that loses a packet takes a second more.
    node.wire(Wire::new(Duration::ZERO, 0.2))?;
    let handshake = |_| TcpStream::connect_timeout(&address, Duration::from_millis(80));
    let lost = (0..30).map(handshake).filter(std::result::Result::is_err).count();
    assert!(lost > 2, "{lost} of 30 lost a packet");
    node.wire(Wire::default())?;
    // What was on its way may still have been lost.
    assert!((0..5).any(|_| knock().is_ok()), "the wire is whole again");
    Ok(())
}

/// A lab in a process of its own, and what of it can be seen from outside.
struct Stranger {
    owner: Child,
    /// Kept open: a lab that cannot print ends by itself.
    _said: BufReader<ChildStdout>,
    dir: PathBuf,
    bridge: PathBuf,
}

impl Stranger {
    fn start() -> Result<Stranger> {
        let mut owner = Command::new(env!("CARGO_BIN_EXE_lab"))
            .args(["up", "2", "1"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut said = BufReader::new(owner.stdout.take().expect("it is piped"));
        let mut line = String::new();
        said.read_line(&mut line)?;
        let config = PathBuf::from(line.split(' ').nth(2).expect("a path"));
        let dir = config.parent().expect("a directory").to_owned();
        let id = dir.file_name().expect("a name").to_string_lossy();
        let bridge = PathBuf::from(format!("/sys/class/net/dl{id}"));
        assert!(dir.join("n2/pid1").exists() && bridge.exists());
        let stranger = Stranger { owner, _said: said, dir, bridge };
        assert!(stranger.interfaces().len() > 5, "there is a wire: {:?}", stranger.interfaces());
        Ok(stranger)
    }

    /// The bridge, ports, and what belongs to wires.
    fn interfaces(&self) -> Vec<String> {
        let bridge = self.bridge.file_name().expect("a name").to_string_lossy().into_owned();
        fs::read_dir("/sys/class/net")
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .filter(|name| *name == bridge || name.starts_with(&format!("{bridge}n")))
            .collect()
    }

    fn await_its_end(&self) {
        // The one who cleans up is no child of ours: there is nothing to wait for but the result.
        // The kernel takes its time to end namespaces of a network while other labs come and go.
        let until = Instant::now() + Duration::from_secs(120);
        loop {
            let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
            let mounted = mounts.contains(&*self.dir.to_string_lossy());
            let interfaces = self.interfaces();
            if !self.dir.exists() && !mounted && interfaces.is_empty() {
                return;
            }
            assert!(
                Instant::now() < until,
                "{} remains: mounted {mounted}, with {:?}, and {interfaces:?}",
                self.dir.display(),
                fs::read_dir(&self.dir).map(|entries| entries.flatten().collect::<Vec<_>>())
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

#[test]
fn nothing_stays_behind_when_a_labs_owner_is_killed() -> Result<()> {
    let mut stranger = Stranger::start()?;
    stranger.owner.kill()?;
    stranger.owner.wait()?;
    stranger.await_its_end();
    Ok(())
}

#[test]
fn the_next_lab_removes_one_whose_keeper_was_killed_too() -> Result<()> {
    let mut stranger = Stranger::start()?;
    let keeper = fs::read_to_string(stranger.dir.join("keeper.pid"))?;
    let killed = Command::new("kill").args(["-9", keeper.trim()]).status()?;
    assert!(killed.success());
    stranger.owner.kill()?;
    stranger.owner.wait()?;
    // A signal takes effect when its process runs next, and a living keeper's lab is nobody else's to remove.
    let until = Instant::now() + Duration::from_secs(10);
    while fs::read(format!("/proc/{}/cmdline", keeper.trim())).is_ok_and(|command| !command.is_empty()) {
        assert!(Instant::now() < until, "the keeper outlives SIGKILL");
        std::thread::yield_now();
    }
    let _lab = Lab::start()?;
    stranger.await_its_end();
    Ok(())
}

/// Copies a closure to a node, as root over ssh.
fn copy(lab: &Lab, node: &str, system: &str) -> Result<()> {
    let output = Command::new("nix-copy-closure")
        .env("NIX_SSHOPTS", format!("-F {}", lab.ssh_config().display()))
        .args(["--to", node, system])
        .output()?;
    anyhow::ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}
