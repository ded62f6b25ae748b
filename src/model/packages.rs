//! Which packages differ between two closures, told by the names of their store paths. Pure; reads no store.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use super::store_path::StorePath;

/// Outputs that nixpkgs gives a package beside its main one; they are not packages of their own. (nixpkgs manual,
/// "Multiple-output packages".)
const OUTPUTS: [&str; 15] = [
    "bin", "debug", "dev", "devdoc", "devman", "doc", "dist", "getent", "info", "lib", "libgcc", "man",
    "mount", "out", "static",
];

/// What changes from one closure to another.
///
/// In a snapshot the direction is always from what a node runs to what it should run: what a deployment would do. A
/// report that tells what somebody did to a node shows it [`reversed`](Self::reversed).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PackageDiff {
    /// Only in the new closure: name and versions.
    pub added: BTreeMap<String, Vec<String>>,
    /// Only in the old closure: name and versions.
    pub removed: BTreeMap<String, Vec<String>>,
    /// In both, in other versions.
    pub changed: BTreeMap<String, VersionChange>,
    /// Packages of the same name and version that were built differently.
    pub rebuilt: usize,
    /// Names without a version (units, scripts, files of `/etc`) that are new, gone or different.
    pub files: usize,
}

/// The versions of one package before and after, oldest first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionChange {
    /// Before.
    pub from: Vec<String>,
    /// After.
    pub to: Vec<String>,
}

/// Splits the name of a store path into package name and version, as `builtins.parseDrvName` does: the version starts
/// after the first dash that is not followed by a letter. Without such a dash there is no version.
pub fn name_and_version(name: &str) -> (&str, Option<&str>) {
    let bytes = name.as_bytes();
    let dash = (0..bytes.len())
        .find(|&at| bytes[at] == b'-' && bytes.get(at + 1).is_some_and(|next| !next.is_ascii_alphabetic()));
    dash.map_or((name, None), |at| (&name[..at], Some(&name[at + 1..])))
}

/// The version without the output's name at its end: `9.8p1-man` is `9.8p1`.
fn without_output(version: &str) -> &str {
    match version.rsplit_once('-') {
        Some((rest, output)) if OUTPUTS.contains(&output) => rest,
        Some(_) | None => version,
    }
}

/// name → version → hashes.
type Index<'a> = BTreeMap<&'a str, BTreeMap<&'a str, BTreeSet<&'a str>>>;

fn index(closure: &[StorePath]) -> Index<'_> {
    let mut index = Index::new();
    for path in closure {
        // The system itself is what is being compared, not one of its packages.
        if path.name().starts_with("nixos-system-") {
            continue;
        }
        let (name, version) = name_and_version(path.name());
        let version = version.map_or("", without_output);
        index.entry(name).or_default().entry(version).or_default().insert(path.hash());
    }
    index
}

fn versions(of: &BTreeMap<&str, BTreeSet<&str>>) -> Vec<String> {
    of.keys().filter(|version| !version.is_empty()).map(|version| (*version).to_owned()).collect()
}

impl PackageDiff {
    /// Compares two closures.
    pub fn between(from: &[StorePath], to: &[StorePath]) -> Self {
        let (from, to) = (index(from), index(to));
        let mut diff = Self::default();
        let names: BTreeSet<&str> = from.keys().chain(to.keys()).copied().collect();
        let none = BTreeMap::new();
        for name in names {
            diff.compare(name, from.get(name).unwrap_or(&none), to.get(name).unwrap_or(&none));
        }
        diff
    }

    fn compare(
        &mut self,
        name: &str,
        from: &BTreeMap<&str, BTreeSet<&str>>,
        to: &BTreeMap<&str, BTreeSet<&str>>,
    ) {
        if from.get("") != to.get("") {
            self.files += 1;
        }
        let (old, new) = (versions(from), versions(to));
        if old == new {
            let rebuilt = |version: &&String| from.get(version.as_str()) != to.get(version.as_str());
            self.rebuilt += old.iter().filter(rebuilt).count();
        } else if old.is_empty() {
            self.added.insert(name.to_owned(), new);
        } else if new.is_empty() {
            self.removed.insert(name.to_owned(), old);
        } else {
            self.changed.insert(name.to_owned(), VersionChange { from: old, to: new });
        }
    }

    /// The way back.
    #[must_use]
    pub fn reversed(&self) -> Self {
        let back =
            |change: &VersionChange| VersionChange { from: change.to.clone(), to: change.from.clone() };
        Self {
            added: self.removed.clone(),
            removed: self.added.clone(),
            changed: self.changed.iter().map(|(name, change)| (name.clone(), back(change))).collect(),
            rebuilt: self.rebuilt,
            files: self.files,
        }
    }

    /// Whether nothing at all differs.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// One clause a package: "+htop 3.3.0", "-nano 8.0", "openssh 9.7 → 9.8".
    pub fn lines(&self) -> Vec<String> {
        let added = self.added.iter().map(|(name, versions)| format!("+{name} {}", versions.join(", ")));
        let removed = self.removed.iter().map(|(name, versions)| format!("-{name} {}", versions.join(", ")));
        let changed = self
            .changed
            .iter()
            .map(|(name, change)| format!("{name} {} → {}", change.from.join(", "), change.to.join(", ")));
        added.chain(removed).chain(changed).collect()
    }

    /// What differs beside versions, as "2 rebuilt, 5 files"; empty when nothing does.
    pub fn rest(&self) -> String {
        let mut clauses = Vec::new();
        if self.rebuilt > 0 {
            clauses.push(format!("{} rebuilt", self.rebuilt));
        }
        if self.files > 0 {
            let noun = if self.files == 1 { "file" } else { "files" };
            clauses.push(format!("{} {noun}", self.files));
        }
        clauses.join(", ")
    }

    /// One line of at most `most` packages: "+htop 3.3.0, openssh 9.7 → 9.8, and 12 more".
    pub fn summary(&self, most: usize) -> String {
        let lines = self.lines();
        if lines.is_empty() {
            let rest = self.rest();
            return if rest.is_empty() {
                "no difference".into()
            } else {
                format!("no version differs ({rest})")
            };
        }
        let mut text = lines.iter().take(most).cloned().collect::<Vec<_>>().join(", ");
        if lines.len() > most {
            let _ = write!(text, ", and {} more", lines.len() - most);
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn closure(names: &[&str]) -> Vec<StorePath> {
        // The digit before the colon stands for the build.
        names
            .iter()
            .map(|text| {
                let (build, name) = text.split_once(':').unwrap();
                format!("/nix/store/{}-{name}", build.repeat(32)).parse().unwrap()
            })
            .collect()
    }

    #[test]
    fn the_version_starts_at_the_first_dash_before_a_non_letter() {
        for (text, name, version) in [
            ("openssh-9.8p1", "openssh", Some("9.8p1")),
            ("nix-prefetch-git", "nix-prefetch-git", None),
            ("python3.12-requests-2.32.3", "python3.12-requests", Some("2.32.3")),
            ("nixos-system-web1-24.11pre-git", "nixos-system-web1", Some("24.11pre-git")),
            ("a-_b", "a", Some("_b")),
            ("trailing-", "trailing-", None),
            ("ghc-9.6.6-with-packages", "ghc", Some("9.6.6-with-packages")),
        ] {
            assert_eq!(name_and_version(text), (name, version), "{text}");
        }
    }

    #[test]
    fn a_diff_tells_added_removed_changed_rebuilt_and_files_apart() {
        let diff = PackageDiff::between(
            &closure(&["a:openssh-9.7p1", "a:openssh-9.7p1-man", "a:nano-8.0", "a:zlib-1.3", "a:etc"]),
            &closure(&["b:openssh-9.8p1", "b:openssh-9.8p1-man", "b:htop-3.3.0", "b:zlib-1.3", "b:etc"]),
        );
        assert_eq!(diff.lines(), ["+htop 3.3.0", "-nano 8.0", "openssh 9.7p1 → 9.8p1"]);
        assert_eq!(diff.rest(), "1 rebuilt, 1 file");
        assert_eq!(diff.reversed().lines(), ["+nano 8.0", "-htop 3.3.0", "openssh 9.8p1 → 9.7p1"]);
    }

    #[test]
    fn the_summary_is_bounded() {
        let names: Vec<String> = (0..9).map(|i| format!("a:p{i}-1.{i}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let diff = PackageDiff::between(&[], &closure(&names));
        assert_eq!(diff.summary(2), "+p0 1.0, +p1 1.1, and 7 more");
    }

    #[test]
    fn equal_closures_have_no_difference_and_a_changed_file_is_not_a_package() {
        let one = closure(&["a:etc", "a:zlib-1.3"]);
        assert_eq!(PackageDiff::between(&one, &one).summary(3), "no difference");
        let other = closure(&["b:etc", "a:zlib-1.3"]);
        assert_eq!(PackageDiff::between(&one, &other).summary(3), "no version differs (1 file)");
    }

    #[test]
    fn two_versions_side_by_side_are_both_named() {
        let diff = PackageDiff::between(
            &closure(&["a:icu-74.1", "a:icu-75.1"]),
            &closure(&["a:icu-75.1", "c:icu-76.1"]),
        );
        assert_eq!(diff.lines(), ["icu 74.1, 75.1 → 75.1, 76.1"]);
    }
}
