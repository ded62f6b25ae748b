//! Marks of suspensions on a node: whatever people write in them, and where nothing can be written.

use driftless::model::intent::{SuspensionId, SuspensionMark};

use super::Bench;

fn mark(random: u32, reason: &str) -> SuspensionMark {
    let now: jiff::Timestamp = "2026-11-22T12:00:00Z".parse().unwrap();
    let until = random.is_multiple_of(2).then(|| now + jiff::SignedDuration::from_hours(2));
    let (id, by) = (SuspensionId::new(now, random), "alice@laptop as root".to_owned());
    SuspensionMark { id, by, reason: reason.into(), until }
}

const FILE: &str = "/var/lib/driftless-node/suspended";

#[tokio::test]
async fn marks_are_read_back_as_they_were_written_and_go_one_by_one() {
    let bench = Bench::new("first");
    let node = bench.node(&bench.first, |_| {});
    let deadline = std::time::Duration::from_secs(20);
    let marks = async || node.observe(deadline).await.unwrap().suspended;
    assert_eq!(marks().await, []);
    let hostile = "'; reboot; \"$(reboot)\" `reboot` \\n %s é \\";
    let (one, two) = (mark(1, "disk swap"), mark(2, hostile));
    node.mark_suspended(&one).await.unwrap();
    node.mark_suspended(&two).await.unwrap();
    assert_eq!(marks().await, [one.clone(), two.clone()]);
    // Again, with another reason: one line for one suspension.
    let again = SuspensionMark { reason: "two\nlines\tand a tab".into(), ..one.clone() };
    node.mark_suspended(&again).await.unwrap();
    let one = SuspensionMark { reason: "two lines and a tab".into(), ..one };
    assert_eq!(marks().await, [two.clone(), one.clone()]);
    node.unmark_suspended(&two.id).await.unwrap();
    node.unmark_suspended(&two.id).await.unwrap();
    assert_eq!(marks().await, std::slice::from_ref(&one));
    // Anybody may read it, and nobody but root may write it.
    let mode = bench.machine.enter(&format!("stat -c '%U %a' {FILE}")).unwrap().stdout;
    assert_eq!(mode.trim(), "root 644");
    bench.machine.reboot().unwrap();
    node.close().await;
    let node = bench.node(&bench.first, |_| {});
    let marks = async || node.observe(deadline).await.unwrap().suspended;
    assert_eq!(marks().await, std::slice::from_ref(&one), "it outlives a boot");
    node.unmark_suspended(&one.id).await.unwrap();
    assert_eq!(marks().await, []);
    assert!(!bench.machine.path(FILE).exists());
    node.close().await;
}

#[tokio::test]
async fn a_disk_that_is_full_takes_no_mark_and_loses_none() {
    let bench = Bench::new("first");
    let node = bench.node(&bench.first, |_| {});
    let deadline = std::time::Duration::from_secs(20);
    node.mark_suspended(&mark(1, "disk swap")).await.unwrap();
    bench.machine.fill("/var").unwrap();
    let long = "x".repeat(300);
    let mut failed = false;
    // A page may be left.
    for random in 2..20 {
        if let Err(error) = node.mark_suspended(&mark(random, &long)).await {
            assert!(error.to_string().contains(FILE), "{error}");
            failed = true;
            break;
        }
    }
    assert!(failed, "a full disk takes everything");
    let marks = node.observe(deadline).await.unwrap().suspended;
    assert_eq!(marks[0], mark(1, "disk swap"));
    node.close().await;
}

#[tokio::test]
async fn there_is_an_end_to_marks() {
    let bench = Bench::new("first");
    let node = bench.node(&bench.first, |_| {});
    let line = r"20261122T120000Z-%08x\t-\talice\tbecause\n";
    let fill = format!("mkdir -p ${{f%/*}} && for i in $(seq 50); do printf '{line}' $i; done >$f");
    bench.machine.enter(&format!("f={FILE}; {fill}")).unwrap().ok().unwrap();
    let error = node.mark_suspended(&mark(99, "one more")).await.unwrap_err().to_string();
    assert!(error.contains("too many lines"), "{error}");
    node.mark_suspended(&mark(7, "known")).await.unwrap();
    let marks = node.observe(std::time::Duration::from_secs(20)).await.unwrap().suspended;
    assert_eq!(marks.len(), 50);
    node.close().await;
}
