//! Reads `nix-store --query --graph`: what several store paths refer to, in one answer. Pure.

use std::collections::{HashMap, HashSet};

use crate::model::store_path::StorePath;

/// Which paths refer to which, by their names in the store (`HASH-NAME`).
///
/// Graphviz text, the same in Nix 2.8 and 2.26: `"HASH-NAME" [label = ...];` for each path, and
/// `"REFERENCE" -> "REFERRER" [color = ...];` for each reference of one path to another; a path's reference to itself is
/// left out (`printDotGraph` of Nix's `src/nix-store/dotgraph.cc`, later `src/nix/nix-store/dotgraph.cc`).
#[derive(Debug, Default)]
pub(super) struct Graph<'a> {
    paths: HashSet<&'a str>,
    references: HashMap<&'a str, Vec<&'a str>>,
}

/// What is left to do for one path.
enum Step<'a> {
    /// Its references first.
    Enter(&'a str),
    /// Then itself.
    Leave(&'a str),
}

impl<'a> Graph<'a> {
    /// Lines of any other kind say nothing: Nix may add some.
    pub(super) fn read(text: &'a str) -> Self {
        let mut graph = Self::default();
        for line in text.lines() {
            let Some((name, rest)) = quoted(line) else { continue };
            if rest.starts_with('[') {
                graph.paths.insert(name);
            } else if let Some((referrer, _)) = rest.strip_prefix("->").and_then(quoted) {
                graph.references.entry(referrer).or_default().push(name);
            }
        }
        graph
    }

    /// Everything that a path needs, itself included and without derivations; what is referred to comes first.
    ///
    /// # Errors
    ///
    /// What is wrong, for a person, where the answer lacks something or names what is no store path.
    pub(super) fn closure(&self, of: &StorePath) -> Result<Vec<StorePath>, String> {
        let Some((store, name)) = of.as_str().rsplit_once('/') else { return Err(of.to_string()) };
        let mut closure = Vec::new();
        let mut seen = HashSet::new();
        // No recursion: chains of references can be thousands long.
        let mut steps = vec![Step::Enter(name)];
        while let Some(step) = steps.pop() {
            match step {
                Step::Enter(name) if seen.contains(name) => {}
                Step::Enter(name) => {
                    let known = self.paths.get(name).ok_or_else(|| format!("a graph without {name}"))?;
                    seen.insert(*known);
                    steps.push(Step::Leave(known));
                    let references = self.references.get(name).into_iter().flatten();
                    steps.extend(references.map(|each| Step::Enter(each)));
                }
                // Systems that can rebuild themselves offline refer to derivations: text files of no size.
                Step::Leave(name) if name.ends_with(".drv") => {}
                Step::Leave(name) => {
                    closure.push(format!("{store}/{name}").parse().map_err(|_| name.to_owned())?);
                }
            }
        }
        Ok(closure)
    }
}

/// What is between the first two quotes of a text that begins with one, and what follows. Names of store paths have none.
fn quoted(text: &str) -> Option<(&str, &str)> {
    let (name, rest) = text.trim_start().strip_prefix('"')?.split_once('"')?;
    Some((name, rest.trim_start()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(name: &str) -> String {
        format!("{}-{name}", "a".repeat(32))
    }

    fn path(of: &str) -> StorePath {
        format!("/nix/store/{}", name(of)).parse().unwrap()
    }

    fn node(of: &str) -> String {
        format!(
            "\"{}\" [label = \"{of}\", shape = box, style = filled, fillcolor = \"#ff0000\"];\n",
            name(of)
        )
    }

    fn edge(reference: &str, referrer: &str) -> String {
        format!("\"{}\" -> \"{}\" [color = \"magenta\"];\n", name(reference), name(referrer))
    }

    /// Two systems that share libc; one of them refers to a derivation, and that to a source.
    fn two() -> String {
        let nodes: String = ["web", "db", "nginx", "libc", "web.drv", "source"].map(node).concat();
        let edges = [
            edge("nginx", "web"),
            edge("libc", "web"),
            edge("libc", "nginx"),
            edge("web.drv", "web"),
            edge("source", "web.drv"),
            edge("libc", "db"),
        ];
        format!("digraph G {{\n{nodes}{}}}\n", edges.concat())
    }

    fn closure(text: &str, of: &str) -> Result<Vec<String>, String> {
        let closure = Graph::read(text).closure(&path(of))?;
        Ok(closure.iter().map(|path| path.name().to_owned()).collect())
    }

    #[test]
    fn each_system_has_its_own_closure_and_what_is_referred_to_comes_first() {
        let web = closure(&two(), "web").unwrap();
        let place = |name: &str| web.iter().position(|each| each == name).unwrap();
        assert_eq!(web.len(), 4, "{web:?}");
        assert!(place("libc") < place("nginx") && place("nginx") < place("web") && place("source") < 3);
        assert_eq!(closure(&two(), "db").unwrap(), ["libc", "db"]);
        assert_eq!(closure(&two(), "libc").unwrap(), ["libc"]);
    }

    #[test]
    fn the_words_of_nix_2_8_are_understood() {
        // 2.26 prints the same bytes.
        let text = r##"digraph G {
"y39zryjaq3fk3yrhwp5p2190m2dv70zh-cl-a" [label = "cl-a", shape = box, style = filled, fillcolor = "#ff0000"];
"6w64frsygay404jb2cai3qgsml6bq6aw-cl-mid" -> "y39zryjaq3fk3yrhwp5p2190m2dv70zh-cl-a" [color = "black"];
"ksslzqjsah5w830gwmnkyld34clm0gbd-cl-base" -> "y39zryjaq3fk3yrhwp5p2190m2dv70zh-cl-a" [color = "red"];
"6w64frsygay404jb2cai3qgsml6bq6aw-cl-mid" [label = "cl-mid", shape = box, style = filled, fillcolor = "#ff0000"];
"ksslzqjsah5w830gwmnkyld34clm0gbd-cl-base" -> "6w64frsygay404jb2cai3qgsml6bq6aw-cl-mid" [color = "green"];
"ksslzqjsah5w830gwmnkyld34clm0gbd-cl-base" [label = "cl-base", shape = box, style = filled, fillcolor = "#ff0000"];
}
"##;
        let system = "/nix/store/y39zryjaq3fk3yrhwp5p2190m2dv70zh-cl-a".parse().unwrap();
        let closure = Graph::read(text).closure(&system).unwrap();
        let names: Vec<_> = closure.iter().map(StorePath::name).collect();
        assert_eq!(names, ["cl-base", "cl-mid", "cl-a"]);
    }

    #[test]
    fn other_lines_and_other_orders_change_nothing() {
        let mut lines: Vec<String> = two().lines().map(str::to_owned).collect();
        lines.reverse();
        let odd = [
            "",
            "rankdir = LR;",
            "\"",
            "\"half",
            "\"a\" -> ",
            "\"a\" -> \"b",
            "\"a\" -- \"b\";",
            "// \"x\" [];",
        ];
        lines.extend(odd.map(str::to_owned));
        let web: HashSet<String> = closure(&lines.join("\n"), "web").unwrap().into_iter().collect();
        assert_eq!(web, closure(&two(), "web").unwrap().into_iter().collect());
    }

    #[test]
    fn an_answer_that_lacks_a_path_is_none() {
        assert_eq!(closure(&two(), "mail"), Err(format!("a graph without {}", name("mail"))));
        assert_eq!(closure("", "web"), Err(format!("a graph without {}", name("web"))));
        let half = two().replace(&node("libc"), "");
        assert_eq!(closure(&half, "web"), Err(format!("a graph without {}", name("libc"))));
    }

    #[test]
    fn what_is_no_store_path_is_told() {
        let text = format!("{}\"x\" [label = \"x\"];\n\"x\" -> \"{}\";\n", node("web"), name("web"));
        assert_eq!(closure(&text, "web"), Err("x".into()));
    }

    #[test]
    fn circles_and_long_chains_come_to_an_end() {
        let circle = [node("a"), node("b"), edge("a", "b"), edge("b", "a"), edge("a", "a")].concat();
        assert_eq!(closure(&circle, "a").unwrap().len(), 2);
        let chain: String = (0..100_000)
            .map(|at| node(&at.to_string()) + &edge(&(at + 1).to_string(), &at.to_string()))
            .chain([node("100000")])
            .collect();
        assert_eq!(closure(&chain, "0").unwrap().len(), 100_001);
    }
}
