//! Whoever commits on this host wakes the controller.

use super::*;

/// Watches, does something, and waits for the wake-up.
async fn wakes_within_a_second(url: &str, act: impl FnOnce()) {
    let wake = Arc::new(Notify::new());
    let _watch = watch(url, wake.clone()).unwrap().expect("a local path is watched");
    assert!(timeout(Duration::from_millis(1_500), wake.notified()).await.is_err(), "woken by nothing");
    act();
    timeout(Duration::from_secs(1), wake.notified()).await.expect("woken within a second");
}

#[tokio::test]
async fn a_commit_wakes_the_watch_within_a_second() {
    let place = Place::new();
    wakes_within_a_second(place.up().to_str().unwrap(), || drop(place.commit("second"))).await;
}

#[tokio::test]
async fn a_commit_to_packed_branches_of_a_bare_repository_wakes_the_watch() {
    let place = Place::new();
    git(place.dir.path(), &["clone", "-q", "--bare", "up", "bare.git"]);
    let bare = place.dir.path().join("bare.git");
    git(&bare, &["pack-refs", "--all"]);
    place.commit("second");
    let url = format!("file://{}", bare.display());
    wakes_within_a_second(&url, || drop(place.up_git(&["push", "-q", "../bare.git", "main"]))).await;
    wakes_within_a_second(&url, || drop(git(&bare, &["pack-refs", "--all"]))).await;
    let source = place.open(&config(&url));
    assert_eq!(source.fetch().await.unwrap().subject, "second");
}

#[tokio::test]
async fn a_commit_in_a_linked_work_tree_wakes_the_watch() {
    let place = Place::new();
    place.up_git(&["worktree", "add", "-q", "-b", "side", "../linked"]);
    let linked = place.dir.path().join("linked");
    wakes_within_a_second(linked.to_str().unwrap(), || {
        git(&linked, &["commit", "-q", "--allow-empty", "-m", "in the linked one"]);
    })
    .await;
    let mut config = config(linked.to_str().unwrap());
    config.branch = "side".into();
    assert_eq!(place.open(&config).fetch().await.unwrap().subject, "in the linked one");
}

#[tokio::test]
async fn our_own_fetch_does_not_wake_us() {
    let place = Place::new();
    let source = place.source();
    let wake = Arc::new(Notify::new());
    let _watch = watch(place.up().to_str().unwrap(), wake.clone()).unwrap();
    source.fetch().await.unwrap();
    assert!(timeout(Duration::from_millis(500), wake.notified()).await.is_err());
}

#[tokio::test]
async fn a_repository_that_is_replaced_is_watched_again() {
    let place = Place::new();
    let wake = Arc::new(Notify::new());
    let _watch = watch(place.up().to_str().unwrap(), wake.clone()).unwrap();
    fs::rename(place.up(), place.dir.path().join("old")).unwrap();
    git(place.dir.path(), &["clone", "-q", "old", "up"]);
    timeout(Duration::from_secs(5), wake.notified()).await.expect("woken by the return");
    while timeout(Duration::from_millis(1_500), wake.notified()).await.is_ok() {}
    place.commit("after the return");
    timeout(Duration::from_secs(1), wake.notified()).await.expect("woken by the commit");
}

#[tokio::test]
async fn a_remote_url_is_not_watched() {
    let wake = Arc::new(Notify::new());
    assert!(watch("git@git.example.org:infra.git", wake.clone()).unwrap().is_none());
    assert!(watch("https://git.example.org/infra.git", wake).unwrap().is_none());
}
