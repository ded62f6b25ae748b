//! A node as `nix/node.nix` sets it up: an account that can be deployed to and can do nothing else. What the module writes is
//! what the lab node gets; who has the account's key tries everything.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use driftless_lab::{Fleet, Node, Output};

use crate::beginning;
use crate::health::{self, Server};

const FRAME: &str = "0123456789abcdef0123456789abcdef";
const HASH: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

/// A fleet of one managed node, and the key that systems are signed with.
struct Managed {
    fleet: Fleet,
    /// How this user is reached.
    host: &'static str,
    public_key: String,
}

impl Managed {
    /// Installs the first managed system by root, as a person does who adopts it.
    fn new() -> Self {
        Self::with("")
    }

    /// The same with more in that system's configuration.
    fn with(more: &str) -> Self {
        let fleet = beginning::fleet(&["n1"]);
        let (secret, public) = (fleet.dir().join("secret"), fleet.dir().join("public"));
        let made = Command::new("nix-store")
            .args(["--generate-binary-cache-key", "lab-1"])
            .args([&secret, &public])
            .output()
            .unwrap();
        assert!(made.status.success(), "{made:?}");
        let public_key = fs::read_to_string(&public).unwrap().trim().to_owned();
        let this = Self { fleet, host: "driftless", public_key };
        this.write("one", more);
        // The account is part of what is deployed: work goes the old way, contact already the new one.
        let old = format!("root@{}", this.node().address());
        let said =
            this.fleet.driftless(&["deploy", "--file", "deployment.nix", "--on", "n1", "--via", &old, "-v"]);
        ok(&said.unwrap());
        this
    }

    fn node(&self) -> &Node {
        &self.fleet.nodes["n1"]
    }

    /// A deployment of a system with this text; `more` is said of its configuration.
    fn write(&self, text: &str, more: &str) {
        let key = fs::read_to_string(self.fleet.identity().with_extension("pub")).unwrap();
        let text = self.fleet.deployment("", |_| {
            format!(
                "healthChecks = {{ commands.root = \"test $(id -u) = 0\\n! false\"; units = [ \"dbus.socket\" ]; }};
                 configuration = {{ config, ... }}: {{
                   lab.text = \"{text}\"; {more}
                   services.driftless-node = {{
                     enable = true; authorizedKeys = [ \"{}\" ]; trustedPublicKeys = [ \"{}\" ];
                   }};
                 }};",
                key.trim(),
                self.public_key
            )
        });
        let text = text.replace("root@", &format!("{}@", self.host));
        fs::write(self.fleet.repository().join("deployment.nix"), text).unwrap();
    }

    /// Builds what stands in the deployment, and signs it as `[nix] signing_key_file` has a controller do.
    fn sign(&self) -> String {
        let expression = "(import ./deployment.nix).config.nodes.n1.configuration.system.build.toplevel";
        let toplevel = self.nix("nix-build", &["--no-out-link", "-E", expression]);
        let key = self.fleet.dir().join("secret").display().to_string();
        self.nix("nix", &["store", "sign", "--recursive", "--key-file", &key, &toplevel]);
        toplevel
    }

    fn nix(&self, program: &str, arguments: &[&str]) -> String {
        let mut command = Command::new(program);
        command.args(arguments).current_dir(self.fleet.repository());
        self.fleet.environment(&mut command);
        command.env("NIX_PATH", self.fleet.nix_path());
        command.env("NIX_SSHOPTS", format!("-F {}", self.fleet.ssh_config().display()));
        let said = command.output().unwrap();
        assert!(said.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&said.stderr));
        String::from_utf8(said.stdout).unwrap().trim().to_owned()
    }

    fn deploy(&self) -> Output {
        self.fleet.driftless(&["deploy", "--file", "deployment.nix", "-v"]).unwrap()
    }

    /// What the account's key gets from this command line.
    fn asks(&self, line: &str) -> Output {
        self.node().ssh_as("driftless", [line]).unwrap()
    }

    /// The same with a verb of driftless-node.
    fn verb(&self, words: &str) -> Output {
        self.asks(&format!("driftless-node 1 {FRAME} {words}"))
    }

    /// What it gets when it says this on stdin.
    fn says_to(&self, line: &str, input: &str) -> String {
        let mut command = Command::new("ssh");
        command.arg("-F").arg(self.fleet.ssh_config()).args(["-l", "driftless", "n1", "--", line]);
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        let said = child.wait_with_output().unwrap();
        format!("{}{}", String::from_utf8_lossy(&said.stdout), String::from_utf8_lossy(&said.stderr))
    }

    fn refuses(&self, line: &str) {
        let said = self.asks(line);
        assert!(!said.success() && said.stdout.is_empty(), "{line:?}: {said:?}");
        assert!(said.stderr.contains("driftless-node: refused: "), "{line:?}: {said:?}");
    }
}

fn ok(said: &Output) {
    assert!(said.success(), "{}\n{}", said.stdout, said.stderr);
}

fn says(said: &Output, words: &[&str]) {
    let all = format!("{}\n{}", said.stdout, said.stderr);
    for word in words {
        assert!(all.contains(word), "{word:?} is not in: {all}");
    }
}

#[test]
fn a_managed_node_takes_signed_systems_rolls_back_bad_ones_and_gets_its_secrets() {
    let managed = Managed::new();
    let node = managed.node();
    let first = node.running().unwrap();

    managed.write("two", "");
    let unsigned = managed.deploy();
    assert!(!unsigned.success());
    says(&unsigned, &["cannot copy", "signature"]);
    assert_eq!(node.running().unwrap(), first);

    let second = managed.sign();
    ok(&managed.deploy());
    assert_eq!(node.boot_default().unwrap(), second);
    // Nothing of it was done by a shell of that account.
    let sudo = node.enter("journalctl -q --no-pager -t sudo -o cat | grep 'driftless :'").unwrap().stdout;
    assert!(sudo.lines().count() > 3, "{sudo}");
    for line in sudo.lines() {
        assert!(line.contains("COMMAND=/run/current-system/sw/bin/driftless-node as-root "), "{line}");
    }

    managed.write("three", "lab.faults.killSsh = true;");
    managed.sign();
    let bad = managed.deploy();
    assert!(!bad.success());
    says(&bad, &["rolled back", "no new login"]);
    assert_eq!(node.running().unwrap(), second);

    fs::write(managed.fleet.dir().join("plain"), "the secret").unwrap();
    let secrets = format!(
        "secrets.files.plain = {{ file = \"{}/plain\"; always = true; }};",
        managed.fleet.dir().display()
    );
    managed.write("four", &secrets);
    managed.sign();
    ok(&managed.deploy());
    assert_eq!(node.enter("cat /run/driftless-secrets/plain").unwrap().stdout, "the secret");

    // The same words with a table of one's own.
    let system = node.running().unwrap();
    let name = system.strip_prefix("/nix/store/").unwrap();
    for line in [
        "plain ../../etc/sudoers.d/own own root root 0440 -",
        "plain own ../own root root 0440 -",
        "plain own own root root 4755 -",
        "plain own own --reference=x root 0440 -",
        "age own own root root 0440 /etc/shadow",
        "plain own own root root 0440 - more",
    ] {
        let put = format!("driftless-node 1 {FRAME} secrets put {name} {name} now");
        let input = format!("line {line}\nfile own 2\nhi\ndone\n");
        let said = managed.says_to(&put, &input);
        assert!(said.contains("error bad-argument"), "{line}: {said}");
    }
    assert_eq!(node.enter("cat /run/driftless-secrets/plain").unwrap().stdout, "the secret");

    for look in ["status", "diff"] {
        ok(&managed.fleet.driftless(&[look, "--file", "deployment.nix"]).unwrap());
    }
    // What the node has been before may come back.
    ok(&managed
        .fleet
        .driftless(&["rollback", "--on", "n1", "--file", "deployment.nix", "--reason", "test"])
        .unwrap());
}

#[test]
fn a_health_check_is_the_one_that_the_signed_system_has() {
    let managed = Managed::new();
    let node = managed.node();
    let first = node.running().unwrap();
    managed.write("two", "");
    managed.sign();
    // The same system, and another command in what the controller reads.
    let path = managed.fleet.repository().join("deployment.nix");
    let text = fs::read_to_string(&path).unwrap();
    let text = text.replace("commands.root =", "commands.other = \"touch /run/owned\"; commands.root =");
    let text = text.replace(
        "enable = true;",
        "enable = true; checks = lib.mkForce { root = \"test $(id -u) = 0\\n! false\"; };",
    );
    fs::write(&path, text).unwrap();
    managed.sign();
    let said = managed.deploy();
    assert!(!said.success());
    says(&said, &["rolled back", "no health check other", "services.driftless-node.checks"]);
    assert!(!node.path("/run/owned").exists());
    assert_eq!(node.running().unwrap(), first);
}

#[test]
fn requests_and_ports_are_those_of_the_system_and_are_asked_as_the_account() {
    let managed = Managed::new();
    let node = managed.node();
    let server = Server::start("200 OK", "it is\nfine");
    let page = format!("http://{}:{}/", health::gateway(&managed.fleet), server.port);
    let write = |text: &str, gate: u16| {
        managed.write(text, "");
        let path = managed.fleet.repository().join("deployment.nix");
        let checks = format!(
            "http.page = {{ url = \"{page}\"; from = \"node\"; body = \"is\\nfine$\"; }}; tcp.ssh = {{ port = 22; from = \"node\"; }};
             before.tcp.gate = {{ port = {gate}; from = \"node\"; }}; commands.root ="
        );
        let text = fs::read_to_string(&path).unwrap().replace("commands.root =", &checks);
        fs::write(&path, text.replace("healthChecks =", "healthTimeout = 5; healthChecks =")).unwrap();
        managed.sign()
    };
    // What the running system does not declare yet is not asked before it: nobody listens on that port.
    let second = write("two", 23);
    ok(&managed.deploy());
    assert_eq!(node.running().unwrap(), second);
    let said = managed.verb("check http page");
    says(&said, &["\nbody it is\nbody fine\n", "curl driftless-status 200\n", "curl driftless-exit 0\n"]);
    says(&managed.verb("check tcp ssh"), &["\ncode 0\n"]);
    says(&managed.verb("check http absent"), &["has no health check absent"]);
    write("three", 22);
    let held = managed.deploy();
    assert!(!held.success());
    says(&held, &["not touched, because its check tcp gate must pass first", "Connection refused"]);

    let open = "echo 'localhost 22 3' >/etc/gate && mount --bind /etc/gate \"$(readlink -f /run/current-system/etc/driftless-node/tcp/before.gate)\"";
    node.enter(open).unwrap().ok().unwrap();
    server.says("500 Internal Server Error", "out of order");
    let bad = managed.deploy();
    assert!(!bad.success());
    says(&bad, &["rolled back", "http page: status 500, expected 200 to 399; it says: out of order"]);
    assert_eq!(node.running().unwrap(), second);
    let sudo = node.enter("journalctl -q --no-pager -t sudo -o cat").unwrap().stdout;
    assert!(!sudo.contains("check http") && !sudo.contains("check tcp"), "no root is needed: {sudo}");
}

#[test]
fn who_has_the_accounts_key_can_do_nothing_but_deploy() {
    let managed = Managed::new();
    let node = managed.node();
    let system = node.running().unwrap();
    let observed = managed.verb("observe nix");
    assert!(observed.stdout.contains(&format!("running {system}\n")), "{observed:?}");

    let id = "20261122T170102Z-1f2e3d4c";
    let store = format!("/nix/store/{HASH}-x");
    for line in [
        "id",
        "",
        "sh -c id",
        "/usr/lib/openssh/sftp-server",
        "internal-sftp",
        "scp -t /tmp",
        "nix-daemon --stdio --store /",
        "nix-daemon",
        "nix-store --serve --write",
        "driftless-node",
        "driftless-node gate",
        "driftless-node -c id",
        "driftless-node nix-daemon --stdio --store /",
        "driftless-node nix-store --serve --write",
        "/run/current-system/sw/bin/driftless-node gate",
    ] {
        managed.refuses(line);
    }
    for words in [
        "run x",
        "resume x",
        "as-root observe",
        "observe nix more",
        "observe; touch /run/owned",
        "observe\ntouch /run/owned",
        "observe $(touch /run/owned)",
        "observe `touch /run/owned`",
        "observe 'nix'",
        "observe  nix",
        "observe *",
        "log ../../../etc",
        "log %056%056",
        "log -n",
        "log",
        "log %999",
        "log %000",
        "log a%0",
        &format!("log {id}%012id"),
        &format!("closure {store}/../../../etc/shadow"),
        "closure /etc/shadow",
        "closure --help",
        &format!("prepare {id} {store}%073id"),
        &format!("start {id} {store}"),
        &format!("start {id} {store} ssh-from%0751.2.3.4"),
        &format!("start {id} {store} ssh-from=1"),
        &format!("start {id} {store} unknown%075x"),
        &format!("start {id} {store} goal%075dance"),
        &format!("start {id} {store} switch-timeout%0751%073id"),
        &format!("contact {id} {FRAME} 1.2.3.4"),
        &format!("contact {id} {FRAME}0"),
        &format!("attach {id} - 0%073id"),
        "check unit -H",
        "check unit a%057b",
        "check command ../../../bin/sh",
        "check shell id",
        "check http ../../../etc/shadow",
        "check tcp a%040b",
        "reboot now",
        "secrets compare ../../../etc",
        "secrets put a b now",
        "pin",
        "suspend x alice",
        "suspend ../x alice - because",
        "suspend x alice soon because",
        "unsuspend ../x",
    ] {
        managed.refuses(&format!("driftless-node 1 {FRAME} {words}"));
    }
    managed.refuses("driftless-node 1 short observe");
    says(
        &managed.asks("driftless-node 9 f observe"),
        &["this node speaks protocol 1 of driftless-node, not 9"],
    );
    assert!(!node.path("/run/owned").exists());
    // What is well-formed and means nothing is answered.
    says(&managed.verb(&format!("log {id}")), &["error no-entry"]);
    says(&managed.verb("check command absent"), &["has no health check absent"]);
    let look = format!("driftless-node 1 {FRAME} prepare {id} {store}");
    let said = managed.says_to(&look, "/etc/shadow\n");
    assert!(said.contains("what is to be looked for are no store paths"), "{said}");
    let said = managed.says_to(&look, &format!("{store}\n"));
    assert!(said.contains(&format!("missing {store}\n")), "{said}");
    // The node keeps who tried.
    let log = node.enter("journalctl -q --no-pager -t driftless-node -o cat").unwrap().stdout;
    assert!(log.contains("not \"sh -c id\""), "{log}");

    managed.write("one", "");
    let mut exec = Command::new(env!("CARGO_BIN_EXE_driftless"));
    exec.args(["exec", "--file", "deployment.nix", "--on", "*", "--config"]);
    exec.arg(managed.fleet.config_file()).args(["--", "id"]).current_dir(managed.fleet.repository());
    managed.fleet.environment(&mut exec);
    let exec = exec.output().unwrap();
    assert!(!exec.status.success());
    let said = String::from_utf8_lossy(&exec.stderr);
    assert!(said.contains("only deployments by driftless are allowed here, not \"id\""), "{said}");

    other_ways_in_lead_nowhere(&managed);
    sudo_permits_nothing_else(&managed);
    a_system_of_ones_own_cannot_be_started(&managed, id);
}

/// sftp, a terminal, forwarding, a key without options, `su`.
fn other_ways_in_lead_nowhere(managed: &Managed) {
    let node = managed.node();
    let config = managed.fleet.ssh_config().display().to_string();
    let ssh = |arguments: &[&str]| {
        let mut command = Command::new("timeout");
        command.args(["20", "ssh", "-F", &config, "-l", "driftless"]).args(arguments).output().unwrap()
    };
    let text = |said: &std::process::Output| String::from_utf8_lossy(&said.stderr).into_owned();
    let sftp = ssh(&["-s", "n1", "sftp"]);
    // sshd gives a subsystem no stderr; this is the exit code of what is refused.
    assert_eq!(sftp.status.code(), Some(77), "{sftp:?}");
    let terminal = ssh(&["-tt", "n1"]);
    assert!(!terminal.status.success(), "{terminal:?}");
    assert!(text(&terminal).contains("PTY allocation request failed"), "{terminal:?}");
    let tunnel = ssh(&["-W", "127.0.0.1:22", "n1"]);
    assert!(
        !tunnel.status.success() && !String::from_utf8_lossy(&tunnel.stdout).contains("SSH-2.0"),
        "{tunnel:?}"
    );
    let back = ssh(&["-o", "ExitOnForwardFailure=yes", "-N", "-R", "2222:127.0.0.1:22", "n1"]);
    assert!(!back.status.success() && text(&back).contains("remote port forwarding failed"), "{back:?}");

    let add_key = "sed -n 's/.*\" //p' /etc/ssh/authorized_keys.d/driftless >/run/bare && cat /run/bare >/etc/ssh/authorized_keys.d/driftless";
    node.enter(add_key).unwrap().ok().unwrap();
    managed.refuses("id");
    let su = node.enter("su driftless -c id").unwrap();
    assert!(!su.success() && !su.stdout.contains("uid="), "{su:?}");
}

fn sudo_permits_nothing_else(managed: &Managed) {
    let node = managed.node();
    let as_account = |command: &str| {
        node.enter(&format!("setpriv --reuid=driftless --regid=driftless --clear-groups {command}")).unwrap()
    };
    let program = "/run/current-system/sw/bin/driftless-node";
    for command in [
        "sudo -n id".to_owned(),
        "sudo -n sh".to_owned(),
        "sudo -n nix-daemon --stdio".to_owned(),
        format!("sudo -n {program}"),
        format!("sudo -n {program} gate"),
        format!("sudo -n {program} 1 {FRAME} observe"),
        format!("sudo -n -u nobody {program} as-root {FRAME} unpin"),
        format!("sudo -n PATH=/tmp {program} as-root {FRAME} unpin"),
    ] {
        let said = as_account(&command);
        assert!(!said.success() && said.stderr.contains("sudo: "), "{command}: {said:?}");
    }
    for words in [
        "nix-daemon".to_owned(),
        format!("{FRAME} run x"),
        format!("{FRAME} observe"),
        format!("{FRAME} log '$(id)'"),
        format!("{FRAME} contact x {FRAME} ';id'"),
        "- run x".to_owned(),
    ] {
        let said = as_account(&format!("sudo -n {program} as-root {words}"));
        assert!(!said.success() && said.stderr.contains("driftless-node: refused"), "{words}: {said:?}");
    }
    ok(&as_account(&format!("sudo -n {program} as-root {FRAME} unpin")));
}

/// Nix takes what is addressed by its content from anybody. It is no system because of that.
fn a_system_of_ones_own_cannot_be_started(managed: &Managed, id: &str) {
    let node = managed.node();
    let own = managed.fleet.dir().join("own");
    fs::create_dir_all(own.join("bin")).unwrap();
    fs::write(own.join("bin/switch-to-configuration"), "#!/bin/sh\ntouch /run/owned\n").unwrap();
    let executable = fs::Permissions::from_mode(0o755);
    fs::set_permissions(own.join("bin/switch-to-configuration"), executable).unwrap();
    let path = managed.nix("nix-store", &["--add", own.to_str().unwrap()]);
    let store = "ssh-ng://driftless@n1?remote-program=driftless-node%20nix-daemon";
    managed.nix("nix", &["copy", "--no-check-sigs", "--to", store, &path]);
    assert!(node.path(&path).exists());
    let running = node.running().unwrap();
    let words = format!("start {id} {path} expected%075{running} nonce%075{FRAME} asker%075me");
    let said = managed.verb(&words);
    says(&said, &["refused unsigned"]);
    assert!(!node.path("/run/owned").exists());
    assert_eq!(node.running().unwrap(), running);
}

#[test]
fn doas_will_do_and_a_program_of_another_version_is_told_from_a_shell() {
    let doas = "services.driftless-node.escalation = \"doas\"; security.doas.enable = true;";
    let mut managed = Managed::with(doas);
    managed.node().enter("rm /etc/sudoers.d/nixos").unwrap();
    managed.write("two", doas);
    managed.sign();
    ok(&managed.deploy());

    // doas permits the program whatever its arguments are: by itself it makes nobody root.
    let own = format!("20261122T170102Z-1f2e3d4c /nix/store/{HASH}-x expected%075/nix/store/{HASH}-x");
    let words = format!("doas -n /run/current-system/sw/bin/driftless-node 1 {FRAME} start {own}");
    let as_account = format!("setpriv --reuid=driftless --regid=driftless --clear-groups {words}");
    says(&managed.node().enter(&as_account).unwrap(), &["refused unsigned"]);

    let other = "p=$(readlink -f /run/current-system/sw/bin/driftless-node) && chmod u+w $p && sed -i 's/^PROTOCOL=1$/PROTOCOL=2/' $p";
    managed.node().enter(other).unwrap().ok().unwrap();
    managed.write("three", "");
    managed.sign();
    let said = managed.deploy();
    assert!(!said.success());
    says(&said, &["speaks protocol 2, this driftless speaks 1", "there is no shell behind this login"]);
    // As root there is a shell, and the scripts are sent along.
    managed.host = "root";
    managed.write("three", "");
    ok(&managed.deploy());
}
