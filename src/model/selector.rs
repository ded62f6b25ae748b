//! Which nodes a person means: `--on web1,db*,@canary`. Pure text matching; knows nothing of what a verb does with them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::glob;
use super::name::{NodeName, Tag};

/// How many names an error lists before it says "and N more".
const NAMED_IN_ERROR: usize = 20;

/// Names, globs and `@tag`s, separated by commas: a node is meant when any of them matches.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Selector {
    terms: Vec<Term>,
}

impl TryFrom<String> for Selector {
    type Error = SelectionError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Selector> for String {
    fn from(selector: Selector) -> Self {
        selector.to_string()
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let terms: Vec<String> = self.terms.iter().map(ToString::to_string).collect();
        f.write_str(&terms.join(","))
    }
}

/// One part between commas.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Term {
    /// A node's name, `*` and `?` being wildcards.
    Name(String),
    /// A tag, wildcards allowed.
    Tag(String),
}

/// A selector that is not well formed, or that means no node.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SelectionError {
    /// Two commas in a row, or nothing at all.
    #[error("the selector {0:?} has an empty part; write names, globs or @tags separated by commas")]
    Empty(String),
    /// A character that neither names nor wildcards have.
    #[error("{0:?} in the selector is neither a name, a glob (`web*`) nor a tag (`@canary`)")]
    NotATerm(String),
    /// A part that matches nothing: a typo must not silently act on less than was meant.
    #[error("no node matches {term:?}; {known}")]
    NoMatch {
        /// The part.
        term: String,
        /// What could have been meant.
        known: Known,
    },
}

/// The names that a selector could have meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    nodes: Vec<String>,
    tags: Vec<String>,
}

impl fmt::Display for Known {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nodes.is_empty() {
            return f.write_str("the fleet has no nodes");
        }
        write!(f, "the nodes are {}", bounded(&self.nodes))?;
        if self.tags.is_empty() { Ok(()) } else { write!(f, "; the tags are {}", bounded(&self.tags)) }
    }
}

fn bounded(names: &[String]) -> String {
    let mut text = names.iter().take(NAMED_IN_ERROR).cloned().collect::<Vec<_>>().join(", ");
    if names.len() > NAMED_IN_ERROR {
        text.push_str(&format!(" and {} more", names.len() - NAMED_IN_ERROR));
    }
    text
}

impl FromStr for Selector {
    type Err = SelectionError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let part = |part: &str| {
            let part = part.trim();
            let pattern = part.strip_prefix('@').unwrap_or(part);
            let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '*' | '?');
            if pattern.is_empty() {
                Err(SelectionError::Empty(text.to_owned()))
            } else if !pattern.chars().all(plain) {
                Err(SelectionError::NotATerm(part.to_owned()))
            } else if part.starts_with('@') {
                Ok(Term::Tag(pattern.to_owned()))
            } else {
                Ok(Term::Name(pattern.to_owned()))
            }
        };
        Ok(Self { terms: text.split(',').map(part).collect::<Result<_, _>>()? })
    }
}

impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(pattern) => f.write_str(pattern),
            Self::Tag(pattern) => write!(f, "@{pattern}"),
        }
    }
}

impl Term {
    fn matches(&self, node: &NodeName, tags: &BTreeSet<Tag>) -> bool {
        match self {
            Self::Name(pattern) => glob::matches(pattern, node.as_str()),
            Self::Tag(pattern) => tags.iter().any(|tag| glob::matches(pattern, tag.as_str())),
        }
    }
}

impl Selector {
    /// The selector `*`.
    pub fn everything() -> Self {
        Self { terms: vec![Term::Name("*".into())] }
    }

    /// Exactly this node. (Names have no wildcards.)
    pub fn node(name: &NodeName) -> Self {
        Self { terms: vec![Term::Name(name.to_string())] }
    }

    /// Whether this node is meant.
    pub fn matches(&self, node: &NodeName, tags: &BTreeSet<Tag>) -> bool {
        self.terms.iter().any(|term| term.matches(node, tags))
    }

    /// Whether tags must be known to answer; names are much cheaper to evaluate.
    pub fn needs_tags(&self) -> bool {
        self.terms.iter().any(|term| match term {
            Term::Tag(_) => true,
            Term::Name(_) => false,
        })
    }

    /// The nodes that are meant. Each part must mean at least one, except that `*` may mean an empty fleet.
    pub fn select(
        &self,
        fleet: &BTreeMap<NodeName, BTreeSet<Tag>>,
    ) -> Result<BTreeSet<NodeName>, SelectionError> {
        let mut chosen = BTreeSet::new();
        for term in &self.terms {
            let meant: BTreeSet<&NodeName> =
                fleet.iter().filter(|(node, tags)| term.matches(node, tags)).map(|(node, _)| node).collect();
            if meant.is_empty() && *self != Self::everything() {
                return Err(SelectionError::NoMatch { term: term.to_string(), known: Known::of(fleet) });
            }
            chosen.extend(meant.into_iter().cloned());
        }
        Ok(chosen)
    }
}

impl Known {
    fn of(fleet: &BTreeMap<NodeName, BTreeSet<Tag>>) -> Self {
        let tags: BTreeSet<&Tag> = fleet.values().flatten().collect();
        Self {
            nodes: fleet.keys().map(ToString::to_string).collect(),
            tags: tags.into_iter().map(|tag| format!("@{tag}")).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fleet() -> BTreeMap<NodeName, BTreeSet<Tag>> {
        [("web1", vec!["web", "canary"]), ("web2", vec!["web"]), ("db1", vec![]), ("mail", vec!["eu"])]
            .into_iter()
            .map(|(node, tags)| {
                (node.parse().unwrap(), tags.into_iter().map(|tag| tag.parse().unwrap()).collect())
            })
            .collect()
    }

    fn on(text: &str) -> Result<Vec<String>, String> {
        let selector: Selector = text.parse().map_err(|error: SelectionError| error.to_string())?;
        let nodes = selector.select(&fleet()).map_err(|error| error.to_string())?;
        Ok(nodes.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn names_globs_and_tags_add_up() {
        assert_eq!(on("db1").unwrap(), ["db1"]);
        assert_eq!(on("web*").unwrap(), ["web1", "web2"]);
        assert_eq!(on("@web, mail").unwrap(), ["mail", "web1", "web2"]);
        assert_eq!(on("?b1,@can*").unwrap(), ["db1", "web1"]);
        assert_eq!(on("*").unwrap().len(), 4);
    }

    #[test]
    fn a_part_that_matches_nothing_names_what_there_is() {
        let expected =
            "no node matches \"wbe1\"; the nodes are db1, mail, web1, web2; the tags are @canary, @eu, @web";
        assert_eq!(on("web2,wbe1").unwrap_err(), expected);
        assert!(on("@nope").unwrap_err().starts_with("no node matches \"@nope\""));
    }

    #[test]
    fn a_malformed_selector_is_refused_before_anything_is_evaluated() {
        for bad in ["", "web1,,db1", "@", ","] {
            assert!(on(bad).unwrap_err().contains("empty part"), "{bad:?}");
        }
        for bad in ["web1 db1", "a/b", "@@x", "!web"] {
            assert!(on(bad).unwrap_err().contains("neither a name"), "{bad:?}");
        }
    }

    #[test]
    fn everything_means_an_empty_fleet_too() {
        assert_eq!(Selector::everything().select(&BTreeMap::new()), Ok(BTreeSet::new()));
        let error = "web1".parse::<Selector>().unwrap().select(&BTreeMap::new()).unwrap_err();
        assert_eq!(error.to_string(), "no node matches \"web1\"; the fleet has no nodes");
    }

    #[test]
    fn stars_may_be_anywhere() {
        for (pattern, text, matches) in [
            ("a*b*c", "axxbyyc", true),
            ("a*b*c", "axxbyy", false),
            ("*1", "web1", true),
            ("**", "", true),
            ("w?b", "wb", false),
        ] {
            assert_eq!(glob::matches(pattern, text), matches, "{pattern} {text}");
        }
    }
}
