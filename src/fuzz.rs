//! Everything that driftless parses from outside, as functions of bytes that must never panic: for fuzzers.
//!
//! Only in tests and fuzzers (`cfg(fuzzing)`), never in what is shipped. `fuzz/` feeds these functions to libFuzzer, and
//! the tests below feed them the corpus of `fuzz/corpus/` and what proptest makes of it. What a function asserts holds for
//! any input: what was read can be written and read again, a secret is not shown, a decision is made.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::sync::Arc;

use jiff::Timestamp;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::config::Config;
use crate::model::glob;
use crate::model::health::{Checks, HealthChecks};
use crate::model::intent::Intent;
use crate::model::manifest::{Manifest, Names};
use crate::model::observed::{Contact, NodeState, Observation, Observed};
use crate::model::release::Release;
use crate::model::selector::Selector;
use crate::plan::plan;
use crate::plan::view::{Pass, node_views};

/// One kind of bytes from outside.
#[derive(Debug)]
pub struct Target {
    /// The name of its folder in `fuzz/corpus/` and of its program in `fuzz/fuzz_targets/`.
    pub name: &'static str,
    /// Reads the bytes.
    pub read: fn(&[u8]),
}

/// Every kind.
pub const TARGETS: [Target; 11] = [
    Target { name: "reply", read: crate::node::fuzz::reply },
    Target { name: "health_checks", read: health_checks },
    Target { name: "ssh_words", read: crate::node::fuzz::ssh_words },
    Target { name: "manifest", read: manifest },
    Target { name: "nix_words", read: crate::nix::fuzz::words },
    Target { name: "nix_log", read: crate::nix::fuzz::log },
    Target { name: "nix_graph", read: crate::nix::fuzz::graph },
    Target { name: "release", read: release },
    Target { name: "intent", read: intent },
    Target { name: "config", read: config },
    Target { name: "source_url", read: crate::source::fuzz::url },
];

/// Reads bytes as this kind; panics where there is no such kind.
pub fn read(name: &str, bytes: &[u8]) {
    let target = TARGETS.iter().find(|target| target.name == name);
    (target.unwrap_or_else(|| panic!("no target {name}")).read)(bytes);
}

/// What was read is written and read again, and is the same.
pub(crate) fn is_kept<T: Serialize + DeserializeOwned + PartialEq + Debug>(value: &T) {
    let text =
        serde_json::to_vec(value).unwrap_or_else(|error| panic!("{value:?} cannot be written: {error}"));
    let again: T = serde_json::from_slice(&text)
        .unwrap_or_else(|error| panic!("{} is not read again: {error}", String::from_utf8_lossy(&text)));
    assert_eq!(*value, again);
}

/// A node may say anything: there is a decision for each node, at any time, and words for it.
pub(crate) fn is_decided(release: &Release, states: &[NodeState]) {
    is_decided_for(release, states, &Intent::default());
}

/// The same, whatever people want.
fn is_decided_for(release: &Release, states: &[NodeState], intent: &Intent) {
    for now in [Timestamp::MIN, Timestamp::UNIX_EPOCH, Timestamp::MAX] {
        let seen = |state: &NodeState| Observation {
            contact: Contact::Reachable { at: now },
            state: Some(state.clone()),
            state_since: Some(now),
            elsewhere: None,
            health: Vec::new(),
        };
        let nodes =
            release.nodes.keys().cloned().zip(states.iter().cycle().map(|state| Arc::new(seen(state))));
        let observed = Observed { nodes: nodes.collect(), ..Observed::default() };
        let plan = plan(release, &observed, intent, now);
        assert_eq!(plan.decisions.len(), release.nodes.len());
        is_kept(&plan);
        let pass = Pass { release, observed: &observed, plan: &plan, intent, now };
        let views = node_views(pass, &BTreeMap::new());
        for view in views.values() {
            assert!(!view.why.contains('\n'), "not one line: {:?}", view.why);
        }
    }
}

fn health_checks(bytes: &[u8]) {
    if let Ok(checks) = serde_json::from_slice::<HealthChecks>(bytes) {
        is_kept(&checks);
    }
    if let Ok(checks) = serde_json::from_slice::<Checks>(bytes) {
        is_kept(&checks);
    }
}

fn manifest(bytes: &[u8]) {
    if let Ok(names) = serde_json::from_slice::<Names>(bytes) {
        is_kept(&names);
    }
    if let Ok(manifest) = serde_json::from_slice::<Manifest>(bytes) {
        is_kept(&manifest);
    }
    crate::nix::fuzz::manifest(bytes);
}

/// `release.json`, which a disk or an older version may have made into anything.
fn release(bytes: &[u8]) {
    if let Ok(release) = serde_json::from_slice::<Release>(bytes) {
        is_kept(&release);
        is_decided(&release, &[]);
    }
}

/// `intent.json`, which a person or a disk may have made into anything.
fn intent(bytes: &[u8]) {
    let Ok(intent) = serde_json::from_slice::<Intent>(bytes) else { return };
    is_kept(&intent);
    let fleet = include_str!("../fuzz/corpus/release/fleet.json");
    let fleet = serde_json::from_str(fleet).unwrap_or_else(|error| panic!("the corpus: {error}"));
    is_decided_for(&fleet, &[], &intent);
}

/// `driftless.toml`, and the selectors and patterns that stand on command lines.
fn config(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match toml::from_str::<Config>(text) {
        Ok(config) => drop(format!("{config:?}")),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
    let line = text.lines().next().unwrap_or_default();
    let line: String = line.chars().take(200).collect();
    if let Ok(selector) = line.parse::<Selector>() {
        let fleet =
            ["web1", "db1"].into_iter().filter_map(|name| Some((name.parse().ok()?, BTreeSet::new())));
        let _ = selector.select(&fleet.collect());
    }
    assert!(!glob::matches(&line, &line) || line.is_empty() || glob::matches("*", &line));
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use proptest::prelude::*;
    use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

    use super::*;

    /// Inputs that are tried for each kind, beside the corpus.
    const TRIES: u32 = 1_500;

    fn folder() -> std::path::PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz")
    }

    fn corpus(target: &Target) -> Vec<Vec<u8>> {
        let folder = folder().join("corpus").join(target.name);
        let mut files: Vec<_> = fs::read_dir(&folder)
            .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
            .map(|entry| entry.unwrap().path())
            .collect();
        files.sort();
        assert!(!files.is_empty(), "{} is empty", folder.display());
        files.iter().map(|file| fs::read(file).unwrap()).collect()
    }

    /// What goes wrong with bytes on their way: cut short, overwritten, repeated, glued to others.
    #[derive(Debug, Clone)]
    enum Damage {
        Cut(prop::sample::Index),
        Byte(prop::sample::Index, u8),
        Repeat(prop::sample::Index, prop::sample::Index),
        Word(prop::sample::Index, &'static str),
        Line(prop::sample::Index, prop::sample::Index, prop::sample::Index),
    }

    /// Words that mean something to some parser, and numbers at the edges.
    const WORDS: [&str; 14] = [
        "\n",
        "\t",
        "\"",
        "{",
        "[",
        "null",
        "-1",
        "18446744073709551615",
        "9223372036854775807",
        "1e400",
        "\u{1b}[",
        "\u{0}",
        "end f00",
        "é",
    ];

    fn damage() -> impl Strategy<Value = Damage> {
        let at = any::<prop::sample::Index>;
        prop_oneof![
            at().prop_map(Damage::Cut),
            (at(), any::<u8>()).prop_map(|(place, byte)| Damage::Byte(place, byte)),
            (at(), at()).prop_map(|(from, to)| Damage::Repeat(from, to)),
            (at(), prop::sample::select(WORDS.to_vec())).prop_map(|(place, word)| Damage::Word(place, word)),
            (at(), at(), at()).prop_map(|(file, line, place)| Damage::Line(file, line, place)),
        ]
    }

    fn damaged(mut bytes: Vec<u8>, damage: &[Damage], corpus: &[Vec<u8>]) -> Vec<u8> {
        for damage in damage {
            let length = bytes.len() + 1;
            match damage {
                Damage::Cut(at) => bytes.truncate(at.index(length)),
                Damage::Byte(at, byte) => {
                    let at = at.index(length);
                    bytes.splice(at..bytes.len().min(at + 1), [*byte]);
                }
                Damage::Repeat(from, to) => {
                    let (from, to) = (from.index(length), to.index(length));
                    let part = bytes[from.min(to)..from.max(to)].to_vec();
                    bytes.splice(to..to, part);
                }
                Damage::Word(at, word) => {
                    let at = at.index(length);
                    bytes.splice(at..at, word.bytes());
                }
                Damage::Line(file, line, at) => {
                    let lines: Vec<&[u8]> = file.get(corpus).split_inclusive(|byte| *byte == b'\n').collect();
                    let at = at.index(length);
                    if !lines.is_empty() {
                        bytes.splice(at..at, line.get(&lines).iter().copied());
                    }
                }
            }
        }
        bytes
    }

    #[test]
    fn nothing_from_outside_makes_a_parser_panic() {
        for target in &TARGETS {
            let corpus = corpus(target);
            for bytes in &corpus {
                (target.read)(bytes);
            }
            let config = Config { cases: TRIES, failure_persistence: None, ..Config::default() };
            // The same inputs each time: a failure here is a change of ours, and stays until it is mended.
            let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
            let inputs = (any::<prop::sample::Index>(), prop::collection::vec(damage(), 1..6))
                .prop_map(|(file, damage)| damaged(file.get(&corpus).clone(), &damage, &corpus));
            let outcome = TestRunner::new_with_rng(config, rng).run(&inputs, |bytes| {
                (target.read)(&bytes);
                Ok(())
            });
            outcome.unwrap_or_else(|error| panic!("{}: {error}", target.name));
        }
    }

    #[test]
    fn every_kind_has_its_program_for_a_fuzzer() {
        let mut programs: Vec<_> = fs::read_dir(folder().join("fuzz_targets"))
            .unwrap()
            .map(|entry| entry.unwrap().path().file_stem().unwrap().to_string_lossy().into_owned())
            .collect();
        programs.sort();
        let mut names = TARGETS.map(|target| target.name.to_owned());
        names.sort();
        assert_eq!(programs, names);
    }

    #[test]
    fn the_corpus_is_understood() {
        let any = |name: &str, understood: fn(&[u8]) -> bool| {
            let target = TARGETS.iter().find(|target| target.name == name).unwrap();
            assert!(corpus(target).iter().any(|bytes| understood(bytes)), "{name}: every input is rubbish");
        };
        any("manifest", |bytes| serde_json::from_slice::<Names>(bytes).is_ok());
        any("manifest", |bytes| serde_json::from_slice::<Manifest>(bytes).is_ok());
        any("release", |bytes| serde_json::from_slice::<Release>(bytes).is_ok());
        any("config", |bytes| toml::from_slice::<crate::config::Config>(bytes).is_ok());
        any("health_checks", |bytes| serde_json::from_slice::<HealthChecks>(bytes).is_ok());
        any("intent", |bytes| {
            serde_json::from_slice::<Intent>(bytes).is_ok_and(|intent| !intent.overrides.is_empty())
        });
        any("nix_graph", crate::nix::fuzz::is_graph);
        any("reply", crate::node::fuzz::is_reply);
    }
}
