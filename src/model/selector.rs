//! Which nodes are meant: `--on` of the command line, waves, windows. Pure text matching; knows nothing of what is done with
//! them.
//!
//! ```text
//! web1              the node of that name
//! web*, db?         globs: `*` is any text, `?` any one character
//! @canary           nodes with that tag; globs too: @eu-*
//! a, b    a or b    any of them
//! a and b           both of them
//! not a             all others
//! ( )               first
//! ```
//!
//! `not` binds more than `and`, `and` more than `or` and `,`. A node that is called `and`, `or` or `not` is written in quotes.

mod parser;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::glob;
use super::name::{NodeName, Tag};

/// How many names an error lists before it says "and N more".
const NAMED_IN_ERROR: usize = 20;

/// Says of each node whether it is meant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Selector {
    expression: Expression,
}

/// `Any` and `All` have at least two parts, none of them of the same kind: what reads the same is the same.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Expression {
    Term(Term),
    Not(Box<Expression>),
    All(Vec<Expression>),
    Any(Vec<Expression>),
}

/// A name, a glob or a tag.
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
    /// Nothing where a part has to be.
    #[error(
        "the selector {selector:?} has an empty part at character {at}; write names, globs or @tags, joined by `,`, `and`, \
         `or` and `not`"
    )]
    Empty {
        /// The whole.
        selector: String,
        /// Where.
        at: usize,
    },
    /// A character that neither names nor wildcards have, or two parts with nothing between them.
    #[error(
        "{part:?} at character {at} of the selector {selector:?} is neither a name, a glob (`web*`) nor a tag (`@canary`); \
         parts are joined by `,`, `and`, `or` and `not`"
    )]
    NotATerm {
        /// The part.
        part: String,
        /// Where.
        at: usize,
        /// The whole.
        selector: String,
    },
    /// A `(` without its `)`.
    #[error("the parenthesis at character {at} of the selector {selector:?} is never closed")]
    Unclosed {
        /// The whole.
        selector: String,
        /// Where.
        at: usize,
    },
    /// A `)` without its `(`.
    #[error("the parenthesis at character {at} of the selector {selector:?} closes nothing")]
    Unopened {
        /// The whole.
        selector: String,
        /// Where.
        at: usize,
    },
    /// Nobody means this.
    #[error("the selector {selector:?} has more than {deepest} parentheses or `not`s within each other")]
    TooDeep {
        /// The whole.
        selector: String,
        /// How many may be.
        deepest: usize,
    },
    /// A part that matches nothing: a typo must not silently act on less than was meant.
    #[error("no node matches {term:?}; {known}")]
    NoMatch {
        /// The part.
        term: String,
        /// What could have been meant.
        known: Known,
    },
    /// Each part matches, the whole does not.
    #[error("no node is meant by {selector:?}; {known}")]
    Nobody {
        /// The whole.
        selector: String,
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
        Ok(Self { expression: parser::parse(text)? })
    }
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
        match &self.expression {
            // A plain list, as most people write it.
            Expression::Any(parts) if parts.iter().all(|part| matches!(part, Expression::Term(_))) => {
                joined(f, parts, ",")
            }
            expression @ (Expression::Term(_)
            | Expression::Not(_)
            | Expression::All(_)
            | Expression::Any(_)) => write!(f, "{expression}"),
        }
    }
}

fn joined(f: &mut fmt::Formatter<'_>, parts: &[Expression], by: &str) -> fmt::Result {
    for (at, part) in parts.iter().enumerate() {
        write!(f, "{}{part}", if at == 0 { "" } else { by })?;
    }
    Ok(())
}

impl fmt::Display for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Term(term) => write!(f, "{term}"),
            Self::Not(inner) => match **inner {
                Self::All(_) | Self::Any(_) => write!(f, "not ({inner})"),
                Self::Term(_) | Self::Not(_) => write!(f, "not {inner}"),
            },
            Self::All(parts) => {
                for (at, part) in parts.iter().enumerate() {
                    f.write_str(if at == 0 { "" } else { " and " })?;
                    match part {
                        Self::Any(_) => write!(f, "({part})")?,
                        Self::Term(_) | Self::Not(_) | Self::All(_) => write!(f, "{part}")?,
                    }
                }
                Ok(())
            }
            Self::Any(parts) => joined(f, parts, " or "),
        }
    }
}

impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) if parser::is_reserved(name) => write!(f, "\"{name}\""),
            Self::Name(pattern) => f.write_str(pattern),
            Self::Tag(pattern) => write!(f, "@{pattern}"),
        }
    }
}

impl Term {
    /// `None` where that depends on tags that are not known.
    fn matches(&self, node: &NodeName, tags: Option<&BTreeSet<Tag>>) -> Option<bool> {
        match self {
            Self::Name(pattern) => Some(glob::matches(pattern, node.as_str())),
            Self::Tag(pattern) => Some(tags?.iter().any(|tag| glob::matches(pattern, tag.as_str()))),
        }
    }
}

impl Expression {
    fn any(parts: Vec<Self>) -> Self {
        let flat = parts.into_iter().flat_map(|part| match part {
            Self::Any(parts) => parts,
            part @ (Self::Term(_) | Self::Not(_) | Self::All(_)) => vec![part],
        });
        Self::single(flat.collect()).unwrap_or_else(Self::Any)
    }

    fn all(parts: Vec<Self>) -> Self {
        let flat = parts.into_iter().flat_map(|part| match part {
            Self::All(parts) => parts,
            part @ (Self::Term(_) | Self::Not(_) | Self::Any(_)) => vec![part],
        });
        Self::single(flat.collect()).unwrap_or_else(Self::All)
    }

    /// The only part of one; else the parts.
    fn single(parts: Vec<Self>) -> Result<Self, Vec<Self>> {
        <[Self; 1]>::try_from(parts).map(|[part]| part)
    }

    fn matches(&self, node: &NodeName, tags: Option<&BTreeSet<Tag>>) -> Option<bool> {
        // One part that is `decisive` decides; else one that is not known leaves the whole unknown.
        let over = |parts: &[Self], decisive: bool| {
            let mut all_known = true;
            for part in parts {
                match part.matches(node, tags) {
                    Some(answer) if answer == decisive => return Some(decisive),
                    Some(_) => {}
                    None => all_known = false,
                }
            }
            all_known.then_some(!decisive)
        };
        match self {
            Self::Term(term) => term.matches(node, tags),
            Self::Not(inner) => inner.matches(node, tags).map(|matches| !matches),
            Self::All(parts) => over(parts, false),
            Self::Any(parts) => over(parts, true),
        }
    }

    /// In the order in which they are written.
    fn terms(&self) -> Vec<&Term> {
        match self {
            Self::Term(term) => vec![term],
            Self::Not(inner) => inner.terms(),
            Self::All(parts) | Self::Any(parts) => parts.iter().flat_map(Self::terms).collect(),
        }
    }
}

impl Selector {
    /// The selector `*`.
    pub fn everything() -> Self {
        Self { expression: Expression::Term(Term::Name("*".into())) }
    }

    /// Exactly this node. (Names have no wildcards.)
    pub fn node(name: &NodeName) -> Self {
        Self { expression: Expression::Term(Term::Name(name.to_string())) }
    }

    /// Whether this node is meant.
    pub fn matches(&self, node: &NodeName, tags: &BTreeSet<Tag>) -> bool {
        self.means(node, Some(tags)).unwrap_or(false)
    }

    /// Whether this node is meant, whose tags may not be known; `None` where that depends on them.
    pub fn means(&self, node: &NodeName, tags: Option<&BTreeSet<Tag>>) -> Option<bool> {
        self.expression.matches(node, tags)
    }

    /// Whether tags must be known to answer; names are much cheaper to evaluate.
    pub fn needs_tags(&self) -> bool {
        self.expression.terms().iter().any(|term| match term {
            Term::Tag(_) => true,
            Term::Name(_) => false,
        })
    }

    /// The nodes that are meant. Each part must match at least one node, also under `not`, and some node must be meant; `*`
    /// may mean an empty fleet.
    pub fn select(
        &self,
        fleet: &BTreeMap<NodeName, BTreeSet<Tag>>,
    ) -> Result<BTreeSet<NodeName>, SelectionError> {
        let fleet = fleet.iter().map(|(node, tags)| (node, Some(tags))).collect();
        self.has_meaning(&fleet)?;
        let meant = fleet.iter().filter(|(node, tags)| self.means(node, **tags) == Some(true));
        Ok(meant.map(|(node, _)| (*node).clone()).collect())
    }

    /// That each part matches a node, and the whole means one. A node whose tags are not known, `None`, may have any.
    pub fn has_meaning(
        &self,
        fleet: &BTreeMap<&NodeName, Option<&BTreeSet<Tag>>>,
    ) -> Result<(), SelectionError> {
        if *self == Self::everything() {
            return Ok(());
        }
        let matched = |term: &Term| match term {
            // Most parts of most selectors: no walk over the fleet.
            Term::Name(name) if !glob::is_pattern(name) => {
                name.parse().is_ok_and(|name: NodeName| fleet.contains_key(&name))
            }
            Term::Name(_) | Term::Tag(_) => {
                fleet.iter().any(|(node, tags)| term.matches(node, *tags) != Some(false))
            }
        };
        if let Some(term) = self.expression.terms().into_iter().find(|term| !matched(term)) {
            return Err(SelectionError::NoMatch { term: term.to_string(), known: Known::of(fleet) });
        }
        if fleet.iter().any(|(node, tags)| self.means(node, *tags) != Some(false)) {
            return Ok(());
        }
        Err(SelectionError::Nobody { selector: self.to_string(), known: Known::of(fleet) })
    }
}

impl Known {
    fn of(fleet: &BTreeMap<&NodeName, Option<&BTreeSet<Tag>>>) -> Self {
        let tags: BTreeSet<&Tag> = fleet.values().flatten().copied().flatten().collect();
        Self {
            nodes: fleet.keys().map(ToString::to_string).collect(),
            tags: tags.into_iter().map(|tag| format!("@{tag}")).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

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
    fn words_and_parentheses_combine_parts() {
        for (text, expected) in [
            ("@web and not web1", vec!["web2"]),
            ("not @web", vec!["db1", "mail"]),
            ("not not @web", vec!["web1", "web2"]),
            ("@web and not (web1 or db*)", vec!["web2"]),
            ("not(web1,web2)", vec!["db1", "mail"]),
            ("* and not @web or web1", vec!["db1", "mail", "web1"]),
            ("web1 or @web and not web1", vec!["web1", "web2"]),
            ("web1, @web and not web1", vec!["web1", "web2"]),
            ("(db1 or @web) and (web2 or mail)", vec!["web2"]),
        ] {
            assert_eq!(on(text).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn a_part_that_matches_nothing_is_refused_under_not_too() {
        assert!(on("* and not wbe1").unwrap_err().starts_with("no node matches \"wbe1\""));
        let error = on("@web and db1").unwrap_err();
        assert!(error.starts_with("no node is meant by \"@web and db1\"; the nodes are db1, "), "{error}");
    }

    #[test]
    fn an_error_says_where_it_is() {
        for (text, expected) in [
            ("web1,,db1", "the selector \"web1,,db1\" has an empty part at character 6; "),
            ("web1 and", "the selector \"web1 and\" has an empty part at character 9; "),
            ("or web1", "the selector \"or web1\" has an empty part at character 1; "),
            ("web1 and ()", "the selector \"web1 and ()\" has an empty part at character 11; "),
            ("web1, @", "the selector \"web1, @\" has an empty part at character 8; "),
            ("web1 and not", "the selector \"web1 and not\" has an empty part at character 13; "),
            ("db1, ä/b", "\"ä/b\" at character 6 of the selector \"db1, ä/b\" is neither a name"),
            ("db1, web1  not web2", "\"web1  not\" at character 6 of the selector "),
            ("(db1) web1", "\"(db1) web1\" at character 1 of the selector "),
            (
                "web1 and (db1",
                "the parenthesis at character 10 of the selector \"web1 and (db1\" is never closed",
            ),
            ("ä, db1) or web1", "\"ä\" at character 1"),
            ("web1, db1) or web1", "the parenthesis at character 10 of the selector "),
            ("\"not", "\"\\\"not\" at character 1 of the selector "),
        ] {
            let error = on(text).unwrap_err();
            assert!(error.starts_with(expected), "{text}: {error}");
        }
        let error = format!("{}web1", "not ".repeat(1000)).parse::<Selector>().unwrap_err().to_string();
        assert!(error.ends_with("has more than 32 parentheses or `not`s within each other"), "{error}");
    }

    #[test]
    fn a_node_with_the_name_of_a_word_is_quoted() {
        let name: NodeName = "not".parse().unwrap();
        let selector = Selector::node(&name);
        assert_eq!(selector.to_string(), "\"not\"");
        assert_eq!(selector.to_string().parse(), Ok(selector.clone()));
        assert!(selector.matches(&name, &BTreeSet::new()));
        assert!("@not, no".parse::<Selector>().is_ok());
    }

    #[test]
    fn what_tags_do_not_decide_is_known_without_them() {
        let web1: NodeName = "web1".parse().unwrap();
        for (text, expected) in [
            ("web1 or @a", Some(true)),
            ("db1 or @a", None),
            ("db1 and @a", Some(false)),
            ("web1 and @a", None),
            ("not @a", None),
            ("not (@a or web1)", Some(false)),
            ("not (@a and db1)", Some(true)),
        ] {
            assert_eq!(text.parse::<Selector>().unwrap().means(&web1, None), expected, "{text}");
        }
    }

    fn expression() -> impl Strategy<Value = Expression> {
        let name = prop_oneof![Just("and".to_owned()), Just("not".to_owned()), "[a-z0-9*?._-]{1,5}"];
        let term = prop_oneof![
            name.prop_map(|name| Expression::Term(Term::Name(name))),
            "[a-z0-9*?._-]{1,5}".prop_map(|tag| Expression::Term(Term::Tag(tag))),
        ];
        term.prop_recursive(5, 40, 4, |inner| {
            prop_oneof![
                inner.clone().prop_map(|inner| Expression::Not(Box::new(inner))),
                proptest::collection::vec(inner.clone(), 1..4).prop_map(Expression::any),
                proptest::collection::vec(inner, 1..4).prop_map(Expression::all),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_written_reads_as_the_same(expression in expression()) {
            let selector = Selector { expression };
            let written = selector.to_string();
            prop_assert_eq!(written.parse(), Ok(selector), "{}", written);
        }

        #[test]
        fn any_text_is_a_selector_or_an_error(text in "[a-z@*?,() \"ä]{0,30}|(and|or|not|[ab()@,]| ){0,30}") {
            match text.parse::<Selector>() {
                Ok(selector) => prop_assert_eq!(selector.to_string().parse(), Ok(selector)),
                Err(error) => prop_assert!(!error.to_string().is_empty()),
            }
        }

        #[test]
        fn what_is_known_without_tags_does_not_depend_on_them(expression in expression(), tags in "[a-z]") {
            let selector = Selector { expression };
            let name: NodeName = "web1".parse().unwrap();
            if let Some(known) = selector.means(&name, None) {
                prop_assert_eq!(selector.matches(&name, &BTreeSet::new()), known);
                prop_assert_eq!(selector.matches(&name, &BTreeSet::from([tags.parse().unwrap()])), known);
            }
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
