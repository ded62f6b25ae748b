//! Secrets on real nodes: from a file, a command or an encrypted file of the repository to the right owner, back with a
//! rollback or an older boot entry, and nowhere else.

mod verbs;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use driftless::secrets::{Content, encrypt, parse_recipient};
use driftless_lab::{Fleet, Lab, Node, Output, Setup, Sudo, System, User};
use sha2::{Digest, Sha256};

use crate::beginning;

const SOON: Duration = Duration::from_secs(60);
const SETS: &str = "/var/lib/driftless-node/secrets";

fn fleet(names: &[&str]) -> Fleet {
    let lab = Lab::start().unwrap();
    let first = System::new("installed").build().unwrap();
    fleet_of(&lab, lab.nodes(names, &first).unwrap())
}

fn fleet_of(lab: &Lab, nodes: Vec<Node>) -> Fleet {
    let fleet = beginning::fleet_of(lab, nodes);
    let identity = fleet.identity();
    let text = fs::read_to_string(fleet.config_file()).unwrap();
    let text = format!("{text}\n[secrets]\nidentity_files = [{:?}]\n", identity.display().to_string());
    fs::write(fleet.config_file(), text).unwrap();
    fleet
}

/// The public half of the identity that the fleet's programs have.
fn ours(fleet: &Fleet) -> String {
    fs::read_to_string(fleet.identity().with_extension("pub")).unwrap().trim().to_owned()
}

/// Writes an encrypted file into the repository.
fn age(fleet: &Fleet, name: &str, text: &str, recipients: &[&str]) {
    let recipients: Vec<_> = recipients.iter().map(|key| parse_recipient(key).unwrap()).collect();
    let ciphertext = encrypt(&Content::new(text.as_bytes().to_vec()), &recipients).unwrap();
    fs::write(fleet.repository().join(name), ciphertext).unwrap();
}

/// Secrets of a node, and a service's environment that refers to those which are `used`.
fn body(text: &str, secrets: &str, used: &[&str]) -> String {
    let used: String = used.iter().map(|name| format!("${{config.secrets.files.{name}.file}} ")).collect();
    format!(
        "configuration = {{ config, ... }}: {{ lab.text = \"{text}\"; users.users.nobody = {{ }}; \
         users.groups.games = {{ }}; secrets.files = {{ {secrets} }}; environment.etc.used.text = \"{used}\"; }};"
    )
}

fn write(fleet: &Fleet, body: impl Fn(&str) -> String) {
    fs::write(fleet.repository().join("deployment.nix"), fleet.deployment("", body)).unwrap();
}

fn deploy(fleet: &Fleet) -> Output {
    fleet.driftless(&["deploy", "--file", "deployment.nix", "-v"]).unwrap()
}

fn deployed(fleet: &Fleet) -> Output {
    let said = deploy(fleet);
    assert!(said.success(), "{}\n{}", said.stdout, said.stderr);
    said
}

fn read(node: &Node, name: &str) -> String {
    node.enter(&format!("cat /run/driftless-secrets/{name}")).unwrap().stdout
}

/// Owner, group and mode.
fn ownership(node: &Node, name: &str) -> String {
    node.enter(&format!("stat -L -c '%U:%G %a' /run/driftless-secrets/{name}")).unwrap().ok().unwrap()
}

/// The systems that the node keeps secrets for.
fn sets(node: &Node) -> BTreeSet<String> {
    node.enter(&format!("ls -A {SETS} | grep -v '^.last$'"))
        .unwrap()
        .stdout
        .lines()
        .map(str::to_owned)
        .collect()
}

fn base_name(system: &str) -> String {
    system.rsplit('/').next().unwrap().to_owned()
}

#[test]
fn secrets_of_each_kind_arrive_with_owner_and_mode_and_what_is_unused_is_not_sent() {
    let fleet = fleet(&["n1"]);
    let node = &fleet.nodes["n1"];
    fs::write(fleet.dir().join("plain"), b"from a file\0\xff").unwrap();
    age(&fleet, "a.age", "from git", &[&ours(&fleet)]);
    age(&fleet, "n.age", "only for the node", &[node.host_key()]);
    let secrets = format!(
        "plain = {{ file = \"{}/plain\"; user = \"nobody\"; }};
         said = {{ command = [ \"printf\" \"%s\" \"from a command\" ]; group = \"games\"; }};
         a = {{ age = ./a.age; user = \"nobody\"; group = \"games\"; mode = \"0640\"; }};
         n = {{ age = ./n.age; decrypt = \"node\"; user = \"7\"; }};
         unused = {{ file = \"/no/such/file\"; }};
         byhand = {{ command = [ \"printf\" \"x\" ]; always = true; }};",
        fleet.dir().display()
    );
    write(&fleet, |_| body("one", &secrets, &["plain", "said", "a", "n"]));
    let said = deployed(&fleet);
    assert!(said.stdout.contains("n1    deployed"), "{}", said.stdout);

    assert_eq!(fs::read(fleet.dir().join("plain")).unwrap(), {
        let target = node.enter("readlink -f /run/driftless-secrets/plain").unwrap().ok().unwrap();
        fs::read(node.path(target)).unwrap()
    });
    assert_eq!(read(node, "said"), "from a command");
    assert_eq!(read(node, "a"), "from git");
    assert_eq!(read(node, "n"), "only for the node");
    assert_eq!(ownership(node, "plain"), "nobody:root 400");
    assert_eq!(ownership(node, "said"), "root:games 440");
    assert_eq!(ownership(node, "a"), "nobody:games 640");
    assert!(ownership(node, "n").ends_with(":root 400"));
    assert_eq!(read(node, "byhand"), "x");
    // What programs are given is a path that is not in the store, and theirs alone.
    let used = node.enter("cat /etc/used").unwrap().stdout;
    assert!(used.split_whitespace().all(|path| path.starts_with("/run/driftless-secrets/")), "{used}");
    let paths = used.trim();
    node.enter(&format!("cat {paths}")).unwrap().ok().unwrap();
    let as_nobody = |script: &str| {
        node.enter(&format!("setpriv --reuid=nobody --clear-groups sh -c '{script}'")).unwrap()
    };
    assert!(as_nobody("cat /run/driftless-secrets/plain").success());
    assert!(!as_nobody("cat /run/driftless-secrets/said").success());
    assert!(!as_nobody("ls /run/driftless-secrets/").success(), "others cannot list them");
    assert!(!as_nobody(&format!("ls {SETS}")).success());

    let set = format!("{SETS}/{}", base_name(&node.running().unwrap()));
    let kept = node.enter(&format!("ls {set}; stat -c '%U:%G %a' {SETS} {set}/*")).unwrap().stdout;
    assert_eq!(kept.lines().take(4).collect::<Vec<_>>(), ["a", "byhand", "plain", "said"], "{kept}");
    assert!(kept.lines().skip(4).all(|line| line == "root:root 700" || line == "root:root 600"), "{kept}");
}

#[test]
fn only_what_is_new_travels_and_a_changed_file_comes_without_a_new_system() {
    let fleet = fleet(&["n1"]);
    let node = &fleet.nodes["n1"];
    let put = |name: &str, text: &str| fs::write(fleet.dir().join(name), text).unwrap();
    put("p1", "one");
    put("p2", "two");
    let at = fleet.dir().display().to_string();
    let secrets =
        format!("p1 = {{ file = \"{at}/p1\"; user = \"nobody\"; }}; p2 = {{ file = \"{at}/p2\"; }};");
    let write = |text: &str| write(&fleet, |_| body(text, &secrets, &["p1", "p2"]));
    write("one");
    let said = deployed(&fleet);
    assert!(said.stderr.contains("new=2 all=2"), "{}", said.stderr);
    // A new system with the same secrets takes them over on the node.
    write("two");
    let said = deployed(&fleet);
    assert!(said.stderr.contains("new=0 all=2"), "{}", said.stderr);
    let said = deployed(&fleet);
    assert!(said.stdout.contains("in sync") && !said.stderr.contains("brought"), "{}", said.stderr);

    let switches = || node.enter("ls /var/lib/driftless-node/switches").unwrap().stdout;
    let before = switches();
    put("p1", "between");
    deployed(&fleet);
    put("p1", "three");
    let said = deployed(&fleet);
    assert!(said.stdout.contains("secrets brought") && said.stdout.contains("p1"), "{}", said.stdout);
    assert!(said.stderr.contains("new=1 all=2"), "{}", said.stderr);
    assert_eq!((read(node, "p1"), read(node, "p2")), ("three".into(), "two".into()));
    assert_eq!(ownership(node, "p1"), "nobody:root 400");
    assert_eq!(switches(), before);
    node.reboot().unwrap();
    assert_eq!(read(node, "p1"), "three");
}

#[test]
fn a_rollback_and_an_older_boot_entry_bring_the_secrets_of_their_system_back() {
    let fleet = fleet(&["n1"]);
    let node = &fleet.nodes["n1"];
    let secrets = "a = { age = ./a.age; }; n = { age = ./n.age; decrypt = \"node\"; };";
    let release = |text: &str| {
        age(&fleet, "a.age", text, &[&ours(&fleet)]);
        age(&fleet, "n.age", text, &[node.host_key()]);
        write(&fleet, |_| body("same", secrets, &["a", "n"]));
        deployed(&fleet);
        assert_eq!((read(node, "a"), read(node, "n")), (text.to_owned(), text.to_owned()));
        node.running().unwrap()
    };
    let old = release("old");
    let new = release("new");
    assert_ne!(old, new, "a new ciphertext is a new system");

    let back = fleet.driftless(&["rollback", "--file", "deployment.nix", "--on", "n1"]).unwrap();
    assert!(back.success(), "{back:?}");
    assert_eq!((read(node, "a"), read(node, "n")), ("old".into(), "old".into()));
    deployed(&fleet);
    assert_eq!(read(node, "a"), "new");

    // A person chooses the older entry in the boot menu.
    let entry = node.enter(&format!("grep -l '{old}' /boot/loader/entries/*")).unwrap().ok().unwrap();
    let entry = base_name(entry.lines().next().unwrap());
    node.enter(&format!("echo {entry} >/boot/loader/entries.oneshot")).unwrap().ok().unwrap();
    node.reboot().unwrap();
    assert_eq!(node.running().unwrap(), old);
    assert_eq!((read(node, "a"), read(node, "n")), ("old".into(), "old".into()));
    node.reboot().unwrap();
    assert_eq!(node.running().unwrap(), new);
    assert_eq!((read(node, "a"), read(node, "n")), ("new".into(), "new".into()));

    // A switch that fails its health checks goes back, and so do the secrets.
    age(&fleet, "a.age", "bad", &[&ours(&fleet)]);
    write(&fleet, |_| {
        format!(
            "healthChecks.commands.no = \"grep -q good /run/driftless-secrets/a\"; {}",
            body("same", secrets, &["a", "n"])
        )
    });
    let said = deploy(&fleet);
    assert!(said.stdout.contains("rolled back"), "{said:?}");
    assert_eq!(read(node, "a"), "new");
}

#[test]
fn a_secret_that_cannot_be_had_stops_its_own_node_only_and_is_named() {
    let mut fleet = fleet(&["file", "good", "others", "user"]);
    age(&fleet, "good.age", "good", &[&ours(&fleet)]);
    age(&fleet, "others.age", "x", &[fleet.nodes["good"].host_key()]);
    let good = "g = { age = ./good.age; };";
    let commit = fleet
        .commit(
            "secrets",
            &[(
                "deployment.nix",
                &fleet.deployment("", |name| match name {
                    "file" => body("one", "db = { file = \"/no/such/file\"; };", &["db"]),
                    "others" => body("one", "db = { age = ./others.age; };", &["db"]),
                    "user" => body("one", "db = { age = ./good.age; user = \"mallory\"; };", &["db"]),
                    _ => body("one", good, &["g"]),
                }),
            )],
        )
        .unwrap();
    fleet.start().unwrap();
    let seen = fleet
        .wait("the good one is in sync, the others say why not", SOON, |seen| {
            let why = |name: &str, part: &str| {
                seen["nodes"][name]["why"].as_str().is_some_and(|why| why.contains(part))
            };
            seen["nodes"]["good"]["state"] == "in-sync"
                && why("file", "the secret db: cannot read /no/such/file")
                && why("others", "the secret db")
                && seen["nodes"]["user"]["decision"]["hold"]["kind"] == "not-evaluated"
        })
        .unwrap();
    let why = |name: &str| seen["nodes"][name]["why"].as_str().unwrap().to_owned();
    assert!(why("others").contains("encrypted to others than"), "{}", why("others"));
    let error = seen["nodes"]["user"]["decision"]["hold"]["error"].as_str().unwrap();
    assert!(error.contains("mallory") && error.contains("no such user is declared"), "{error}");
    assert_eq!(read(&fleet.nodes["good"], "g"), "good");
    let _ = commit;

    let mended = fleet
        .commit("mended", &[("deployment.nix", &fleet.deployment("", |_| body("two", good, &["g"])))])
        .unwrap();
    fleet.wait_in_sync(&mended, SOON).unwrap();
    assert!(fleet.nodes.values().all(|node| read(node, "g") == "good"));
}

#[test]
fn a_user_that_only_the_node_could_tell_to_be_unknown_rolls_it_back() {
    let fleet = fleet(&["n1"]);
    let node = &fleet.nodes["n1"];
    age(&fleet, "a.age", "x", &[&ours(&fleet)]);
    let before = node.running().unwrap();
    // Declared, and then not made: the lab makes no users.
    let secrets = "a = { age = ./a.age; user = \"ghost\"; };";
    write(&fleet, |_| body("one", secrets, &["a"]).replace("users.users.nobody", "users.users.ghost"));
    let said = deploy(&fleet);
    assert!(said.stdout.contains("rolled back"), "{said:?}");
    assert_eq!(node.running().unwrap(), before);
    let logs = fleet.driftless(&["logs", "n1", "--file", "deployment.nix"]).unwrap();
    assert!(logs.stdout.contains("the secret a cannot be given to ghost:root"), "{}", logs.stdout);
    assert!(!node.enter("test -e /run/driftless-secrets").unwrap().success());
}

#[test]
fn what_no_system_can_use_any_more_is_removed() {
    let fleet = fleet(&["n1"]);
    let node = &fleet.nodes["n1"];
    age(&fleet, "a.age", "x", &[&ours(&fleet)]);
    let secrets = "a = { age = ./a.age; };";
    let mut systems = Vec::new();
    for text in ["one", "two", "three"] {
        // Activated and never made a generation: only what runs, and what ran before, can be gone back to.
        write(&fleet, |_| format!("goal = \"test\"; {}", body(text, secrets, &["a"])));
        deployed(&fleet);
        systems.push(base_name(&node.running().unwrap()));
    }
    assert_eq!(sets(node), systems[1..].iter().cloned().collect());
    write(&fleet, |_| "configuration.lab.text = \"none\";".to_owned());
    deployed(&fleet);
    assert!(!node.enter("test -e /run/driftless-secrets").unwrap().success());
    assert_eq!(node.enter("ls -A /run/driftless-secrets.d").unwrap().stdout, "lock\n");
    write(&fleet, |_| "configuration.lab.text = \"still none\";".to_owned());
    deployed(&fleet);
    assert_eq!(sets(node), BTreeSet::new());
}

#[test]
fn a_system_that_a_person_built_on_the_node_has_the_secrets_of_the_one_before() {
    let fleet = fleet(&["n1"]);
    let node = &fleet.nodes["n1"];
    age(&fleet, "a.age", "x", &[&ours(&fleet)]);
    let secrets = "a = { age = ./a.age; user = \"nobody\"; };";
    write(&fleet, |_| body("one", secrets, &["a"]));
    deployed(&fleet);
    write(&fleet, |_| body("by hand", secrets, &["a"]));
    let built = fleet.driftless(&["build", "--file", "deployment.nix"]).unwrap().ok().unwrap();
    let system = built.split_whitespace().find(|word| word.starts_with("/nix/store/")).unwrap();
    let said = node.nixos_rebuild(system).unwrap();
    assert!(said.success() && said.stderr.contains("it takes those of"), "{said:?}");
    assert_eq!((read(node, "a").as_str(), ownership(node, "a").as_str()), ("x", "nobody:root 400"));
    node.reboot().unwrap();
    assert_eq!(read(node, "a"), "x");
}

#[test]
fn a_machine_that_was_installed_with_its_system_gets_its_secrets_and_a_changed_file_follows() {
    let mut fleet = fleet(&["n1"]);
    let vault = fleet.dir().join("p");
    fs::write(&vault, "one").unwrap();
    let text = fs::read_to_string(fleet.config_file()).unwrap();
    fs::write(fleet.config_file(), format!("{text}refresh = \"1s\"\n")).unwrap();
    let secrets = format!("p = {{ file = \"{}\"; user = \"nobody\"; }};", vault.display());
    let deployment = fleet.deployment("", |_| body("one", &secrets, &["p"]));
    let commit = fleet.commit("secrets", &[("deployment.nix", &deployment)]).unwrap();
    let built = fleet.driftless(&["build", "--file", "deployment.nix"]).unwrap().ok().unwrap();
    let system = built.split_whitespace().find(|word| word.starts_with("/nix/store/")).unwrap();
    let installed = fleet.nodes["n1"].nixos_rebuild(system).unwrap();
    assert!(installed.stderr.contains("nobody has brought the secrets"), "{installed:?}");

    fleet.start().unwrap();
    fleet.wait_in_sync(&commit, SOON).unwrap();
    let is = |fleet: &mut Fleet, text: &str| {
        let node = fleet.nodes["n1"].clone();
        fleet.wait(&format!("the secret is {text}"), SOON, |_| read(&node, "p") == text).unwrap();
    };
    is(&mut fleet, "one");
    assert_eq!(ownership(&fleet.nodes["n1"], "p"), "nobody:root 400");
    fs::write(&vault, "two").unwrap();
    is(&mut fleet, "two");
    let switches =
        fleet.nodes["n1"].enter("ls /var/lib/driftless-node/switches 2>/dev/null | wc -l").unwrap();
    assert_eq!(switches.stdout.trim(), "0", "no switch was needed");
    fs::remove_file(&vault).unwrap();
    let deadline = std::time::Instant::now() + SOON;
    while !fleet.log().contains("the secret p: cannot read") {
        assert!(std::time::Instant::now() < deadline, "{}", fleet.log());
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(read(&fleet.nodes["n1"], "p"), "two");
}

/// Calls the node's half as the controller does, with this on its stdin after the script.
fn put(node: &Node, arguments: &str, input: &str) -> Output {
    let script = include_str!("../src/node/secrets.sh");
    fs::write(node.path("/root/input"), format!("{script}{input}")).unwrap();
    let load = format!("s=$(head -c {}); eval \"$s\"", script.len());
    node.enter(&format!("sh -c '{load}' sh F {arguments} </root/input")).unwrap()
}

#[test]
fn a_transfer_that_is_cut_anywhere_changes_nothing_and_leaves_nothing() {
    let fleet = fleet(&["n1"]);
    let node = &fleet.nodes["n1"];
    let whole = "line plain h-a a root root 0400 -\nfile a 3\none\nkeep b\ndone\n";
    let first = "line plain h-a a root root 0400 -\nfile a 3\nold\nfile b 3\nbee\ndone\n";
    assert!(put(node, "put set - later", first).stdout.contains("\nok\n"));
    for cut in 0..whole.len() {
        let said = put(node, "put set set later", &whole[..cut]);
        assert!(said.stdout.contains("\nerror "), "{cut}: {said:?}");
    }
    let all = node.enter(&format!("cd {SETS} && ls -A . set && cat set/a set/b set/.table")).unwrap().stdout;
    assert_eq!(
        all,
        ".:\nset\n\nset:\n.table\na\nb\noldbeeline plain h-a a root root 0400 -\n".replace("line ", "")
    );
    assert!(put(node, "put set set later", whole).stdout.contains("\nok\n"));
    assert_eq!(node.enter(&format!("cd {SETS}/set && cat a b")).unwrap().stdout, "onebee");
    let escape = put(node, "put ../x - later", first);
    assert!(escape.stdout.contains("error bad-argument"), "{escape:?}");
    let escape = put(node, "put set set later", "file ../x 1\nx\ndone\n");
    assert!(escape.stdout.contains("error bad-argument"), "{escape:?}");
}

#[test]
fn a_node_that_loses_power_in_the_middle_has_its_secrets_when_it_is_back() {
    let fleet = fleet(&["n1"]);
    let node = &fleet.nodes["n1"];
    age(&fleet, "a.age", "x", &[&ours(&fleet)]);
    write(&fleet, |_| body("one", "a = { age = ./a.age; };", &["a"]));
    deployed(&fleet);
    let system = base_name(&node.running().unwrap());
    // Between the two renames, and in the middle of a transfer.
    let script = format!(
        "cd {SETS} && mv {system} .old-{system} && mkdir .new-{system}.abc && echo y >.new-{system}.abc/a"
    );
    node.enter(&script).unwrap().ok().unwrap();
    node.power_cut().unwrap();
    node.start().unwrap();
    assert_eq!(read(node, "a"), "x");
    assert_eq!(sets(node), BTreeSet::from([system]));
}

#[test]
fn a_full_disk_stops_a_secret_before_the_switch_and_leaves_no_half() {
    let fleet = fleet(&["n1"]);
    let node = &fleet.nodes["n1"];
    let release = |text: &str| {
        age(&fleet, "a.age", text, &[&ours(&fleet)]);
        write(&fleet, |_| body("same", "a = { age = ./a.age; };", &["a"]));
    };
    release("old");
    deployed(&fleet);
    let (before, running) = (sets(node), node.running().unwrap());
    release(&"new".repeat(200_000));
    // There is room for a pin, and for the first part of the secret.
    let ballast = "fallocate -l $(($(df -B1 --output=avail /var | tail -n1) - 200000)) /var/ballast";
    node.enter(ballast).unwrap().ok().unwrap();
    let said = deploy(&fleet);
    node.enter("rm /var/ballast").unwrap().ok().unwrap();
    assert!(said.stdout.contains("failed") && said.stderr.contains("is the file system full"), "{said:?}");
    assert_eq!((sets(node), node.running().unwrap(), read(node, "a")), (before, running, "old".into()));
    deployed(&fleet);
    assert_eq!(read(node, "a").len(), 600_000);
}

#[test]
fn a_login_that_has_to_become_root_brings_secrets_as_root_does() {
    let lab = Lab::start().unwrap();
    let first = System::new("installed").build().unwrap();
    let user = User { name: "alice".into(), sudo: Sudo::WithoutPassword };
    let setup = Setup { users: vec![user], ..Setup::default() };
    let node = lab.node_with("n1", &first, &setup).unwrap();
    let fleet = fleet_of(&lab, vec![node]);
    let node = &fleet.nodes["n1"];
    fs::write(fleet.dir().join("p"), b"hush-of-sudo\0\n\n").unwrap();
    let secrets = format!("p.file = \"{}/p\";", fleet.dir().display());
    let host = format!("host = lib.mkForce \"alice@{}\";", node.address());
    let text = fleet.deployment("", |_| body("one", &secrets, &["p"]));
    let text = text.replace(&format!("host = \"root@{}\";", node.address()), &host);
    fs::write(fleet.repository().join("deployment.nix"), text).unwrap();
    deployed(&fleet);
    assert_eq!(read(node, "p"), "hush-of-sudo\0\n\n");
    let journal = node.enter("journalctl --sync; journalctl --no-pager -o cat").unwrap().stdout;
    assert!(journal.contains("alice") && !journal.contains("hush-of-sudo"), "{journal}");
}

#[test]
fn a_node_that_cannot_decrypt_for_itself_goes_back_and_says_which_secret() {
    let fleet = fleet(&["n1"]);
    let node = &fleet.nodes["n1"];
    let before = node.running().unwrap();
    age(&fleet, "n.age", "x", &[&ours(&fleet)]);
    write(&fleet, |_| body("one", "n = { age = ./n.age; decrypt = \"node\"; };", &["n"]));
    let said = deploy(&fleet);
    assert!(said.stdout.contains("rolled back"), "{said:?}");
    assert_eq!(node.running().unwrap(), before);
    let logs = fleet.driftless(&["logs", "n1", "--file", "deployment.nix"]).unwrap();
    assert!(logs.stdout.contains("this machine cannot decrypt the secret n"), "{}", logs.stdout);
    assert_eq!(node.enter("ls -A /run/driftless-secrets.d").unwrap().stdout, "activate\nlock\n");
}

/// Samples every command line and environment of this machine, which has the nodes' processes too, for words.
fn watched<T>(words: &[&str], act: impl FnOnce() -> T) -> T {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let watch = scope.spawn(|| {
            let mut looks = 0_u64;
            while !over.load(Ordering::Relaxed) {
                for process in fs::read_dir("/proc").unwrap().flatten() {
                    for part in ["cmdline", "environ"] {
                        let bytes = fs::read(process.path().join(part)).unwrap_or_default();
                        let text = String::from_utf8_lossy(&bytes);
                        let found = words.iter().find(|word| text.contains(**word));
                        assert!(found.is_none(), "{found:?} is in the {part} of {text:?}");
                    }
                }
                looks += 1;
            }
            looks
        });
        let done = act();
        over.store(true, Ordering::Relaxed);
        let looks = watch.join().unwrap();
        assert!(looks > 10, "only {looks} looks");
        done
    })
}

/// Files below these places that have one of the words in them.
fn holders(places: &[PathBuf], words: &[&str]) -> String {
    let mut grep = std::process::Command::new("grep");
    grep.args(["-r", "-l", "-a", "-F", "-D", "skip"]);
    words.iter().for_each(|word| {
        grep.args(["-e", word]);
    });
    let said = grep.args(places).output().unwrap();
    String::from_utf8_lossy(&said.stdout).into_owned()
}

#[test]
fn a_plaintext_is_nowhere_but_in_the_memory_of_one_side_and_with_its_owner_on_the_other() {
    let mut fleet = fleet(&["n1"]);
    // No other text of this machine has these words.
    let word = |what: &str| {
        format!("{what}-{}-{:x}", std::process::id(), fleet.nodes["n1"].boot_id().unwrap().len() * 7919)
    };
    let (plain, git, own) = (word("hush"), word("mum"), word("quiet"));
    let vault = tempfile::tempdir().unwrap();
    fs::write(vault.path().join("p"), &plain).unwrap();
    age(&fleet, "a.age", &git, &[&ours(&fleet)]);
    age(&fleet, "n.age", &own, &[fleet.nodes["n1"].host_key()]);
    let secrets = format!(
        "p.file = \"{0}/p\"; c.command = [ \"cat\" \"{0}/p\" ]; a.age = ./a.age; n = {{ age = ./n.age; decrypt = \"node\"; }};",
        vault.path().display()
    );
    fleet.set_env("RUST_LOG", "trace");
    let words = [plain.as_str(), &git, &own];
    let commit = fleet
        .commit(
            "secrets",
            &[("deployment.nix", &fleet.deployment("", |_| body("one", &secrets, &["p", "c", "a", "n"])))],
        )
        .unwrap();
    watched(&words, || {
        fleet.start().unwrap();
        fleet.wait_in_sync(&commit, SOON).unwrap();
    });
    let node = &fleet.nodes["n1"];
    assert_eq!(
        (read(node, "c"), read(node, "a"), read(node, "n")),
        (plain.clone(), git.clone(), own.clone())
    );
    let shown = fleet.get("/api/v1/fleet").unwrap() + &fleet.get("/metrics").unwrap() + &fleet.log();
    assert!(fleet.log().contains("TRACE"), "everything is logged");
    assert!(words.iter().all(|word| !shown.contains(word)));
    let digests = words.map(|word| format!("{:x}", Sha256::digest(word)));
    assert!(digests.iter().all(|digest| !shown.contains(digest)) && !shown.contains("\nhave a "));

    node.enter("journalctl --sync").unwrap();
    let on_node =
        ["/nix", "/var/log", "/var/lib", "/etc", "/root", "/home", "/boot"].map(|place| node.path(place));
    let found = holders(&on_node, &words);
    let set = format!("{SETS}/{}/", base_name(&node.running().unwrap()));
    let found: Vec<&str> = found.lines().filter(|path| !path.contains(&set)).collect();
    assert!(found.is_empty(), "{found:?}");
    let kept = holders(&[node.path(SETS)], &[own.as_str()]);
    assert!(kept.is_empty(), "what the node decrypts is on no disk: {kept}");

    // On this side: state, configuration, logs, the system's closure and ciphertexts.
    let here: Vec<PathBuf> = vec![fleet.dir().to_owned()];
    assert_eq!(holders(&here, &words), "");
    assert_eq!(holders(&here, &digests.each_ref().map(String::as_str)), "");
    let closure =
        std::process::Command::new("nix-store").args(["-qR", &node.running().unwrap()]).output().unwrap();
    let closure: Vec<PathBuf> = String::from_utf8_lossy(&closure.stdout).lines().map(PathBuf::from).collect();
    assert!(closure.len() > 5);
    assert_eq!(holders(&closure, &words), "");
}
