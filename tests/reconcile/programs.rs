//! `git`, `nix` and `ssh` that are missing, hang or print rubbish: the program is named, the rest goes on, and all is well
//! as soon as it is back.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;

use super::source::{fetch_error, head};
use super::*;

/// Every program of this machine, some of which can be spoiled.
struct Programs(PathBuf);

impl Programs {
    fn new(fleet: &Fleet, spoiled: &[&str]) -> Self {
        let place = fleet.dir().join("bin");
        fs::create_dir(&place).unwrap();
        for folder in ["/usr/local/bin", "/usr/bin", "/usr/sbin"] {
            for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
                // The first of a name counts, as in PATH.
                let _ = symlink(entry.path(), place.join(entry.file_name()));
            }
        }
        for name in spoiled {
            let path = place.join(name);
            let real = fs::read_link(&path).unwrap_or_else(|_| panic!("this machine has no {name}"));
            fs::remove_file(&path).unwrap();
            let script = format!(
                "#!/bin/sh\nmode=$(cat '{place}/{name}.mode' 2>/dev/null)\ncase \"$mode\" in\n\
                 hang*) case \"$*\" in *\"${{mode#hang }}\"*) exec sleep 900 ;; esac ;;\n\
                 rubbish) head -c 99999 /dev/urandom | tee /dev/stderr; exit 1 ;;\nesac\nexec '{real}' \"$@\"\n",
                place = place.display(),
                real = real.display(),
            );
            fs::write(&path, script).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        Self(place)
    }

    /// From the next call on: `rubbish`, `hang WORD` where WORD is among the arguments, or nothing.
    fn spoil(&self, name: &str, mode: &str) {
        let fresh = self.0.join("mode.new");
        fs::write(&fresh, mode).unwrap();
        fs::rename(fresh, self.0.join(format!("{name}.mode"))).unwrap();
    }

    fn remove(&self, name: &str) {
        fs::rename(self.0.join(name), self.0.join(format!("{name}.gone"))).unwrap();
    }

    fn put_back(&self, name: &str) {
        fs::rename(self.0.join(format!("{name}.gone")), self.0.join(name)).unwrap();
    }
}

fn synced(fleet: &Fleet) {
    let said = fleet.driftless(&["sync"]).unwrap();
    assert!(said.success(), "{said:?}");
}

#[test]
fn programs_that_hang_are_missing_or_print_rubbish_are_named_and_stop_nothing_else() {
    let mut fleet = fleet(&["n1", "n2"]);
    let programs = Programs::new(&fleet, &["git", "ssh", "nix-instantiate", "nix-store"]);
    fleet.set_env("PATH", &programs.0.display().to_string());
    let short = fleet
        .config_text(&fleet.repository().display().to_string())
        .replace("poll = \"5s\"", "poll = \"2s\"\ntimeout = \"3s\"")
        .replace("[nix]\n", "[eval]\ntimeout = \"20s\"\n\n[nix]\nbuild_timeout = \"4s\"\n")
        .replace("interval = \"2s\"", "interval = \"1s\"\ntimeout = \"8s\"");
    fs::write(fleet.config_file(), short).unwrap();
    programs.spoil("ssh", &format!("hang {}", fleet.nodes["n2"].address()));
    let first = commit(&fleet, "first", |_| patient("one"));
    fleet.start().unwrap();
    let seen = fleet
        .wait("ssh hangs for n2 alone", SOON, |seen| {
            seen["nodes"]["n1"]["state"] == "in-sync" && is(&seen["nodes"]["n2"], "hold", "unreachable")
        })
        .unwrap();
    let why = seen["nodes"]["n2"]["why"].as_str().unwrap();
    assert!(why.contains("no answer within"), "{why}");
    programs.spoil("ssh", "");
    fleet.wait_in_sync(&first, SOON).unwrap();

    programs.spoil("git", "hang fetch");
    let second = commit(&fleet, "second", |_| patient("two"));
    fleet.wait("git hangs", SOON, |seen| fetch_error(seen).contains("took longer than 3 s")).unwrap();
    programs.spoil("git", "rubbish");
    fleet.wait("git is mad", SOON, |seen| fetch_error(seen).contains("`git --git-dir")).unwrap();
    programs.remove("git");
    let missing = |seen: &Value| fetch_error(seen).contains("the program `git` was not found");
    let seen = fleet.wait("git is missing", SOON, missing).unwrap();
    assert!(["n1", "n2"].iter().all(|name| seen["nodes"][name]["state"] == "in-sync"), "{seen:#}");

    programs.remove("nix-instantiate");
    programs.put_back("git");
    programs.spoil("git", "");
    let missing = "the program `nix-instantiate` was not found";
    let blocked =
        |seen: &Value| seen["source"]["blocked"]["message"].as_str().is_some_and(|it| it.contains(missing));
    let seen = fleet.wait("nix is missing", SOON, blocked).unwrap();
    assert_eq!((head(&seen), seen["source"]["fetchError"].is_null()), (second.as_str(), true));
    programs.put_back("nix-instantiate");
    programs.spoil("nix-instantiate", "rubbish");
    synced(&fleet);
    fleet.wait("nix is mad", SOON, |seen| !blocked(seen) && !seen["source"]["blocked"].is_null()).unwrap();
    programs.spoil("nix-instantiate", "");
    programs.spoil("nix-store", "hang --realise");
    synced(&fleet);
    let seen = fleet
        .wait("builds hang", SOON, |seen| {
            ["n1", "n2"].iter().all(|name| is(&seen["nodes"][*name], "hold", "not-built"))
        })
        .unwrap();
    let why = seen["nodes"]["n1"]["decision"]["hold"]["error"].as_str().unwrap();
    assert!(why.contains("`nix-store --realise") && why.contains("did not end within 4 s"), "{why}");
    programs.spoil("nix-store", "");
    // Nobody asks: what this host failed at is tried again by itself.
    fleet.wait_in_sync(&second, 2 * SOON).unwrap();

    fleet.stop().unwrap();
    programs.remove("ssh");
    fleet.start().unwrap();
    let gone = |seen: &Value| {
        seen["nodes"]["n1"]["why"].as_str().is_some_and(|why| why.contains("the program `ssh` was not found"))
    };
    fleet.wait("ssh is missing", SOON, gone).unwrap();
    programs.put_back("ssh");
    fleet.wait_in_sync(&second, SOON).unwrap();
    assert_eq!((switches(&fleet, "n1"), switches(&fleet, "n2")), (2, 2));
    assert_eq!(fleet.stop().unwrap(), Some(0));
    assert_eq!(fleet.processes(), Vec::<String>::new());
}
