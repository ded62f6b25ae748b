//! Which files an evaluator says it reads, picked out of its log. Pure text.
//!
//! Seen with Nix 2.8 and 2.26 and `-vv`: `evaluating file 'PATH'` for what is imported, `copied source 'PATH' -> 'STORE PATH'`
//! for what becomes an input of a derivation. What `readFile`, `readDir` and `pathExists` look at is not told.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::message::plain;

/// Verbosity that tells them.
pub(super) const VERBOSE: &str = "-vv";

/// Lines of an evaluator that are only there because of `VERBOSE`; no person wants to see them.
const CHATTER: [&str; 8] = [
    "evaluating file '",
    "copied source '",
    "copying '",
    "instantiated '",
    "performing daemon worker op",
    "did not find cache entry",
    "using cache entry",
    "source path '",
];

/// Listens to an evaluator.
#[derive(Debug)]
pub(super) struct Reading {
    /// The top of the repository; of a flake it is where the first `flake.nix` is.
    top: Option<PathBuf>,
    paths: BTreeSet<String>,
}

impl Reading {
    /// Of a repository whose files are there, or of a flake.
    pub(super) fn of(top: Option<&Path>) -> Self {
        Self { top: top.map(Path::to_owned), paths: BTreeSet::new() }
    }

    /// Takes in a line. Returns whether it is for people.
    pub(super) fn hear(&mut self, line: &str) -> bool {
        let line = plain(line);
        let Some(kind) = CHATTER.iter().find(|kind| line.starts_with(**kind)) else { return true };
        if let ["evaluating file '" | "copied source '"] = [*kind]
            && let Some((path, _)) = line[kind.len()..].split_once('\'')
        {
            self.read(Path::new(path));
        }
        false
    }

    fn read(&mut self, path: &Path) {
        if self.top.is_none() && path.file_name().is_some_and(|name| name == "flake.nix") {
            self.top = path.parent().map(Path::to_owned);
        }
        let below = self.top.as_ref().and_then(|top| path.strip_prefix(top).ok());
        self.paths.extend(below.map(|path| path.to_string_lossy().into_owned()));
    }

    /// What was read of the repository, relative to its top.
    pub(super) fn paths(self) -> BTreeSet<String> {
        self.paths
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(top: Option<&str>, log: &str) -> Vec<String> {
        let mut reading = Reading::of(top.map(Path::new));
        assert_eq!(log.lines().filter(|line| reading.hear(line)).count(), 1, "one line is for people");
        reading.paths().into_iter().collect()
    }

    #[test]
    fn what_is_imported_or_copied_from_the_repository_is_read() {
        let log = "evaluating file '/nix/derivations.nix'\nevaluating file '/s/checkouts/c/deployment.nix'\n\
                   copied source '/s/checkouts/c/hosts/web/files' -> '/nix/store/x-files'\n\
                   copying '/s/checkouts/c/other' to the store...\ninstantiated 'web' -> '/nix/store/x-web.drv'\n\
                   evaluating file '/s/checkouts/cc/foreign.nix'\nwarning: it is late";
        assert_eq!(paths(Some("/s/checkouts/c"), log), ["deployment.nix", "hosts/web/files"]);
    }

    #[test]
    fn a_flakes_own_files_are_those_beside_the_first_flake_file() {
        let log = "evaluating file '/m/manifest.nix'\nevaluating file '/nix/store/a-source/flake.nix'\n\
                   evaluating file '/nix/store/b-source/flake.nix'\nevaluating file '/nix/store/a-source/hosts/web.nix'\nx";
        assert_eq!(paths(None, log), ["flake.nix", "hosts/web.nix"]);
    }

    #[test]
    fn a_repository_that_is_copied_as_a_whole_is_read_as_a_whole() {
        assert_eq!(paths(Some("/c"), "copied source '/c' -> '/nix/store/x-c'\nx"), [""]);
    }
}
