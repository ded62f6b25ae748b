//! Guards the layout of the house: what pure rooms may not mention, and what every file owes its reader.

use std::fs;
use std::path::{Path, PathBuf};

/// A file of the project may be so long, its tests not counted.
const LONGEST: usize = 400;

/// Words that have no place where nouns and decisions live: each is a way to the world or to the clock.
const IMPURE: [&str; 8] =
    ["tokio", "std::fs", "std::process", "std::net", "git2", "openssh::", "async fn", "::now()"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every Rust file below a folder of the project, with its path as a person writes it.
fn rust_files(below: &str) -> Vec<(String, String)> {
    let mut open = vec![root().join(below)];
    let mut files = Vec::new();
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                files.push((path.strip_prefix(root()).unwrap().display().to_string(), text));
            }
        }
    }
    files.sort();
    assert!(!files.is_empty(), "{below} holds no Rust file: this guard looks in the wrong place");
    files
}

fn is_all_tests(path: &str) -> bool {
    path.ends_with("/tests.rs") || path.contains("/tests/")
}

/// The lines of a file before its `mod tests { ... }`; none for a file that is all tests.
fn lines_without_tests(path: &str, text: &str) -> usize {
    if is_all_tests(path) {
        return 0;
    }
    let lines: Vec<&str> = text.lines().collect();
    let tests =
        lines.windows(2).position(|pair| pair[0] == "#[cfg(test)]" && pair[1].starts_with("mod tests {"));
    tests.unwrap_or(lines.len())
}

#[test]
fn nouns_and_decisions_touch_neither_the_world_nor_the_clock() {
    // Tests may look at the clock: to see how long a decision takes.
    let pure = |path: &str| {
        let room = |name: &str| path == format!("src/{name}.rs") || path.starts_with(&format!("src/{name}/"));
        (room("model") || room("plan") || room("reconcile")) && !is_all_tests(path)
    };
    let mut broken = Vec::new();
    let files = rust_files("src");
    assert!(files.iter().filter(|(path, _)| pure(path)).count() > 10);
    for (path, text) in files.iter().filter(|(path, _)| pure(path)) {
        for (number, line) in text.lines().enumerate() {
            broken.extend(
                IMPURE
                    .iter()
                    .filter(|word| line.contains(**word))
                    .map(|word| format!("{path}:{}: {word}", number + 1)),
            );
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn every_file_says_first_what_it_is_for() {
    let silent: Vec<String> = ["src", "tests"]
        .into_iter()
        .flat_map(rust_files)
        .filter(|(_, text)| !text.starts_with("//! "))
        .map(|(path, _)| path)
        .collect();
    assert!(silent.is_empty(), "no `//!` at the top of {}", silent.join(", "));
}

#[test]
fn no_file_outgrows_its_room() {
    let long: Vec<String> = rust_files("src")
        .into_iter()
        .map(|(path, text)| (lines_without_tests(&path, &text), path))
        .filter(|(lines, _)| *lines > LONGEST)
        .map(|(lines, path)| format!("{path}: {lines} lines"))
        .collect();
    assert!(long.is_empty(), "more than {LONGEST} lines without tests: {}", long.join(", "));
}

#[test]
fn no_room_is_named_for_nothing_in_particular() {
    let vague = ["utils", "util", "helpers", "common", "types", "manager", "misc"];
    let found: Vec<String> = rust_files("src")
        .into_iter()
        .map(|(path, _)| path)
        .filter(|path| {
            PathBuf::from(path).with_extension("").iter().any(|part| vague.iter().any(|name| part == *name))
        })
        .collect();
    assert!(found.is_empty(), "{}", found.join(", "));
}

#[test]
fn every_test_file_is_part_of_the_one_binary() {
    let main = fs::read_to_string(root().join("tests/main.rs")).unwrap();
    for entry in fs::read_dir(root().join("tests")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        if path.extension().is_some_and(|extension| extension == "rs") && name != "main" {
            let line = format!("mod {name};");
            assert!(main.lines().any(|found| found.trim() == line), "tests/main.rs lacks `{line}`");
        }
    }
}

#[test]
fn the_script_of_nodes_has_all_of_its_parts_in_order() {
    let folder = root().join("src/node/switch");
    let mut parts: Vec<_> = std::fs::read_dir(folder).unwrap().map(|part| part.unwrap().path()).collect();
    parts.sort();
    let texts: Vec<_> = parts.iter().map(|part| std::fs::read_to_string(part).unwrap()).collect();
    // As nix/node/package.nix joins them, too.
    assert_eq!(driftless::node::SWITCH_SH, texts.join("\n"));
}
