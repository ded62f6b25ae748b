//! The Git room against real repositories: what people do to branches, and what goes wrong.

mod checkouts;
mod watching;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::time::timeout;

use super::*;
use crate::command::{self, CommandError};

/// A state directory and the place of a repository.
struct Place {
    dir: TempDir,
}

impl Place {
    /// With a repository `up` that has one commit on `main`.
    fn new() -> Self {
        let place = Self { dir: tempfile::tempdir().unwrap() };
        git(place.dir.path(), &["init", "-q", "-b", "main", "up"]);
        place.commit("first");
        place
    }

    fn up(&self) -> PathBuf {
        self.dir.path().join("up")
    }

    fn up_git(&self, args: &[&str]) -> String {
        git(&self.up(), args)
    }

    /// Commits a file named like the message, and gives the commit's id.
    fn commit(&self, message: &str) -> String {
        fs::write(self.up().join(message), message).unwrap();
        self.up_git(&["add", "-A"]);
        self.up_git(&["commit", "-q", "-m", message]);
        self.up_git(&["rev-parse", "HEAD"])
    }

    fn config(&self) -> SourceConfig {
        config(self.up().to_str().unwrap())
    }

    fn open(&self, config: &SourceConfig) -> Source {
        Source::open(config, &self.dir.path().join("state")).unwrap()
    }

    fn source(&self) -> Source {
        self.open(&self.config())
    }
}

fn config(url: &str) -> SourceConfig {
    toml::from_str(&format!("url = {url:?}\ntimeout = \"20s\"")).unwrap()
}

/// Runs git as nobody in particular, whatever the machine's own configuration says.
fn git(at: &Path, args: &[&str]) -> String {
    let output = Command::new("git")
        .current_dir(at)
        .args(args)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .envs([("GIT_AUTHOR_NAME", "Alice"), ("GIT_AUTHOR_EMAIL", "alice@example.org")])
        .envs([("GIT_COMMITTER_NAME", "Bob"), ("GIT_COMMITTER_EMAIL", "bob@example.org")])
        .envs([("GIT_AUTHOR_DATE", "@1700000000 +0000"), ("GIT_COMMITTER_DATE", "@1700000000 +0000")])
        .output()
        .unwrap();
    assert!(output.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// All that a person would be shown.
fn chain(error: SourceError) -> String {
    format!("{:#}", anyhow::Error::new(error))
}

#[tokio::test]
async fn the_first_fetch_brings_the_head_and_later_ones_its_successors() {
    let place = Place::new();
    let source = place.source();
    let first = source.fetch().await.unwrap();
    assert_eq!(first.commit.as_str(), place.up_git(&["rev-parse", "HEAD"]));
    assert_eq!(first.tree, place.up_git(&["rev-parse", "HEAD^{tree}"]));
    assert_eq!((first.subject.as_str(), first.author.as_str()), ("first", "Alice <alice@example.org>"));
    assert_eq!(first.committed_at.as_second(), 1_700_000_000);
    let id = place.commit("second");
    let second = source.fetch().await.unwrap();
    assert_eq!(second.commit.as_str(), id);
    assert!(source.descends(&second.commit, &first.commit).unwrap());
    assert!(source.descends(&first.commit, &first.commit).unwrap());
    assert!(!source.descends(&first.commit, &second.commit).unwrap());
    assert_eq!(source.resolve(&first.commit.as_str()[..8]).unwrap(), first);
}

#[tokio::test]
async fn a_force_push_is_followed_and_the_former_head_stays_usable() {
    let place = Place::new();
    let before = place.up_git(&["rev-parse", "HEAD"]);
    place.commit("second");
    let source = place.source();
    let former = source.fetch().await.unwrap();
    place.up_git(&["reset", "-q", "--hard", &before]);
    place.commit("other");
    let head = source.fetch().await.unwrap();
    assert_eq!(head.subject, "other");
    assert!(!source.descends(&head.commit, &former.commit).unwrap());
    git(&source.clone, &["gc", "-q", "--prune=now"]);
    assert!(source.checkout(&former).await.unwrap().join("second").exists());
    assert!(source.flake_url(&former).unwrap().contains(&format!("{FORMER}/{}", former.commit)));
}

#[tokio::test]
async fn a_commit_the_clone_never_saw_is_nobodys_ancestor() {
    let place = Place::new();
    let source = place.source();
    let head = source.fetch().await.unwrap();
    let foreign: CommitId = "1234567890123456789012345678901234567890".parse().unwrap();
    assert!(!source.descends(&head.commit, &foreign).unwrap());
    for text in [foreign.as_str(), "main", "12", &head.tree] {
        let error = source.resolve(text).unwrap_err();
        assert!(matches!(error, SourceError::Unknown { .. }), "{text}: {error}");
    }
}

#[tokio::test]
async fn the_paths_that_differ_from_an_earlier_tree_or_commit_are_known() {
    let place = Place::new();
    let source = place.source();
    fs::create_dir_all(place.up().join("hosts/web")).unwrap();
    fs::write(place.up().join("hosts/web/old.nix"), "{ }").unwrap();
    place.commit("nodes");
    let before = source.fetch().await.unwrap();
    place.up_git(&["mv", "hosts/web/old.nix", "hosts/web/new.nix"]);
    place.commit("second");
    let after = source.fetch().await.unwrap();
    for from in [before.tree.as_str(), before.commit.as_str()] {
        let changed = source.changed(from, &after).await.unwrap().unwrap();
        assert_eq!(Vec::from_iter(changed), ["hosts/web/new.nix", "hosts/web/old.nix", "second"]);
    }
    assert_eq!(source.changed(&after.tree, &after).await.unwrap(), Some(BTreeSet::new()));
    for unknown in ["0123456789012345678901234567890123456789", "no id"] {
        assert_eq!(source.changed(unknown, &after).await.unwrap(), None);
    }
}

#[tokio::test]
async fn a_removal_is_allowed_of_one_commit_also_after_a_restart() {
    let place = Place::new();
    let first = place.source().fetch().await.unwrap();
    place.commit("second");
    let second = place.source().fetch().await.unwrap();
    assert!(!place.source().allows_removal(&first.commit).unwrap());
    place.source().allow_removal(&first).unwrap();
    let source = place.source();
    assert!(source.allows_removal(&first.commit).unwrap() && !source.allows_removal(&second.commit).unwrap());
}

#[tokio::test]
async fn another_branch_and_another_url_need_no_other_state() {
    let place = Place::new();
    place.source().fetch().await.unwrap();
    place.up_git(&["checkout", "-q", "-b", "next/one"]);
    place.commit("on next");
    let mut config = place.config();
    config.branch = "next/one".into();
    assert_eq!(place.open(&config).fetch().await.unwrap().subject, "on next");
    let elsewhere = Place::new();
    elsewhere.up_git(&["commit", "-q", "--amend", "-m", "elsewhere"]);
    config.url = format!("file://{}", elsewhere.up().display());
    config.branch = "main".into();
    assert_eq!(place.open(&config).fetch().await.unwrap().subject, "elsewhere");
}

#[tokio::test]
async fn a_missing_branch_is_named_with_those_there_are() {
    let place = Place::new();
    place.up_git(&["branch", "develop"]);
    let mut config = place.config();
    config.branch = "mian".into();
    let error = chain(place.open(&config).fetch().await.unwrap_err());
    assert!(error.contains("no branch `mian`; it has `develop`, `main`; correct `source.branch`"), "{error}");
    assert!(error.contains("couldn't find remote ref refs/heads/mian"), "{error}");
}

#[tokio::test]
async fn an_empty_repository_is_not_mistaken_for_a_missing_branch() {
    let place = Place::new();
    git(place.dir.path(), &["init", "-q", "--bare", "empty.git"]);
    let url = place.dir.path().join("empty.git");
    let error = place.open(&config(url.to_str().unwrap())).fetch().await.unwrap_err();
    assert!(matches!(error, SourceError::Empty { .. }), "{error}");
    assert!(error.to_string().ends_with("is empty; push a first commit to its branch `main`"), "{error}");
}

#[tokio::test]
async fn a_repository_that_goes_and_comes_back_is_followed_again() {
    let place = Place::new();
    let source = place.source();
    let first = source.fetch().await.unwrap();
    let away = place.dir.path().join("away");
    fs::rename(place.up(), &away).unwrap();
    let error = source.fetch().await.unwrap_err();
    assert!(matches!(error, SourceError::NoRepository { .. }), "{error}");
    assert!(chain(error).contains("does not appear to be a git repository"));
    assert_eq!(source.resolve(first.commit.as_str()).unwrap(), first);
    assert!(source.checkout(&first).await.unwrap().join("first").exists());
    fs::rename(&away, place.up()).unwrap();
    let id = place.commit("second");
    assert_eq!(source.fetch().await.unwrap().commit.as_str(), id);
}

#[tokio::test]
async fn a_repository_of_another_user_is_read() {
    let place = Place::new();
    let owned = Command::new("chown").args(["-R", "65534"]).arg(place.up()).status().unwrap();
    assert!(owned.success(), "this test gives a repository away, which needs root");
    for url in [place.up().display().to_string(), format!("file://{}/.git", place.up().display())] {
        assert_eq!(place.open(&config(&url)).fetch().await.unwrap().subject, "first");
    }
}

#[tokio::test]
async fn credentials_appear_nowhere() {
    let place = Place::new();
    // Nothing listens on port 1: the fetch fails while git quotes the URL.
    let config = config("https://bot:hunter2secret@127.0.0.1:1/infra.git");
    assert_eq!(config.display_url(), "https://***@127.0.0.1:1/infra.git");
    let error = place.open(&config).fetch().await.unwrap_err();
    assert!(matches!(error, SourceError::Fetch { .. }), "{error}");
    let shown = format!("{error:?} {config:?}") + &chain(error);
    assert!(shown.contains("127.0.0.1:1"), "{shown}");
    assert!(!shown.contains("hunter2secret") && !shown.contains("bot"), "{shown}");
    let kept = fs::read_to_string(place.dir.path().join("state/source.git/config")).unwrap();
    assert!(!kept.contains("hunter2secret"), "{kept}");
}

#[tokio::test]
async fn a_url_cannot_name_a_program_to_run() {
    let place = Place::new();
    let mark = place.dir.path().join("ran");
    let error = place.open(&config(&format!("ext::touch {}", mark.display()))).fetch().await.unwrap_err();
    assert!(chain(error).contains("transport 'ext' not allowed"));
    assert!(!mark.exists());
}

#[test]
fn a_branch_name_cannot_be_a_refspec() {
    let place = Place::new();
    for branch in ["main:refs/heads/x", "*", "", "a b"] {
        let mut config = place.config();
        config.branch = branch.into();
        let error = Source::open(&config, &place.dir.path().join("state")).unwrap_err();
        assert!(matches!(error, SourceError::BranchName { .. }), "{branch}: {error}");
    }
}

#[tokio::test]
async fn a_machine_without_git_is_told_to_install_it() {
    let place = Place::new();
    let mut absent = command::command("git");
    absent.env("PATH", "/no/such/directory");
    let failed = command::run(absent, Duration::from_secs(5)).await.unwrap_err();
    assert!(matches!(failed, CommandError::Missing { .. }), "{failed}");
    let error = chain(place.source().explained(failed).await);
    assert!(error.contains("the program `git` was not found; install it"), "{error}");
}

#[tokio::test]
async fn a_fetch_that_takes_too_long_is_killed() {
    let place = Place::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut config = config(&format!("http://{}/infra.git", listener.local_addr().unwrap()));
    config.timeout = Duration::from_millis(300);
    // The connection is made by the kernel; nobody ever answers.
    let error = place.open(&config).fetch().await.unwrap_err();
    assert!(matches!(error, SourceError::Deadline { .. }), "{error}");
}

#[tokio::test]
async fn what_a_killed_fetch_left_does_not_stop_the_next() {
    let place = Place::new();
    let source = place.source();
    let lock = source.clone.join(format!("{HEAD}.lock"));
    fs::create_dir_all(lock.parent().unwrap()).unwrap();
    let file = fs::File::create(&lock).unwrap();
    let error = source.fetch().await.unwrap_err();
    assert!(chain(error).contains("File exists"));
    file.set_modified(std::time::SystemTime::now() - Duration::from_secs(60)).unwrap();
    source.fetch().await.unwrap();
}

/// A web server on this host that answers `status` to everything, or, for 200, with the files below `root`: the oldest of
/// Git's protocols. Ends with the test's runtime.
async fn web_server(root: PathBuf, status: u16) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut connection, _)) = listener.accept().await {
            let mut request = vec![0; 8192];
            let length = connection.read(&mut request).await.unwrap();
            let text = String::from_utf8_lossy(&request[..length]);
            let path = text.split([' ', '?']).nth(1).unwrap().trim_start_matches('/');
            let file = fs::read(root.join(path));
            let status = if status == 200 && file.is_err() { 404 } else { status };
            let body = file.unwrap_or_default();
            let head = format!(
                "HTTP/1.1 {status} -\r\nContent-Length: {}\r\nWWW-Authenticate: Basic realm=x\r\nConnection: close\r\n\r\n",
                body.len()
            );
            let _ = connection.write_all(&[head.as_bytes(), &body].concat()).await;
        }
    });
    format!("http://{address}/infra.git")
}

#[tokio::test]
async fn a_branch_is_fetched_over_http() {
    let place = Place::new();
    git(place.dir.path(), &["clone", "-q", "--bare", "up", "infra.git"]);
    git(&place.dir.path().join("infra.git"), &["update-server-info"]);
    let url = web_server(place.dir.path().to_owned(), 200).await;
    assert_eq!(place.open(&config(&url)).fetch().await.unwrap().subject, "first");
}

#[tokio::test]
async fn a_forge_that_denies_is_told_from_one_that_has_no_such_repository() {
    let place = Place::new();
    let nothing = place.dir.path().join("nothing");
    let url = web_server(nothing.clone(), 404).await;
    let error = place.open(&config(&url)).fetch().await.unwrap_err();
    assert!(matches!(error, SourceError::NoRepository { .. }), "{}", chain(error));
    for (status, user) in [(401, ""), (401, "bot:wrong-token@"), (403, "")] {
        let url = web_server(nothing.clone(), status).await.replace("://", &format!("://{user}"));
        let error = place.open(&config(&url)).fetch().await.unwrap_err();
        assert!(matches!(error, SourceError::Refused { .. }), "{}", chain(error));
        assert!(!chain(error).contains("wrong-token"));
    }
}

#[tokio::test]
async fn a_clone_that_is_gone_or_damaged_is_fetched_anew() {
    let place = Place::new();
    let source = place.source();
    let head = source.fetch().await.unwrap();
    let clone = source.clone.clone();
    let objects = |clone: &Path| {
        let found =
            std::process::Command::new("find").arg(clone.join("objects")).args(["-type", "f"]).output();
        String::from_utf8(found.unwrap().stdout).unwrap().lines().map(PathBuf::from).collect::<Vec<_>>()
    };
    let damages: [(&str, &dyn Fn()); 6] = [
        ("no clone", &|| fs::remove_dir_all(&clone).unwrap()),
        ("no state directory", &|| fs::remove_dir_all(clone.parent().unwrap()).unwrap()),
        ("rubbish for a head", &|| fs::write(clone.join(HEAD), "rubbish").unwrap()),
        ("rubbish for HEAD", &|| fs::write(clone.join("HEAD"), "rubbish").unwrap()),
        ("rubbish for a configuration", &|| fs::write(clone.join("config"), "[[[").unwrap()),
        ("empty objects", &|| {
            for object in objects(&clone) {
                fs::remove_file(&object).unwrap();
                fs::write(&object, "").unwrap();
            }
        }),
    ];
    for (what, damage) in damages {
        damage();
        assert_eq!(source.fetch().await.map_err(chain), Ok(head.clone()), "{what}");
        damage();
        assert_eq!(place.source().fetch().await.map_err(chain), Ok(head.clone()), "{what}, at the start");
    }
}
