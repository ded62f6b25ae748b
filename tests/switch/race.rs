//! Who is first: several `start`s, and the three who may say how a switch ends. The script under test is driven on the node
//! itself, where the moments are closest; `race.sh` is the node's half.

use driftless::node::SWITCH_SH;
use driftless_lab::{Fault, Lab, Node, Setup, System};

const RACE_SH: &str = include_str!("race.sh");

/// Both scripts, on /run: gone after each boot.
pub fn furnish(node: &Node) {
    std::fs::create_dir_all(node.path("/run/lab")).unwrap();
    std::fs::write(node.path("/run/lab/switch.sh"), SWITCH_SH).unwrap();
    std::fs::write(node.path("/run/lab/race.sh"), RACE_SH).unwrap();
}

/// Nodes that have both scripts and these systems.
fn nodes(lab: &Lab, count: usize, systems: &[String]) -> Vec<Node> {
    let setup = Setup { store: systems.to_vec(), ..Setup::default() };
    let nodes: Vec<Node> =
        (0..count).map(|n| lab.node_with(&format!("n{n}"), &systems[0], &setup).unwrap()).collect();
    nodes.iter().for_each(furnish);
    nodes
}

/// Calls the node's half.
pub fn race(node: &Node, words: &str) -> String {
    let said = node.enter(&format!("sh /run/lab/race.sh {words}")).unwrap();
    assert!(said.success() && !said.stdout.contains("FAILED"), "{words}: {said:?}");
    said.stdout
}

/// Does the same on all nodes at once.
fn on_all(nodes: &[Node], act: impl Fn(usize, &Node) -> Vec<String> + Sync) -> Vec<String> {
    std::thread::scope(|scope| {
        let act = &act;
        let all: Vec<_> =
            nodes.iter().enumerate().map(|(n, node)| scope.spawn(move || act(n, node))).collect();
        all.into_iter().flat_map(|one| one.join().unwrap()).collect()
    })
}

#[test]
fn of_several_starts_at_once_one_wins_and_the_others_leave_nothing_behind() {
    let lab = Lab::start().unwrap();
    let slow = System::new("slow").fault(Fault::Slow(5)).fault(Fault::ActivationFails);
    let systems = System::build_all(&[System::new("first"), slow]).unwrap();
    // Six contenders are fifteen pairs; on four nodes sixty.
    let nodes = nodes(&lab, 4, &systems);
    on_all(&nodes, |_, node| vec![race(node, &format!("starts {} 6", systems[1]))]);
    for node in &nodes {
        node.assert_sound(&[&systems[0]], &[&systems[0]]).unwrap();
        let entries = node.enter("ls /var/lib/driftless-node/switches | wc -l").unwrap().ok().unwrap();
        assert_eq!(entries, "1");
    }
}

#[test]
fn of_accept_reject_and_deadline_at_once_one_wins_and_all_are_told_which() {
    let lab = Lab::start().unwrap();
    let systems = System::build_all(&[System::new("first")]).unwrap();
    let nodes = nodes(&lab, 4, &systems);
    let told =
        on_all(&nodes, |n, node| vec![race(node, &format!("verdicts 60 {}", ["dash", "bash"][n % 2]))]);
    for who in ["accept", "reject", "timeout"] {
        let won = told.iter().flat_map(|one| one.lines()).filter_map(|line| line.strip_prefix(who));
        let won: u32 = won.map(|count| count.trim().parse::<u32>().unwrap()).sum();
        assert!(won > 0, "{who} never won, so nothing was raced: {told:?}");
    }
}

#[test]
fn a_verdict_at_the_very_deadline_is_what_the_journal_says() {
    let lab = Lab::start().unwrap();
    let systems = System::build_all(&[System::new("first"), System::new("second")]).unwrap();
    let nodes = nodes(&lab, 6, &systems);
    let told = on_all(&nodes, |_, node| {
        (1..=4)
            .map(|round| {
                let running = node.running().unwrap();
                let other = systems.iter().find(|system| **system != running).unwrap();
                race(node, &format!("switches {round} {other}")).trim().to_owned()
            })
            .collect()
    });
    assert_eq!(told.len(), 24);
    let all: Vec<&str> = systems.iter().map(String::as_str).collect();
    for node in &nodes {
        node.assert_sound(&all, &[&systems[0]]).unwrap();
    }
}
