//! Who connects how: each login that a fleet may have is enough for a whole deployment, or says in one sentence what to do.

use std::process::Command;
use std::time::Duration;

use driftless::config::{NixConfig, SshConfig, UnknownHosts};
use driftless::error_chain::error_chain;
use driftless::model::journal::Outcome;
use driftless::model::node::{Goal, NodeSpec};
use driftless::model::observed::Stage;
use driftless::model::store_path::StorePath;
use driftless::nix::{Nix, Publication};
use driftless::node::{Node, NodeError, Order};
use driftless_lab::{Lab, Setup, Sudo, System, User};
use tokio::sync::watch;

const LOOK: Duration = Duration::from_secs(20);

/// A lab, its systems, and a place for connections.
struct World {
    lab: Lab,
    first: StorePath,
    second: StorePath,
    state: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let build = |text| System::new(text).build().unwrap().parse().unwrap();
        let state = tempfile::Builder::new().prefix("dl").tempdir_in("/tmp").unwrap();
        Self { lab: Lab::start().unwrap(), first: build("first"), second: build("second"), state }
    }

    fn machine(&self, name: &str, setup: &Setup) -> driftless_lab::Node {
        self.lab.node_with(name, self.first.as_str(), setup).unwrap()
    }

    fn ssh(&self) -> SshConfig {
        SshConfig { identity_file: Some(self.lab.identity()), ..SshConfig::default() }
    }

    fn spec(&self, machine: &driftless_lab::Node, user: &str) -> NodeSpec {
        serde_json::from_value(serde_json::json!({
            "drv": format!("{}.drv", self.second),
            "toplevel": self.second,
            "system": "x86_64-linux",
            "host": format!("{user}@{}", machine.address()),
            "hostKeys": [machine.host_key()],
            "hasFastConnection": true,
            "switchTimeout": 30,
            "successTimeout": 15,
            "healthTimeout": 15,
            "healthChecks": { "commands": { "root": "test $(id -u) = 0\n! false" } },
        }))
        .unwrap()
    }

    fn node(&self, machine: &driftless_lab::Node, spec: &NodeSpec, ssh: &SshConfig) -> Node {
        Node::new(&machine.name().parse().unwrap(), spec, ssh, &self.state.path().join("r")).unwrap()
    }

    /// Looks and deploys as a controller does: observe, copy, switch, contact, health.
    async fn deploy(&self, node: &Node) -> Result<(), NodeError> {
        let nix = Nix::new(&NixConfig::default(), self.state.path()).unwrap();
        self.deploy_with(node, &nix).await
    }

    async fn deploy_with(&self, node: &Node, nix: &Nix) -> Result<(), NodeError> {
        let state = node.look(LOOK).await.outcome?;
        let order = Order {
            toplevel: self.second.clone(),
            expected: state.running,
            goal: Goal::Switch,
            revision: "-".into(),
            asker: "controller test".into(),
            hooks: Vec::new(),
        };
        let (show, _stage) = watch::channel(Stage::Preparing);
        let entry = node.deploy(nix, &order, &show).await?;
        assert_eq!(entry.outcome, Some(Outcome::Succeeded), "{entry:#?}");
        Ok(())
    }

    async fn succeeds(&self, machine: &driftless_lab::Node, spec: &NodeSpec) {
        let node = self.node(machine, spec, &self.ssh());
        let ended = self.deploy(&node).await;
        node.close().await;
        ended.unwrap_or_else(|error| panic!("{}: {}", machine.name(), error_chain(&error)));
        assert_eq!(machine.boot_default().unwrap(), self.second.as_str(), "{}", machine.name());
    }

    /// What a person reads, who finds that a deployment did not come to a switch.
    async fn fails(&self, machine: &driftless_lab::Node, spec: &NodeSpec, ssh: &SshConfig) -> String {
        let node = self.node(machine, spec, ssh);
        let ended = self.deploy(&node).await;
        node.close().await;
        let said = error_chain(&ended.unwrap_err());
        println!("{said}");
        assert_eq!(machine.running().unwrap(), self.first.as_str(), "{}", machine.name());
        assert!(said.starts_with(&format!("{}: ", machine.name())), "{said}");
        said
    }
}

fn user(name: &str, sudo: Sudo) -> User {
    User { name: name.into(), sudo }
}

fn with(spec: &NodeSpec, tune: impl FnOnce(&mut NodeSpec)) -> NodeSpec {
    let mut spec = spec.clone();
    tune(&mut spec);
    spec
}

fn sudo(spec: NodeSpec) -> NodeSpec {
    with(&spec, |spec| spec.privilege_escalation_command = vec!["sudo".into()])
}

fn says(said: &str, words: &[&str]) {
    for word in words {
        assert!(said.contains(word), "{word:?} is not in: {said}");
    }
}

#[tokio::test]
async fn odd_logins_are_enough_for_a_whole_deployment() {
    let world = World::new();
    let keys = "AuthorizedKeysFile .ssh/authorized_keys /etc/ssh/keys/%u";
    let setup = Setup {
        users: vec![user("deployer", Sudo::WithoutPassword), user("homeless", Sudo::WithoutPassword)],
        // Nothing that breaks Nix's protocol, and everything that may confuse a script.
        bashrc: Some(
            "set -o noclobber; export CDPATH=/ LANG=tr_TR.UTF-8 LC_ALL=tr_TR.UTF-8 GREP_OPTIONS=-v IFS=x\n"
                .into(),
        ),
        ssh_banner: Some("No trespassing.\n".into()),
        sshd_options: vec![keys.into(), "MaxSessions 1".into(), "MaxStartups 1".into(), "AcceptEnv *".into()],
        nix_conf: vec!["require-sigs = true".into(), "trusted-users = root".into()],
        files: vec![
            ("/etc/doas.conf".into(), "permit nopass deployer\n".into()),
            (
                "/etc/ssh/keys/homeless".into(),
                std::fs::read_to_string(world.lab.identity().with_extension("pub")).unwrap(),
            ),
        ],
        ..Setup::default()
    };
    let [doas, csh, homeless, jumped] =
        ["doas", "csh", "homeless", "jumped"].map(|name| world.machine(name, &setup));
    for (machine, act) in [
        (&doas, "mount -o remount,noexec /tmp && mount -t tmpfs -o noexec tmpfs /var/tmp"),
        (
            &csh,
            "sed -i '/^root:/s#[^:]*$#/bin/tcsh#' /etc/passwd && echo 'set prompt=\"! \"; set histexpand' >/root/.cshrc",
        ),
        (&homeless, "rm -rf /home/homeless && chmod 755 /etc/ssh/keys"),
    ] {
        machine.enter(act).unwrap().ok().unwrap();
    }
    let by_doas =
        with(&world.spec(&doas, "deployer"), |spec| spec.privilege_escalation_command = vec!["doas".into()]);
    // The way leads through another node, which is somebody else's machine for ssh: its own user, its own key.
    let gate = format!("root@{}", csh.address());
    let through = with(&world.spec(&jumped, "root"), |spec| {
        spec.ssh_options.insert("ProxyJump".into(), gate);
        spec.ssh_options.insert("SendEnv".into(), "LANG".into());
    });
    let known = SshConfig { known_hosts_file: Some(world.lab.known_hosts()), ..world.ssh() };
    let jump = async {
        let node = world.node(&jumped, &through, &known);
        let ended = world.deploy(&node).await;
        node.close().await;
        ended.unwrap_or_else(|error| panic!("jumped: {}", error_chain(&error)));
    };
    let csh_spec = world.spec(&csh, "root");
    let homeless_spec = sudo(world.spec(&homeless, "homeless"));
    tokio::join!(world.succeeds(&doas, &by_doas), world.succeeds(&homeless, &homeless_spec));
    // One after the other: MaxStartups allows one login at a time on the machine in between.
    jump.await;
    world.succeeds(&csh, &csh_spec).await;
}

#[tokio::test]
async fn a_login_that_is_not_enough_says_what_to_do() {
    let world = World::new();
    let pub_key = std::fs::read_to_string(world.lab.identity().with_extension("pub")).unwrap();
    let setup = Setup {
        users: vec![
            user("nobodys", Sudo::Never),
            user("asked", Sudo::WithPassword),
            user("tty", Sudo::WithoutPassword),
            user("forced", Sudo::Never),
            user("shut", Sudo::Never),
        ],
        nix_conf: vec!["require-sigs = true".into(), "trusted-users = root".into()],
        files: vec![
            ("/etc/sudoers.d/tty".into(), "Defaults:tty requiretty\n".into()),
            (
                "/home/forced/.ssh/authorized_keys".into(),
                format!("restrict,command=\"/bin/false\" {pub_key}"),
            ),
        ],
        ..Setup::default()
    };
    let machine = world.machine("n1", &setup);
    machine.enter("sed -i '/^shut:/s#[^:]*$#/usr/sbin/nologin#' /etc/passwd").unwrap().ok().unwrap();
    let ssh = world.ssh();
    let spec = |user: &str| world.spec(&machine, user);

    let said = world.fails(&machine, &spec("nobodys"), &ssh).await;
    says(&said, &["this needs root, and nobodys is not; privilegeEscalationCommand says how to become it"]);
    let way_out = "privilegeEscalationCommand has to work without a password and without a terminal";
    for (user, words) in [("nobodys", "sudo: "), ("asked", "a password is required"), ("tty", "tty")] {
        let said = world.fails(&machine, &sudo(spec(user)), &ssh).await;
        says(&said, &["`sudo` does not make us root on", user, words, way_out]);
    }
    let absent = with(&spec("tty"), |spec| spec.privilege_escalation_command = vec!["run0x".into()]);
    says(
        &world.fails(&machine, &absent, &ssh).await,
        &["`run0x` does not make us root on", "not found", way_out],
    );
    for user in ["forced", "shut"] {
        let said = world.fails(&machine, &spec(user), &ssh).await;
        says(&said, &["is there a shell behind this login, and no forced command?"]);
    }
    let stranger = world.fails(&machine, &spec("stranger"), &ssh).await;
    says(
        &stranger,
        &["cannot connect to stranger@", "Permission denied", "does not accept our key for this user"],
    );
    // The controller's own machine has no key at all.
    let keyless = SshConfig { identity_file: Some("/nowhere/key".into()), ..SshConfig::default() };
    says(&world.fails(&machine, &spec("root"), &keyless).await, &["does not accept our key for this user"]);

    let other_key = with(&spec("root"), |spec| {
        spec.host_keys =
            vec!["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ0aWwVN7rCUNHwYuMFbQVCWGtGd0rZvLKyJ1YqZpDDD".into()];
    });
    says(&world.fails(&machine, &other_key, &ssh).await, &["the host key has changed", "update hostKeys"]);
    let undeclared = with(&spec("root"), |spec| spec.host_keys.clear());
    let known_hosts = world.state.path().join("known_hosts");
    let strict = SshConfig { known_hosts_file: Some(known_hosts.clone()), ..world.ssh() };
    says(
        &world.fails(&machine, &undeclared, &strict).await,
        &["the host key is not known", "declare it in hostKeys"],
    );

    let trusting = SshConfig { unknown_hosts: UnknownHosts::TrustFirst, ..strict.clone() };
    let node = world.node(&machine, &undeclared, &trusting);
    node.observe(LOOK).await.unwrap();
    node.close().await;
    // From now on it is known, and the strict one knows it too.
    let node = world.node(&machine, &undeclared, &strict);
    node.observe(LOOK).await.unwrap();
    node.close().await;
    let line = std::fs::read_to_string(&known_hosts).unwrap();
    let host = line.split(' ').next().unwrap();
    let forged = other_key.host_keys[0].clone();
    std::fs::write(&known_hosts, format!("{host} {forged}\n")).unwrap();
    says(&world.fails(&machine, &undeclared, &trusting).await, &["the host key has changed"]);

    // Unsigned paths of a user whom the node's daemon does not trust, though root itself would be at hand.
    machine
        .enter("printf '%s\\n' 'nobodys ALL=(ALL:ALL) NOPASSWD: /bin/sh, /usr/bin/sh' >>/etc/sudoers.d/lab")
        .unwrap()
        .ok()
        .unwrap();
    let said = world.fails(&machine, &sudo(spec("nobodys")), &ssh).await;
    says(&said, &["cannot copy", "privilegeEscalationCommand does not start the node's Nix", "sudo: "]);

    // The same user, once what is built is signed by a key that the node knows: no right to run Nix as root is needed.
    let keys = ["signing", "public"].map(|name| world.state.path().join(name));
    let mut make = Command::new("nix-store");
    make.args(["--generate-binary-cache-key", "fleet-1"]).args(&keys);
    assert!(make.status().unwrap().success());
    let known = std::fs::read_to_string(&keys[1]).unwrap();
    let trust = format!(
        "echo 'trusted-public-keys = {}' >>/etc/nix/nix.conf; systemctl restart nix-daemon",
        known.trim()
    );
    machine.enter(&trust).unwrap().ok().unwrap();
    let signing = NixConfig { signing_key_file: Some(keys[0].clone()), ..NixConfig::default() };
    let nix = Nix::new(&signing, world.state.path()).unwrap();
    assert_eq!(nix.publish(std::slice::from_ref(&world.second)).await, Publication::Done);
    let node = world.node(&machine, &sudo(spec("nobodys")), &ssh);
    let ended = world.deploy_with(&node, &nix).await;
    node.close().await;
    ended.unwrap_or_else(|error| panic!("{}", error_chain(&error)));
    assert_eq!(machine.boot_default().unwrap(), world.second.as_str());
}

#[tokio::test]
async fn an_ipv6_address_with_a_zone_leads_to_a_node_in_brackets_and_bare() {
    let world = World::new();
    let machine = world.machine("six", &Setup::default());
    let word_after = |text: &str, word: &str| {
        text.split_whitespace().skip_while(|found| *found != word).nth(1).unwrap().to_owned()
    };
    // Each interface has one; it is of use when the kernel knows that nobody else on the link has it.
    let list = "ip -6 -o addr show dev eth0 scope link -tentative";
    let wait = format!("timeout 20 sh -c 'until {list} | grep -q inet6; do sleep 0.1; done'; {list}");
    let address =
        word_after(&machine.enter(&wait).unwrap().stdout, "inet6").split('/').next().unwrap().to_owned();
    let route = ["-o", "route", "get", &machine.address().to_string()];
    let route = Command::new("ip").args(route).output().unwrap();
    let zone = word_after(&String::from_utf8(route.stdout).unwrap(), "dev");
    let here = list.replace("eth0", &zone);
    let wait = format!("timeout 20 sh -c 'until {here} | grep -q inet6; do sleep 0.1; done'");
    assert!(
        Command::new("sh").args(["-c", &wait]).status().unwrap().success(),
        "{zone} has no address of its own"
    );
    let at = |host: String| with(&world.spec(&machine, "root"), |spec| spec.host = Some(host));
    world.succeeds(&machine, &at(format!("root@[{address}%{zone}]"))).await;
    let bare = world.node(&machine, &at(format!("root@{address}%{zone}")), &world.ssh());
    assert_eq!(bare.observe(LOOK).await.unwrap().running, world.second);
    bare.close().await;
}
