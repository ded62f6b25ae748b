//! stub
use std::collections::{BTreeMap, BTreeSet};
use crate::model::name::NodeName;
use crate::model::release::Release;
/// stub
pub struct Waves { of: BTreeMap<NodeName, usize>, nodes: Vec<Vec<NodeName>>, unknown: BTreeSet<NodeName> }
impl Waves {
    /// stub
    pub fn of(release: &Release) -> Self {
        let mut it = Self { of: BTreeMap::new(), nodes: vec![Vec::new(); release.rollout.waves.len()], unknown: BTreeSet::new() };
        for (name, node) in &release.nodes {
            for (number, wave) in release.rollout.waves.iter().enumerate() {
                let Some(spec) = &node.spec else {
                    if wave.on.needs_tags() { it.unknown.insert(name.clone()); break; }
                    if wave.on.matches(name, &BTreeSet::new()) { it.of.insert(name.clone(), number); it.nodes[number].push(name.clone()); break; }
                    continue
                };
                if wave.on.matches(name, &spec.tags) { it.of.insert(name.clone(), number); it.nodes[number].push(name.clone()); break; }
            }
        }
        it
    }
    /// stub
    pub fn wave_of(&self, name: &NodeName) -> Option<usize> { self.of.get(name).copied() }
    /// stub
    pub fn nodes(&self, number: usize) -> impl Iterator<Item = &NodeName> { self.nodes[number].iter() }
    /// stub
    pub fn unknown(&self) -> &BTreeSet<NodeName> { &self.unknown }
}
