//! Whether what a deployment declares of its rollout can be meant: no wave that is empty, no node that waits for ever.
//!
//! Says only what is certain. A node that is not evaluated yet, or does not evaluate, may have any tags: nothing is said to
//! match no node because of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::waves::Waves;
use crate::model::name::{NodeName, Tag};
use crate::model::node::NodeSpec;
use crate::model::rollout::RolloutSpec;
use crate::model::selector::Selector;

/// So many nodes are named; the rest is a number.
const NAMED: usize = 5;

/// One thing that cannot be meant.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Misdeclared {
    /// Where it stands in the deployment, for example `rollout.waves[1].on`; counted from 0 as Nix does.
    pub place: String,
    /// What is wrong, and what to write instead.
    pub fault: String,
}

impl fmt::Display for Misdeclared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.fault)
    }
}

/// What is known of a node that the deployment names.
#[derive(Debug, Clone, Copy)]
pub enum Known<'a> {
    /// What counts here of its declaration.
    Said {
        /// Its groups.
        tags: &'a BTreeSet<Tag>,
        /// What it comes after.
        after: &'a [Selector],
    },
    /// Only its name, as yet or because it does not evaluate.
    Name,
    /// It is no part of the fleet. Naming it is no mistake: it may come back.
    Disabled,
}

impl<'a> From<&'a NodeSpec> for Known<'a> {
    fn from(spec: &'a NodeSpec) -> Self {
        Self::Said { tags: &spec.tags, after: &spec.after }
    }
}

impl<'a> Known<'a> {
    /// A disabled node has none: a typo in a tag must not pass because of it.
    fn tags(self) -> Option<&'a BTreeSet<Tag>> {
        match self {
            Self::Said { tags, .. } => Some(tags),
            Self::Name => None,
            Self::Disabled => Some(const { &BTreeSet::new() }),
        }
    }

    fn is_enabled(self) -> bool {
        match self {
            Self::Said { .. } | Self::Name => true,
            Self::Disabled => false,
        }
    }
}

/// So many mistakes are told where one line has to do.
const TOLD: usize = 3;

/// Mistakes in one line, for people.
pub fn told(found: &[Misdeclared]) -> String {
    let mut all: Vec<String> = found.iter().take(TOLD).map(ToString::to_string).collect();
    if let Some(further @ 1..) = found.len().checked_sub(TOLD) {
        all.push(format!("and {further} more; `driftless check` lists them"));
    }
    all.join("; ")
}

/// Finds all that is certainly wrong. With names alone that is less than with every node.
pub fn check(rollout: &RolloutSpec, nodes: &BTreeMap<NodeName, Known<'_>>) -> Result<(), Vec<Misdeclared>> {
    let fleet = nodes.iter().map(|(name, known)| (name, known.tags())).collect();
    let enabled = nodes.iter().filter(|(_, known)| known.is_enabled());
    let waves = Waves::assign(&rollout.waves, enabled.map(|(name, known)| (name, known.tags())));
    let mut checking = Checking { rollout, nodes, fleet, waves, found: Vec::new() };
    checking.numbers();
    // Of an empty fleet nothing can be selected; it is complete as it is.
    if !nodes.is_empty() {
        checking.selectors();
        checking.waves();
        checking.without_wave();
        checking.after();
    }
    if checking.found.is_empty() { Ok(()) } else { Err(checking.found) }
}

struct Checking<'a> {
    rollout: &'a RolloutSpec,
    nodes: &'a BTreeMap<NodeName, Known<'a>>,
    /// With disabled nodes.
    fleet: BTreeMap<&'a NodeName, Option<&'a BTreeSet<Tag>>>,
    waves: Waves<'a>,
    found: Vec<Misdeclared>,
}

impl<'a> Checking<'a> {
    fn wrong(&mut self, place: impl Into<String>, fault: impl Into<String>) {
        self.found.push(Misdeclared { place: place.into(), fault: fault.into() });
    }

    fn numbers(&mut self) {
        let waves = self.rollout.waves.iter().enumerate();
        let of_waves =
            waves.map(|(index, wave)| (format!("rollout.waves[{index}].maxInFlight"), wave.max_in_flight));
        let whole = ("rollout.maxInFlight".to_owned(), Some(self.rollout.max_in_flight));
        for (place, limit) in std::iter::once(whole).chain(of_waves) {
            if limit == Some(0) {
                self.wrong(place, "0: no node would ever be worked on; use `driftless suspend` for that");
            }
        }
        if self.rollout.waves.is_empty() {
            self.wrong("rollout.waves", "there is none; leave it out for one wave of all nodes");
        }
    }

    /// Each part of each selector means a node.
    fn selectors(&mut self) {
        for (index, wave) in self.rollout.waves.iter().enumerate() {
            self.has_meaning(|| format!("rollout.waves[{index}].on"), &wave.on);
            for (nth, first) in wave.order.iter().enumerate() {
                self.has_meaning(|| format!("rollout.waves[{index}].order[{nth}]"), first);
            }
        }
        for (index, window) in self.rollout.windows.iter().enumerate() {
            self.has_meaning(|| format!("rollout.windows[{index}].on"), &window.on);
        }
    }

    fn has_meaning(&mut self, place: impl Fn() -> String, selector: &Selector) -> bool {
        match selector.has_meaning(&self.fleet) {
            Ok(()) => true,
            Err(error) => {
                self.wrong(place(), error.to_string());
                false
            }
        }
    }

    /// No wave shares a node with one before it, unless it is `*`, and none is left without.
    fn waves(&mut self) {
        let unknown = !self.waves.unknown().is_empty();
        for (index, wave) in self.rollout.waves.iter().enumerate() {
            if wave.on == Selector::everything() || wave.on.has_meaning(&self.fleet).is_err() {
                continue;
            }
            let here = self.fleet.iter().filter(|(name, tags)| wave.on.means(name, **tags) == Some(true));
            let shared = here.map(|(name, _)| *name).find_map(|name| {
                self.waves.wave_of(name).filter(|first| *first < index).map(|first| (name, first))
            });
            let place = format!("rollout.waves[{index}].on");
            if let Some((name, first)) = shared {
                let (one, other) = (self.wave(first), self.wave(index));
                let fault = format!("{name} is in {one} and in {other}; let only one of them select it");
                self.wrong(place, fault);
            } else if self.waves.nodes(index).next().is_none() && !unknown {
                let fault = format!("no node is left for {}", self.wave(index));
                self.wrong(place, fault);
            }
        }
    }

    /// A wave as people call it; they count from 1.
    fn wave(&self, index: usize) -> String {
        let on = self.rollout.waves.get(index).map(|wave| wave.on.to_string()).unwrap_or_default();
        format!("wave {} (`{on}`)", index + 1)
    }

    fn without_wave(&mut self) {
        let waits =
            |name: &NodeName| self.waves.wave_of(name).is_none() && !self.waves.unknown().contains(name);
        let enabled = self.nodes.iter().filter(|(_, known)| known.is_enabled()).map(|(name, _)| name);
        let without: Vec<&NodeName> = enabled.filter(|name| waits(name)).collect();
        if !self.rollout.waves.is_empty() && !without.is_empty() {
            let (is, in_none) = (named(&without), if without.len() == 1 { "is" } else { "are" });
            self.wrong(
                "rollout.waves",
                format!("{is} {in_none} in no wave; add one with on = \"*\" for the rest"),
            );
        }
    }

    /// What nodes come after is no node of a later wave, not themselves, and no circle.
    fn after(&mut self) {
        let mut edges: BTreeMap<&NodeName, Vec<&NodeName>> = BTreeMap::new();
        for (name, known) in self.nodes {
            let Known::Said { after, .. } = known else { continue };
            for (index, selector) in after.iter().enumerate() {
                let place = || format!("nodes.{name}.after[{index}]");
                if !self.has_meaning(place, selector) {
                    continue;
                }
                let first: Vec<&NodeName> = self.enabled_by(selector).collect();
                if first.contains(&name) {
                    self.wrong(place(), format!("`{selector}` selects {name} itself"));
                }
                let mine = self.waves.wave_of(name);
                let later = |first: &&&NodeName| mine.is_some() && self.waves.wave_of(first) > mine;
                if let (Some(other), Some(mine)) = (first.iter().find(later), mine) {
                    let theirs = self.waves.wave_of(other).unwrap_or(mine);
                    let (one, other_wave) = (self.wave(mine), self.wave(theirs));
                    let fault =
                        format!("{other} is in {other_wave}, which begins when {name}, in {one}, is done");
                    self.wrong(place(), fault);
                }
                edges.entry(name).or_default().extend(first.into_iter().filter(|first| *first != name));
            }
        }
        if let Some(cycle) = cycle(&edges) {
            let names: Vec<&str> = cycle.iter().map(|name| name.as_str()).collect();
            let place = format!("nodes.{}.after", names.first().unwrap_or(&""));
            self.wrong(place, format!("each would wait for the other: {}", names.join(" -> ")));
        }
    }

    fn enabled_by(&self, selector: &Selector) -> impl Iterator<Item = &'a NodeName> {
        let nodes = self.nodes.iter().filter(|(_, known)| known.is_enabled());
        nodes.filter(|(name, known)| selector.means(name, known.tags()) == Some(true)).map(|(name, _)| name)
    }
}

fn named(nodes: &[&NodeName]) -> String {
    let mut names: Vec<String> = nodes.iter().take(NAMED).map(ToString::to_string).collect();
    if let Some(further @ 1..) = nodes.len().checked_sub(NAMED) {
        names.push(format!("{further} more"));
    }
    names.join(", ")
}

/// Some circle among nodes that come after each other, its first node once more at the end.
fn cycle<'a>(edges: &BTreeMap<&'a NodeName, Vec<&'a NodeName>>) -> Option<Vec<&'a NodeName>> {
    let mut done = BTreeSet::new();
    for start in edges.keys() {
        if done.contains(start) {
            continue;
        }
        // The way from `start`, each node with the next of its edges to follow. No recursion: a way may be long.
        let mut way: Vec<(&NodeName, usize)> = vec![(start, 0)];
        while let Some((name, next)) = way.last_mut() {
            let name = *name;
            let followed = edges.get(name).and_then(|first| first.get(*next)).copied();
            *next += 1;
            match followed {
                None => {
                    done.insert(name);
                    way.pop();
                }
                Some(first) if done.contains(first) => {}
                Some(first) => match way.iter().position(|(on_way, _)| *on_way == first) {
                    None => way.push((first, 0)),
                    Some(at) => {
                        let circle = way.iter().skip(at).map(|(name, _)| *name);
                        return Some(circle.chain([first]).collect());
                    }
                },
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::model::sample;

    /// A deployment; names that end in `?` have never been evaluated, those in `!` are disabled.
    struct Deployment {
        rollout: serde_json::Value,
        nodes: Vec<(&'static str, NodeSpec)>,
    }

    fn deployment(rollout: serde_json::Value, nodes: &[(&'static str, &[&str], &[&str])]) -> Deployment {
        let spec = |(name, tags, after): &(&'static str, &[&str], &[&str])| {
            let mut spec = sample::spec("x");
            spec.tags = tags.iter().map(|tag| tag.parse().unwrap()).collect();
            spec.after = after.iter().map(|after| after.parse().unwrap()).collect();
            (*name, spec)
        };
        Deployment { rollout, nodes: nodes.iter().map(spec).collect() }
    }

    fn node<'a>((name, spec): &'a (&'static str, NodeSpec)) -> (NodeName, Known<'a>) {
        let known = match name.chars().last() {
            Some('?') => Known::Name,
            Some('!') => Known::Disabled,
            _ => Known::from(spec),
        };
        (name.trim_end_matches(['?', '!']).parse().unwrap(), known)
    }

    fn faults(deployment: &Deployment) -> Vec<String> {
        let rollout = serde_json::from_value(deployment.rollout.clone()).unwrap();
        let nodes = deployment.nodes.iter().map(node).collect();
        let found = check(&rollout, &nodes).err().unwrap_or_default();
        found.iter().map(ToString::to_string).collect()
    }

    const WEB: &[(&str, &[&str], &[&str])] =
        &[("db1", &[], &[]), ("web1", &["web", "canary"], &[]), ("web2", &["web", "eu"], &[])];

    fn waves(on: &[&str]) -> serde_json::Value {
        json!({ "waves": on.iter().map(|on| json!({ "on": on })).collect::<Vec<_>>() })
    }

    #[test]
    fn what_can_be_meant_is_right() {
        for rollout in [
            json!({}),
            waves(&["@canary", "*"]),
            waves(&["@web", "db1", "*"]),
            waves(&["@canary", "@web and not @canary", "*"]),
        ] {
            assert_eq!(faults(&deployment(rollout.clone(), WEB)), [""; 0], "{rollout}");
        }
        assert_eq!(faults(&deployment(waves(&["@canary", "*"]), &[])), [""; 0]);
        let after: &[(&str, &[&str], &[&str])] =
            &[("db1", &[], &[]), ("web1", &["web"], &["db*"]), ("web2", &["web"], &["db1", "web1"])];
        assert_eq!(faults(&deployment(json!({}), after)), [""; 0]);
    }

    #[test]
    fn a_mistake_in_the_waves_is_said_with_its_place() {
        for (rollout, expected) in [
            (
                waves(&["@web", "@eu", "*"]),
                "rollout.waves[1].on: web2 is in wave 1 (`@web`) and in wave 2 (`@eu`); let only one of them select it",
            ),
            (
                waves(&["*", "db1"]),
                "rollout.waves[1].on: db1 is in wave 1 (`*`) and in wave 2 (`db1`); let only one of them select it",
            ),
            (
                waves(&["@canary", "@web and not @eu and not web1", "*"]),
                "rollout.waves[1].on: no node is meant by \"@web and not @eu and not web1\"; the nodes are db1, web1, web2; the tags are @canary, @eu, @web",
            ),
            (
                waves(&["@canary", "db1"]),
                "rollout.waves: web2 is in no wave; add one with on = \"*\" for the rest",
            ),
            (
                waves(&["db1"]),
                "rollout.waves: web1, web2 are in no wave; add one with on = \"*\" for the rest",
            ),
            (
                waves(&["@canray", "*"]),
                "rollout.waves[0].on: no node matches \"@canray\"; the nodes are db1, web1, web2; the tags are @canary, @eu, @web",
            ),
            (json!({ "waves": [] }), "rollout.waves: there is none; leave it out for one wave of all nodes"),
            (
                json!({ "waves": [{ "on": "*", "order": ["web1", "wbe2"] }] }),
                "rollout.waves[0].order[1]: no node matches \"wbe2\"; the nodes are db1, web1, web2; the tags are @canary, @eu, @web",
            ),
            (
                json!({ "windows": [{ "on": "mail", "timeZone": "UTC" }] }),
                "rollout.windows[0].on: no node matches \"mail\"; the nodes are db1, web1, web2; the tags are @canary, @eu, @web",
            ),
            (
                json!({ "maxInFlight": 0 }),
                "rollout.maxInFlight: 0: no node would ever be worked on; use `driftless suspend` for that",
            ),
            (
                json!({ "waves": [{ "on": "*", "maxInFlight": 0 }] }),
                "rollout.waves[0].maxInFlight: 0: no node would ever be worked on; use `driftless suspend` for that",
            ),
        ] {
            assert_eq!(faults(&deployment(rollout, WEB)), [expected]);
        }
    }

    #[test]
    fn a_mistake_in_what_a_node_comes_after_is_said_with_its_place() {
        let nodes: &[(&str, &[&str], &[&str])] = &[
            ("db1", &["db"], &["web2"]),
            ("db2", &["db"], &["@db", "mail"]),
            ("web1", &["web"], &["db1"]),
            ("web2", &["web"], &["web1"]),
        ];
        assert_eq!(
            faults(&deployment(json!({}), nodes)),
            [
                "nodes.db2.after[0]: `@db` selects db2 itself",
                "nodes.db2.after[1]: no node matches \"mail\"; the nodes are db1, db2, web1, web2; the tags are @db, @web",
                "nodes.db1.after: each would wait for the other: db1 -> web2 -> web1 -> db1",
            ]
        );
        let nodes: &[(&str, &[&str], &[&str])] = &[("db1", &[], &[]), ("web1", &["web"], &["db1"])];
        assert_eq!(
            faults(&deployment(waves(&["@web", "*"]), nodes)),
            [
                "nodes.web1.after[0]: db1 is in wave 2 (`*`), which begins when web1, in wave 1 (`@web`), is done"
            ]
        );
    }

    #[test]
    fn what_a_node_that_did_not_evaluate_could_be_is_no_mistake() {
        let nodes: &[(&str, &[&str], &[&str])] = &[("db1", &[], &["@mail"]), ("web1?", &[], &[])];
        for rollout in [waves(&["@canary", "@web", "*"]), waves(&["@web and not @eu", "db*"])] {
            assert_eq!(faults(&deployment(rollout.clone(), nodes)), [""; 0], "{rollout}");
        }
        // What its name decides is.
        let found = faults(&deployment(waves(&["web*", "web1", "@canary or mail", "*"]), nodes));
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(
            found.iter().any(|fault| fault.starts_with("rollout.waves[1].on: web1 is in wave 1")),
            "{found:?}"
        );
        assert!(
            found.iter().any(|fault| fault.starts_with("rollout.waves[2].on: no node matches \"mail\"")),
            "{found:?}"
        );
    }

    #[test]
    fn a_disabled_node_may_be_named_but_is_in_no_wave() {
        let nodes: &[(&str, &[&str], &[&str])] = &[("db1", &[], &["old"]), ("old!", &["canary"], &[])];
        assert_eq!(faults(&deployment(waves(&["db1"]), nodes)), [""; 0]);
        assert_eq!(
            faults(&deployment(waves(&["old", "*"]), nodes)),
            ["rollout.waves[0].on: no node is left for wave 1 (`old`)"]
        );
        assert!(
            faults(&deployment(waves(&["@canary", "*"]), nodes))[0].contains("no node matches \"@canary\"")
        );
    }

    #[test]
    fn a_long_way_ends_and_its_circle_is_found() {
        let names: Vec<NodeName> = (0..1500).map(|at| format!("n{at:04}").parse().unwrap()).collect();
        let mut edges: BTreeMap<&NodeName, Vec<&NodeName>> =
            names.iter().enumerate().map(|(at, name)| (name, names.iter().skip(at + 1).collect())).collect();
        assert_eq!(cycle(&edges), None);
        edges.entry(&names[1499]).or_default().push(&names[1498]);
        assert_eq!(cycle(&edges), Some(vec![&names[1498], &names[1499], &names[1498]]));
    }
}
