//! `driftless secrets list|edit|rekey`, as a person at a work tree uses them. No node is there, and none is asked.

use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use driftless::secrets::Keyring;
use serde_json::Value;

use super::*;

/// A work tree, and a person with an editor.
struct Desk {
    fleet: Fleet,
}

/// A key of its own: the private half's path, and the public one.
fn key(fleet: &Fleet, name: &str) -> (PathBuf, String) {
    let path = fleet.dir().join(name);
    let mut make = Command::new("ssh-keygen");
    make.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&path);
    assert!(make.status().unwrap().success());
    let public = fs::read_to_string(path.with_extension("pub")).unwrap();
    (path, public.trim().to_owned())
}

impl Desk {
    fn declare(&self, recipients: &[&str], host_key: &str) {
        let recipients: String = recipients.iter().map(|key| format!("\"{key}\" ")).collect();
        let text = format!(
            "import <driftless> {{ }} ({{ ... }}: {{
               defaults = {{ configuration = {{ secrets.recipients = [ {recipients} ]; }}; }};
               nodes.ours.configuration = {{ config, ... }}: {{
                 secrets.files.a.age = ./secrets/a.age; environment.etc.a.text = config.secrets.files.a.file;
                 secrets.files.unused.command = [ \"false\" ]; }};
               nodes.own = {{ hostKeys = [ {host_key} ];
                 configuration.secrets.files.n = {{ age = ./secrets/n.age; decrypt = \"node\"; mode = \"0444\"; }}; }};
             }})"
        );
        fs::write(self.fleet.repository().join("deployment.nix"), text).unwrap();
    }

    /// With an editor that is this script; `$1` is the file.
    fn say(&self, arguments: &[&str], editor: &str) -> Output {
        let script = self.fleet.dir().join("editor");
        fs::write(&script, format!("#!/bin/sh\n{editor}\n")).unwrap();
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_driftless"));
        command.args(arguments).arg("--config").arg(self.fleet.config_file());
        command.current_dir(self.fleet.repository()).env_remove("VISUAL").env("EDITOR", &script);
        self.fleet.environment(&mut command);
        let said = command.output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Output { code: said.status.code(), stdout: text(&said.stdout), stderr: text(&said.stderr) }
    }

    fn file(&self, name: &str) -> Vec<u8> {
        fs::read(self.fleet.repository().join("secrets").join(name)).unwrap()
    }

    fn opened(&self, name: &str, key: &Path) -> Option<String> {
        let clear = Keyring::new(&[key.to_owned()]).decrypt(&self.file(name)).ok()?.unwrap();
        Some(String::from_utf8(clear.expose().to_vec()).unwrap())
    }
}

/// What a killed editor would leave.
fn left() -> Vec<String> {
    let all =
        fs::read_dir("/dev/shm").unwrap().flatten().map(|it| it.file_name().to_string_lossy().into_owned());
    all.filter(|name| name.starts_with("driftless-")).collect()
}

#[test]
fn a_secret_is_made_changed_listed_and_encrypted_anew() {
    let desk = Desk { fleet: fleet(&[]) };
    let us = ours(&desk.fleet);
    let our_key = desk.fleet.identity();
    let (node_key, node_public) = key(&desk.fleet, "node");
    let (friend_key, friend) = key(&desk.fleet, "friend");
    desk.declare(&[&us], &format!("{node_public:?} \"ecdsa-sha2-nistp256 AAAA\""));

    let tell = desk.fleet.dir().join("told").display().to_string();
    let editor = format!(
        "stat -c %a \"$1\" >{tell}; stat -c %a \"${{1%/*}}\" >>{tell}; stat -f -c %T \"$1\" >>{tell}; echo one >\"$1\""
    );
    let made = desk.say(&["secrets", "edit", "secrets/a.age"], &editor);
    assert_eq!(
        made.stdout, "secrets/a.age: encrypted to 1 key; add it to Git, for a flake sees nothing else\n",
        "{made:?}"
    );
    assert_eq!(fs::read_to_string(&tell).unwrap(), "600\n700\ntmpfs\n");
    assert_eq!(desk.opened("a.age", &our_key).as_deref(), Some("one\n"));
    let before = desk.file("a.age");
    let same = desk.say(&["secrets", "edit", "secrets/a.age"], "grep -q one \"$1\"");
    assert_eq!((same.stdout.as_str(), desk.file("a.age")), ("secrets/a.age: unchanged\n", before.clone()));
    for spoiler in ["exit 3", "rm \"$1\"", ": >\"$1\""] {
        let failed = desk.say(&["secrets", "edit", "secrets/a.age"], spoiler);
        assert_eq!((failed.code, desk.file("a.age")), (Some(1), before.clone()), "{failed:?}");
    }
    assert!(desk.say(&["secrets", "edit", "secrets/n.age"], "echo own >\"$1\"").success());
    assert_eq!(desk.opened("n.age", &node_key).as_deref(), Some("own\n"));
    assert_eq!(desk.opened("a.age", &node_key), None);

    desk.declare(&[&us, &friend], &format!("{node_public:?}"));
    let rekeyed = desk.say(&["secrets", "rekey"], "false");
    let told = "secrets/a.age: encrypted anew, keys: 2\nsecrets/n.age: encrypted anew, keys: 3\n";
    assert_eq!(rekeyed.stdout, told, "{rekeyed:?}");
    assert_eq!(desk.opened("a.age", &friend_key).as_deref(), Some("one\n"));
    assert_eq!(desk.opened("n.age", &friend_key).as_deref(), Some("own\n"));

    let built = desk.say(&["build", "--file", "deployment.nix"], "false");
    assert!(built.success(), "{built:?}");
    let list = desk.say(&["secrets", "list", "--file", "deployment.nix"], "false");
    let expected = "\
NODE  SECRET  OWNER      MODE  USED  FROM                         HERE
ours  a       root:root  0400  yes   secrets/a.age                can be decrypted
ours  unused  root:root  0400  no    `false`                      not tried
own   n       root:root  0444  no    secrets/n.age (by the node)  can be decrypted
";
    assert_eq!(list.stdout, expected, "{list:?}");
    let list = desk.say(&["secrets", "list", "--file", "deployment.nix", "--format", "json"], "false");
    let list: Value = serde_json::from_str(&list.stdout).unwrap();
    assert_eq!(list[2]["recipients"].as_array().unwrap().len(), 3);
    assert_eq!(left(), Vec::<String>::new());
}

#[test]
fn what_cannot_be_encrypted_or_opened_says_why_and_what_to_do() {
    let desk = Desk { fleet: fleet(&[]) };
    desk.declare(&[&ours(&desk.fleet)], "");
    let edit = |file: &str| desk.say(&["secrets", "edit", file], "echo x >\"$1\"");
    let stranger = edit("secrets/stranger.age");
    assert!(
        stranger.stderr.contains("no node declares it") && stranger.stderr.contains("--recipient"),
        "{stranger:?}"
    );
    let keyless = edit("secrets/n.age");
    assert!(
        keyless.stderr.contains("own decrypts it itself") && keyless.stderr.contains("hostKeys"),
        "{keyless:?}"
    );
    let named = desk.say(&["secrets", "edit", "new.age", "-r", &ours(&desk.fleet)], "echo x >\"$1\"");
    assert!(named.success(), "{named:?}");
    let (_, foreign) = key(&desk.fleet, "foreign");
    let foreign = desk.say(&["secrets", "edit", "foreign.age", "-r", &foreign], "echo x >\"$1\"");
    assert!(foreign.success() && foreign.stderr.contains("can no longer be opened here"), "{foreign:?}");
    let shut = desk.say(&["secrets", "edit", "foreign.age", "-r", "age1xyz"], "echo y >\"$1\"");
    assert!(shut.stderr.contains("encrypted to others than"), "{shut:?}");
    let bad = desk.say(&["secrets", "edit", "new.age", "-r", "age1xyz"], "echo y >\"$1\"");
    assert!(bad.stderr.contains("\"age1xyz\" is no recipient"), "{bad:?}");
    let list = desk.say(&["secrets", "list", "--file", "deployment.nix"], "false");
    assert!(list.stdout.contains("there is no file"), "{list:?}");
}
