//! Which wave each node of a release belongs to: the first that selects it.

use std::collections::BTreeSet;

use crate::model::name::{NodeName, Tag};
use crate::model::release::Release;
use crate::model::rollout::Wave;

/// The waves of a release and their nodes. A wave may be empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waves<'a> {
    /// By name, as they came.
    waves: Vec<Vec<&'a NodeName>>,
    /// The wave of each node, in the order of names.
    of: Vec<(&'a NodeName, Option<usize>)>,
    unknown: BTreeSet<&'a NodeName>,
}

impl<'a> Waves<'a> {
    /// Puts each node into its wave.
    pub fn of(release: &'a Release) -> Self {
        let nodes = release.nodes.iter();
        let nodes = nodes.map(|(name, node)| (name, node.spec.as_ref().map(|spec| &spec.tags)));
        Self::assign(&release.rollout.waves, nodes)
    }

    /// The same for nodes with their tags, as far as those are known, in the order of names. One selector is asked after the
    /// other only until one answers.
    pub fn assign(
        declared: &[Wave],
        nodes: impl Iterator<Item = (&'a NodeName, Option<&'a BTreeSet<Tag>>)>,
    ) -> Self {
        let (mut waves, mut unknown) = (vec![Vec::new(); declared.len()], BTreeSet::new());
        let mut of = Vec::new();
        for (name, tags) in nodes {
            let mut asked = declared.iter().map(|wave| wave.on.means(name, tags)).enumerate();
            let place = match asked.find(|(_, meant)| *meant != Some(false)) {
                Some((index, Some(_))) => {
                    waves[index].push(name);
                    Some(index)
                }
                Some((_, None)) => {
                    unknown.insert(name);
                    None
                }
                None => None,
            };
            of.push((name, place));
        }
        Self { waves, of, unknown }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.waves.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.waves.is_empty()
    }

    /// The wave of a node, from 0. `None`: it is in no wave, or in one of those that only its tags will tell.
    pub fn wave_of(&self, name: &NodeName) -> Option<usize> {
        let found = self.of.binary_search_by_key(&name, |(other, _)| other).ok()?;
        self.of[found].1
    }

    /// The wave of each node, in the order in which they were given.
    pub fn places(&self) -> impl Iterator<Item = Option<usize>> {
        self.of.iter().map(|(_, place)| *place)
    }

    /// The nodes of a wave, by name.
    pub fn nodes(&self, index: usize) -> impl ExactSizeIterator<Item = &'a NodeName> {
        self.waves.get(index).map_or(&[][..], Vec::as_slice).iter().copied()
    }

    /// The nodes whose wave depends on tags that are not known: they never evaluated.
    pub fn unknown(&self) -> &BTreeSet<&'a NodeName> {
        &self.unknown
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::model::release::{NodeRelease, Progress};
    use crate::model::rollout::RolloutSpec;
    use crate::model::sample;

    /// A fleet; a node with `?` has never been evaluated.
    fn release(waves: &[&str], nodes: &[(&str, &[&str])]) -> Release {
        let node = |(name, tags): &(&str, &[&str])| {
            let mut spec = sample::spec(name.trim_end_matches('?'));
            spec.tags = tags.iter().map(|tag| tag.parse().unwrap()).collect();
            let spec = (!name.ends_with('?')).then(|| Arc::new(spec));
            let node = NodeRelease { spec, progress: Progress::Evaluating, last_good: None };
            (name.trim_end_matches('?').parse().unwrap(), node)
        };
        let waves = waves.iter().map(|on| Wave { on: on.parse().unwrap(), ..Wave::default() }).collect();
        let rollout = RolloutSpec { waves, ..RolloutSpec::default() };
        Release { revision: None, nodes: nodes.iter().map(node).collect(), rollout }
    }

    fn told(waves: &Waves<'_>) -> Vec<String> {
        let names = |index| waves.nodes(index).map(ToString::to_string).collect::<Vec<_>>().join(" ");
        (0..waves.len()).map(names).collect()
    }

    #[test]
    fn a_node_belongs_to_the_first_wave_that_selects_it() {
        let nodes: [(&str, &[&str]); 4] =
            [("db1", &[]), ("mail", &["canary"]), ("web1", &["web", "canary"]), ("web2", &["web"])];
        let release = release(&["@canary", "@web", "*"], &nodes);
        let waves = Waves::of(&release);
        assert_eq!(told(&waves), ["mail web1", "web2", "db1"]);
        assert_eq!(waves.wave_of(&"web2".parse().unwrap()), Some(1));
        assert_eq!(waves.wave_of(&"nobody".parse().unwrap()), None);
        assert!(waves.unknown().is_empty());
    }

    #[test]
    fn a_node_without_known_tags_waits_where_they_would_decide() {
        let nodes: [(&str, &[&str]); 3] = [("db1?", &[]), ("web1?", &[]), ("web2", &["canary"])];
        let release = release(&["db*", "@canary", "*"], &nodes);
        let waves = Waves::of(&release);
        assert_eq!(told(&waves), ["db1", "web2", ""]);
        assert_eq!(waves.unknown().iter().map(|name| name.as_str()).collect::<Vec<_>>(), ["web1"]);
        assert_eq!(waves.wave_of(&"web1".parse().unwrap()), None);
    }

    #[test]
    fn a_node_that_no_wave_selects_is_in_none() {
        let release = release(&["db*"], &[("db1", &[]), ("web1", &[])]);
        let waves = Waves::of(&release);
        assert_eq!(told(&waves), ["db1"]);
        assert_eq!((waves.wave_of(&"web1".parse().unwrap()), waves.unknown().len()), (None, 0));
    }
}
