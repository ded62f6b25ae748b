//! The power goes, or the machine reboots in order, in every phase of a switch: it boots what its boot loader was left with, the
//! journal names the phase, and the next switch goes through and clears away what was left.

use driftless_lab::{Fault, Lab, Node, Setup, System};

use super::race::{furnish, race};

/// How the machine goes down.
#[derive(Debug, Clone, Copy)]
enum Down {
    /// Everything is killed at once.
    Cut,
    /// systemd stops every unit first.
    Reboot,
}

/// How far the installation of the boot loader had come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Loader {
    Untouched,
    /// The new system has an entry, which is not the default.
    Half,
    /// The new system's entry is the default.
    Done,
}

struct Case {
    phase: &'static str,
    down: Down,
    loader: Loader,
}

const fn case(phase: &'static str, down: Down, loader: Loader) -> Case {
    Case { phase, down, loader }
}

const CASES: [Case; 11] = [
    case("testing", Down::Cut, Loader::Untouched),
    case("contact", Down::Cut, Loader::Untouched),
    case("health", Down::Cut, Loader::Untouched),
    case("committing", Down::Cut, Loader::Untouched),
    case("committing", Down::Cut, Loader::Half),
    case("committing", Down::Cut, Loader::Done),
    case("rolling-back", Down::Cut, Loader::Untouched),
    case("testing", Down::Reboot, Loader::Untouched),
    case("contact", Down::Reboot, Loader::Untouched),
    case("committing", Down::Reboot, Loader::Done),
    case("rolling-back", Down::Reboot, Loader::Untouched),
];

/// The systems of all cases.
struct Systems {
    first: String,
    slow_first: String,
    slow: String,
    bad: String,
    hangs: String,
    good: String,
}

impl Systems {
    fn build() -> Systems {
        let built = System::build_all(&[
            System::new("first"),
            System::new("first").fault(Fault::Slow(600)),
            System::new("second").fault(Fault::Slow(600)),
            System::new("second").fault(Fault::ActivationFails),
            System::new("second").fault(Fault::BootLoaderHangs),
            System::new("third"),
        ])
        .unwrap();
        let [first, slow_first, slow, bad, hangs, good] = built.try_into().unwrap();
        Systems { first, slow_first, slow, bad, hangs, good }
    }

    fn all(&self) -> Vec<String> {
        [&self.first, &self.slow_first, &self.slow, &self.bad, &self.hangs, &self.good]
            .map(String::clone)
            .to_vec()
    }

    /// What the node runs and what it is told to switch to, so that it stays in that phase.
    fn for_phase(&self, phase: &str) -> (&str, &str) {
        match phase {
            "testing" => (&self.first, &self.slow),
            "committing" => (&self.first, &self.hangs),
            "rolling-back" => (&self.slow_first, &self.bad),
            _ => (&self.first, &self.good),
        }
    }
}

/// What an installation that was ended here had written.
fn install(node: &Node, system: &str, loader: Loader) {
    if loader == Loader::Untouched {
        return;
    }
    let default = if loader == Loader::Done { "printf 'default n2.conf\\n' >loader.conf" } else { ":" };
    let write = format!(
        "cd /boot/loader && sed 's|init=[^ ]*|init={system}/init|' entries/nixos-generation-1.conf >entries/n2.conf && {default}"
    );
    node.enter(&write).unwrap().ok().unwrap();
}

fn try_case(lab: &Lab, number: usize, systems: &Systems) {
    let Case { phase, down, loader } = CASES[number];
    let (first, new) = systems.for_phase(phase);
    let setup = Setup { store: systems.all(), ..Setup::default() };
    let node = lab.node_with(&format!("n{number}"), first, &setup).unwrap();
    furnish(&node);
    race(&node, &format!("begin {phase} {new}"));
    install(&node, new, loader);
    match down {
        Down::Cut => {
            node.power_cut().unwrap();
            node.start().unwrap();
        }
        Down::Reboot => node.reboot().unwrap(),
    }
    let boots = if loader == Loader::Done { new } else { first };
    assert_eq!(node.running().unwrap(), boots, "{phase} {down:?} {loader:?}");
    let summary = node.enter("tail -qn 1 /var/lib/driftless-node/switches/*/summary").unwrap().ok().unwrap();
    let fields: Vec<&str> = summary.split('\t').collect();
    assert_eq!(fields[3], phase, "{down:?} {loader:?}: {summary}");
    assert_ne!(fields[10], node.boot_id().unwrap(), "{phase} {down:?}: {summary}");
    // A line that the power has cut short says nothing.
    let torn = "for file in /var/lib/driftless-node/switches/*/summary; do printf '20261122T000000Z-0\\t/nix' >>$file; done";
    node.enter(torn).unwrap().ok().unwrap();
    let ask =
        "cd /var/lib/driftless-node/switches && id=$(ls | tail -n 1) && sh $id/switch.sh f attach $id - 0";
    let said = node.enter(ask).unwrap().stdout;
    assert!(said.contains(&format!("\t{phase}\t-\t")), "{phase} {down:?}: {said}");
    // Whatever it left, the next switch is an ordinary one, and nothing of both is left then.
    let next = if boots == systems.good { &systems.first } else { &systems.good };
    furnish(&node);
    race(&node, &format!("succeed {next}"));
    node.assert_sound(&[next], &[next]).unwrap();
    let roots = node.enter("ls /nix/var/nix/gcroots/driftless").unwrap();
    assert_eq!(roots.stdout.trim(), "", "{phase} {down:?}: roots of the interrupted switch are left");
}

#[test]
fn a_machine_that_goes_down_in_any_phase_boots_and_takes_the_next_switch() {
    let lab = Lab::start().unwrap();
    let systems = Systems::build();
    let failed: Vec<String> = std::thread::scope(|scope| {
        let (lab, systems) = (&lab, &systems);
        let all: Vec<_> =
            (0..CASES.len()).map(|number| scope.spawn(move || try_case(lab, number, systems))).collect();
        all.into_iter()
            .enumerate()
            .filter_map(|(number, one)| {
                let panic = one.join().err()?;
                let said = panic.downcast_ref::<String>().cloned().unwrap_or_default();
                Some(format!(
                    "--- {} {:?} {:?}: {said}",
                    CASES[number].phase, CASES[number].down, CASES[number].loader
                ))
            })
            .collect()
    });
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}
