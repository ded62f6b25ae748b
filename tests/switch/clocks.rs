//! The node's switch and clocks: those of who asks go back, and the node's own is set in the middle. Deadlines count the time
//! since boot, and the order of the journal is the node's.

use std::time::Duration;

use driftless::model::journal::{Outcome, Phase};
use driftless::model::node::Goal;
use driftless::model::observed::Stage;
use driftless_lab::System;
use tokio::sync::watch;

use super::Bench;

/// More than the journal keeps, from an asker whose clock was right.
const TWENTY_OLD: &str = r#"
cd /var/lib/driftless-node/switches && mkdir -p /nix/var/nix/gcroots/driftless
for n in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24; do
  id=20990101T0000$(printf %02d $n)Z-0000000a
  cp -r "$(ls -d */ | head -n 1)" "$id"
  echo $n >"$id/number"
  sed "s/^[^	]*/$id/" */summary | head -n 1 >"$id/summary.new" && mv "$id/summary.new" "$id/summary"
done
rm -r 2[01]2*
"#;

#[tokio::test]
async fn an_asker_whose_clock_went_back_still_writes_the_newest_entry_and_loses_none() {
    let bench = Bench::new("first");
    let (_, entry) = bench.deploy(&System::new("second")).await;
    bench.assert_outcome(&entry, Outcome::Succeeded, None).await;
    bench.machine.enter(TWENTY_OLD).unwrap().ok().unwrap();
    let mut newest = Vec::new();
    let systems = [System::new("first"), System::new("second")];
    for system in &systems {
        let toplevel = system.build().unwrap().parse().unwrap();
        let node = bench.node(&toplevel, |_| {});
        let state = node.observe(Duration::from_secs(20)).await.unwrap();
        let order = driftless::node::Order {
            expected: state.running.clone(),
            ..bench.order(&toplevel, Goal::Switch)
        };
        let (show, _stage) = watch::channel(Stage::Preparing);
        let entry = node.deploy(&bench.nix(), &order, &show).await.unwrap();
        bench.assert_outcome(&entry, Outcome::Succeeded, None).await;
        newest.push(entry.id);
        let state = node.observe(Duration::from_secs(20)).await.unwrap();
        assert_eq!(state.journal.len(), 20);
        let told: Vec<_> = state.journal.iter().map(|entry| entry.id.clone()).collect();
        assert!(told.ends_with(&newest), "{newest:?} are not the newest of {told:?}");
        assert!(state.journal.iter().all(|entry| entry.phase == Phase::Finished));
        node.close().await;
    }
}
