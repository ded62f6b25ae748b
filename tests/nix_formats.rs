//! Repositories that other tools deploy, as driftless reads them: the examples in `tests/formats/`, unedited, through the real
//! program or the manifest that it asks for.
//!
//! Runs with the small nixpkgs in `tests/nixpkgs`, and again with the real one that `DRIFTLESS_TEST_NIXPKGS` names. None of
//! the other tools is needed: two flake inputs have stand-ins.

mod edges;
mod examples;
mod nodes;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

/// A real nixpkgs needs seconds for a node.
const DEADLINE: Duration = Duration::from_secs(180);

fn project() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn our_nixpkgs() -> PathBuf {
    project().join("tests/nixpkgs")
}

/// Ours, and the real one where the environment names it.
fn every_nixpkgs() -> Vec<PathBuf> {
    let real = std::env::var_os("DRIFTLESS_TEST_NIXPKGS").map(PathBuf::from);
    std::iter::once(our_nixpkgs()).chain(real).collect()
}

/// A copy of an example, or a repository of the test's own.
struct Repository {
    folder: TempDir,
    nixpkgs: PathBuf,
    /// The deployment file in it; `None`: it is a flake.
    file: Option<&'static str>,
}

/// What the program did.
struct Said {
    code: i32,
    out: String,
    err: String,
}

impl Repository {
    /// A file, alone.
    fn of(nixpkgs: &Path, file: &'static str, text: &str) -> Self {
        let this =
            Self { folder: tempfile::tempdir().unwrap(), nixpkgs: nixpkgs.to_owned(), file: Some(file) };
        fs::create_dir(this.path()).unwrap();
        this.write(file, text);
        this
    }

    /// An example that a file describes.
    fn example(nixpkgs: &Path, name: &str, file: &'static str) -> Self {
        let this =
            Self { folder: tempfile::tempdir().unwrap(), nixpkgs: nixpkgs.to_owned(), file: Some(file) };
        copy(&project().join("tests/formats").join(name), &this.path());
        this
    }

    /// An example that is a flake. Its inputs are locked to folders of this machine; flake.nix stays as it is.
    fn flake(nixpkgs: &Path, name: &str) -> Self {
        let this = Self { folder: tempfile::tempdir().unwrap(), nixpkgs: nixpkgs.to_owned(), file: None };
        copy(&project().join("tests/formats").join(name), &this.path());
        copy(&project().join("tests/formats/stand-ins"), &this.folder.path().join("stand-ins"));
        this.lock();
        this
    }

    /// A flake of the test's own; `outputs` is what stands in the braces of its outputs.
    fn outputs(outputs: &str) -> Self {
        let this = Self { folder: tempfile::tempdir().unwrap(), nixpkgs: our_nixpkgs(), file: None };
        fs::create_dir(this.path()).unwrap();
        this.write("flake.nix", &format!("{{ outputs = {{ self }}: {{ {outputs} }}; }}"));
        this
    }

    fn lock(&self) {
        let nixpkgs = self.nixpkgs.display();
        let as_flake = self.folder.path().join("nixpkgs");
        fs::create_dir(&as_flake).unwrap();
        fs::write(as_flake.join("default.nix"), format!("import {nixpkgs}")).unwrap();
        let outputs = format!(
            "{{ outputs = _: let lib = import {nixpkgs}/lib; in {{
                 lib = lib // {{ nixosSystem = arguments: import {nixpkgs}/nixos/lib/eval-config.nix ({{ inherit lib; system = null; }} // arguments); }};
                 legacyPackages.x86_64-linux = import {nixpkgs} {{ system = \"x86_64-linux\"; }};
               }}; }}"
        );
        fs::write(as_flake.join("flake.nix"), outputs).unwrap();
        let text = fs::read_to_string(self.path().join("flake.nix")).unwrap();
        let mut nix = self.command("nix");
        nix.args(["flake", "lock"]);
        let mut instead = |input: &str, folder: &str| {
            nix.args(["--override-input", input]);
            nix.arg(format!("path:{}", self.folder.path().join(folder).display()));
        };
        instead("nixpkgs", "nixpkgs");
        if text.contains("inputs.deploy-rs") {
            instead("deploy-rs", "stand-ins/deploy-rs");
            instead("deploy-rs/nixpkgs", "nixpkgs");
        }
        if text.contains("inputs.colmena") {
            instead("colmena", "stand-ins/colmena");
        }
        let locked = nix.arg(format!("path:{}", self.path().display())).output().unwrap();
        assert!(locked.status.success(), "{}", text_of(&locked.stderr));
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("repository")
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path().join(name), text).unwrap();
    }

    /// Replaces a part of a file, which must be there.
    fn edit(&self, name: &str, part: &str, instead: &str) {
        let text = fs::read_to_string(self.path().join(name)).unwrap();
        assert!(text.contains(part), "no {part:?} in {name}");
        self.write(name, &text.replacen(part, instead, 1));
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new("timeout");
        command
            .arg(DEADLINE.as_secs().to_string())
            .arg(program)
            .current_dir(self.path())
            .env_remove("DRIFTLESS_CONFIG")
            .env_remove("RUST_LOG")
            .env("STATE_DIRECTORY", self.folder.path().join("state"))
            .env(
                "NIX_CONFIG",
                "build-users-group =\nsandbox = false\nsubstitute = false\nexperimental-features = nix-command flakes",
            )
            .env("NIX_PATH", format!("nixpkgs={}", self.nixpkgs.display()));
        command
    }

    /// What `nix/manifest.nix` answers.
    fn manifest(&self, want: &str, more: &[&str]) -> Output {
        let mut command = self.command("nix-instantiate");
        command.args(["--eval", "--strict", "--json", "--read-write-mode"]);
        command.arg(project().join("nix/manifest.nix"));
        match self.file {
            Some(file) => command.args(["--argstr", "deployment"]).arg(self.path().join(file)),
            None => command.args(["--argstr", "flake"]).arg(format!("path:{}", self.path().display())),
        };
        command.args(["--argstr", "want", want]).args(more).output().unwrap()
    }

    fn names(&self) -> Value {
        parsed(&self.manifest("names", &[]))
    }

    fn answer(&self) -> Value {
        parsed(&self.manifest("nodes", &[]))
    }

    fn nodes(&self) -> Value {
        self.answer()["nodes"].take()
    }

    fn say(&self, arguments: &[&str]) -> Said {
        let output = self.command(env!("CARGO_BIN_EXE_driftless")).args(arguments).output().unwrap();
        let here = fs::canonicalize(self.path()).unwrap().display().to_string();
        Said {
            code: output.status.code().unwrap_or(-1),
            out: text_of(&output.stdout).replace(&here, "HERE"),
            err: text_of(&output.stderr).replace(&here, "HERE"),
        }
    }

    /// `driftless check`, as programs read it.
    fn check(&self, more: &[&str]) -> Value {
        let mut arguments = vec!["check", "--format", "json"];
        match self.file {
            Some(file) => arguments.extend(["--file", file]),
            None => arguments.extend(["--flake", "."]),
        }
        arguments.extend(more);
        let said = self.say(&arguments);
        serde_json::from_str(&said.out).unwrap_or_else(|_| panic!("{}{}", said.out, said.err))
    }
}

fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-r").args([from, to]).status().unwrap();
    assert!(copied.success());
}

fn text_of(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn parsed(output: &Output) -> Value {
    assert!(output.status.success(), "{}", text_of(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Asserts that the evaluation failed and that the message has all of `parts`.
fn refused(output: &Output, parts: &[&str]) {
    let message = text_of(&output.stderr);
    assert!(!output.status.success(), "it was accepted");
    for part in parts {
        assert!(message.contains(part), "no {part:?} in:\n{message}");
    }
}

/// The settings that are said not to be heeded.
fn settings(unsupported: &Value) -> Vec<&str> {
    let all = unsupported.as_array().unwrap();
    assert!(all.iter().all(|note| !note["reason"].as_str().unwrap().is_empty()));
    all.iter().map(|note| note["setting"].as_str().unwrap()).collect()
}
