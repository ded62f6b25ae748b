//! Trees on the disk, for Nix to read: what is in them, what is not, and which are kept.

use super::*;

#[tokio::test]
async fn a_checkout_is_the_tree_and_nothing_else() {
    let place = Place::new();
    fs::create_dir_all(place.up().join("nodes/web")).unwrap();
    fs::write(place.up().join("nodes/web/run"), "#!/bin/sh\n").unwrap();
    fs::set_permissions(place.up().join("nodes/web/run"), fs::Permissions::from_mode(0o755)).unwrap();
    symlink("nodes/web/run", place.up().join("link")).unwrap();
    fs::write(place.up().join(".gitattributes"), "* text eol=crlf\nfirst filter=lfs\n").unwrap();
    place.commit("tree");
    let source = place.source();
    let head = source.fetch().await.unwrap();
    let at = source.checkout(&head).await.unwrap();
    assert_eq!(at.file_name().unwrap().to_str().unwrap(), head.commit.as_str());
    assert_eq!(fs::metadata(at.join("nodes/web/run")).unwrap().mode() & 0o777, 0o755);
    assert_eq!(fs::metadata(at.join("first")).unwrap().mode() & 0o777, 0o644);
    assert_eq!(fs::read_to_string(at.join("nodes/web/run")).unwrap(), "#!/bin/sh\n");
    assert_eq!(fs::read_link(at.join("link")).unwrap(), Path::new("nodes/web/run"));
    assert!(!at.join(".git").exists());

    let inode = fs::metadata(&at).unwrap().ino();
    source.checkout(&head).await.unwrap();
    assert_eq!(fs::metadata(&at).unwrap().ino(), inode, "an intact checkout is used again");
    fs::write(at.join("first"), "").unwrap();
    fs::write(at.join("result"), "left by somebody").unwrap();
    source.checkout(&head).await.unwrap();
    assert_eq!(fs::read_to_string(at.join("first")).unwrap(), "first");
    assert!(!at.join("result").exists());
}

#[tokio::test]
async fn only_the_checkouts_used_last_are_kept() {
    let place = Place::new();
    let source = place.source();
    let mut revisions = Vec::new();
    for message in ["a", "b", "c", "d"] {
        place.commit(message);
        revisions.push(source.fetch().await.unwrap());
        source.checkout(revisions.last().unwrap()).await.unwrap();
        source.checkout(&revisions[0]).await.unwrap();
    }
    let mut kept: Vec<String> = fs::read_dir(&source.checkouts)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    kept.sort();
    let mut expected: Vec<String> = [0, 2, 3].map(|at: usize| revisions[at].commit.to_string()).into();
    expected.sort();
    assert_eq!(kept, expected);
}

#[tokio::test]
async fn a_submodule_is_an_empty_directory() {
    let place = Place::new();
    let id = place.up_git(&["rev-parse", "HEAD"]);
    place.up_git(&["update-index", "--add", "--cacheinfo", &format!("160000,{id},vendor/module")]);
    place.up_git(&["commit", "-q", "-m", "with a submodule"]);
    let source = place.source();
    let head = source.fetch().await.unwrap();
    for _ in 0..2 {
        let at = source.checkout(&head).await.unwrap();
        assert_eq!(fs::read_dir(at.join("vendor/module")).unwrap().count(), 0);
    }
}

#[tokio::test]
async fn a_tree_cannot_write_outside_of_its_checkout() {
    let place = Place::new();
    let source = place.source();
    source.fetch().await.unwrap();
    // Neither git nor libgit2 makes such a tree; whoever pushes one has written the object by hand.
    let repository = source.repository().unwrap();
    let blob = repository.blob(b"evil").unwrap();
    let tree = [b"100644 ../../evil\0".as_slice(), blob.as_bytes()].concat();
    let tree = repository.odb().unwrap().write(git2::ObjectType::Tree, &tree).unwrap();
    let text = format!("tree {tree}\nauthor a <a> 0 +0000\ncommitter a <a> 0 +0000\n\nevil\n");
    let commit = repository.odb().unwrap().write(git2::ObjectType::Commit, text.as_bytes()).unwrap();
    let evil = source.resolve(&commit.to_string()).unwrap();
    let error = source.checkout(&evil).await.unwrap_err();
    assert!(!place.dir.path().join("state/evil").exists());
    assert!(matches!(error, SourceError::Entry { .. } | SourceError::Clone { .. }), "{error}");
}

#[tokio::test]
async fn nix_reads_head_and_former_heads_as_flakes() {
    let place = Place::new();
    fs::write(place.up().join("flake.nix"), "{ outputs = { self }: { rev = self.rev; }; }").unwrap();
    place.commit("flake");
    let source = place.source();
    let former = source.fetch().await.unwrap();
    place.up_git(&["commit", "-q", "--amend", "-m", "rewritten"]);
    let head = source.fetch().await.unwrap();
    for revision in [head, former] {
        let mut nix = command::command("nix-instantiate");
        nix.env("NIX_CONFIG", "build-users-group =\nsandbox = false\nsubstitute = false\nexperimental-features = nix-command flakes")
            .env("XDG_CACHE_HOME", place.dir.path().join("cache"));
        let flake = source.flake_url(&revision).unwrap();
        nix.args(["--eval", "--expr", &format!("(builtins.getFlake \"{flake}\").rev")]);
        let said = command::run(nix, Duration::from_secs(60)).await.unwrap().text();
        assert_eq!(said.trim(), format!("\"{}\"", revision.commit));
    }
}
