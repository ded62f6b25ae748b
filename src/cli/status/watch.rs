//! `driftless status --watch`: the same picture, drawn again in place as it changes; lines of what has changed where stdout is
//! no terminal. Ends with Ctrl-C.

use std::collections::BTreeMap;
use std::io::IsTerminal as _;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use jiff::Timestamp;
use tokio::signal::unix::{SignalKind, signal};

use super::{Args, people, text};
use crate::cli::ask::{self, AskError};
use crate::cli::fleet::choose;
use crate::cli::output::{self, Format};
use crate::cli::{Global, fleet};
use crate::model::name::NodeName;
use crate::model::snapshot::Snapshot;

/// Between two looks.
const PAUSE: Duration = Duration::from_secs(1);
/// To the first column of the first line; the rest of this line; the rest of the screen.
const HOME: &str = "\x1b[H";
const END_OF_LINE: &str = "\x1b[K\n";
const END_OF_SCREEN: &str = "\x1b[J";
/// A screen of its own, so that what was there before is there again afterwards; and back.
const OWN_SCREEN: &str = "\x1b[?1049h\x1b[?25l";
const OLD_SCREEN: &str = "\x1b[?25h\x1b[?1049l";

/// Shows the controller's fleet until Ctrl-C.
pub async fn run(global: &Global, args: &Args) -> Result<ExitCode> {
    if args.look.fleet.declared.named().is_some() {
        bail!("--watch shows the fleet of a running controller, and no deployment");
    }
    if args.look.format == Format::Json {
        bail!("--watch is for people; read `driftless status --format json` as often as you like");
    }
    let socket = fleet::socket(global)?;
    // One that cannot be asked at all is an error, and not waited for.
    choose(ask::fleet(&socket).await?, &args.look.fleet)?;
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen to SIGTERM")?;
    let is_terminal = std::io::stdout().is_terminal();
    if is_terminal {
        output::print(OWN_SCREEN)?;
    }
    let shown = async {
        let mut told = BTreeMap::new();
        loop {
            let picture = match ask::fleet(&socket).await {
                Ok(snapshot) => Ok(choose(snapshot, &args.look.fleet)?),
                // It may be restarting.
                Err(error @ AskError::NotRunning { .. }) => Err(error.to_string()),
                Err(error) => return Err(error.into()),
            };
            if is_terminal {
                output::print(&screen(&picture))?;
            } else {
                output::print(&changes(&mut told, &picture))?;
            }
            tokio::time::sleep(PAUSE).await;
        }
    };
    let ended = tokio::select! {
        ended = shown => ended,
        heard = tokio::signal::ctrl_c() => heard.context("cannot listen to Ctrl-C").map(|()| ExitCode::SUCCESS),
        _ = terminate.recv() => Ok(ExitCode::SUCCESS),
    };
    if is_terminal {
        output::print(OLD_SCREEN)?;
    }
    ended
}

/// As much of the picture as fits.
fn screen(picture: &Result<Snapshot, String>) -> String {
    let size = terminal_size::terminal_size();
    let width = size.map(|(width, _)| usize::from(width.0));
    let height = size.map_or(24, |(_, height)| usize::from(height.0)).max(3);
    let text = match picture {
        Ok(snapshot) => text(snapshot, Timestamp::now(), width),
        Err(said) => format!("{said}; waiting for one\n"),
    };
    let lines: Vec<&str> = text.lines().collect();
    let (fit, rest) = lines.split_at(lines.len().min(height - 1));
    let mut drawn = HOME.to_owned();
    for line in fit {
        drawn.push_str(line);
        drawn.push_str(END_OF_LINE);
    }
    if !rest.is_empty() {
        drawn.push_str(&format!("… {} lines more; --on shows fewer nodes", rest.len()));
    }
    drawn + END_OF_SCREEN
}

/// What is told of a node, and of everything else, by name.
type Told = BTreeMap<Option<NodeName>, String>;

fn changes(told: &mut Told, picture: &Result<Snapshot, String>) -> String {
    let mut now: Told = BTreeMap::new();
    match picture {
        Ok(snapshot) => {
            for (name, node) in &snapshot.nodes {
                let line = format!("{name}: {}{} {}", node.state.as_str(), node.note(), node.why);
                now.insert(Some(name.clone()), line.trim_end().to_owned());
            }
            let people = people::lines(snapshot, snapshot.at);
            let stable = |line: &String| !line.starts_with("Suspended:");
            now.insert(None, people.into_iter().filter(stable).collect::<Vec<_>>().join("\n"));
        }
        Err(said) => {
            // The nodes are what they were, as far as anybody knows.
            now.clone_from(told);
            now.insert(None, said.clone());
        }
    }
    let at = Timestamp::now().strftime("%H:%M:%SZ").to_string();
    let is_new =
        |(name, line): &(&Option<NodeName>, &String)| told.get(*name) != Some(*line) && !line.is_empty();
    let mut text: String = now
        .iter()
        .filter(is_new)
        .flat_map(|(_, lines)| lines.lines())
        .map(|line| format!("{at} {line}\n"))
        .collect();
    for gone in told.keys().flatten().filter(|name| !now.contains_key(&Some((*name).clone()))) {
        text.push_str(&format!("{at} {gone}: no longer declared\n"));
    }
    *told = now;
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::sample;
    use crate::model::snapshot::State;

    #[test]
    fn what_is_no_terminal_gets_a_line_for_each_change() {
        let mut told = Told::new();
        let mut snapshot = sample::quiet();
        let first = changes(&mut told, &Ok(snapshot.clone()));
        assert!(first.trim_end().ends_with("web1: in sync runs what Git says"), "{first}");
        assert_eq!(changes(&mut told, &Ok(snapshot.clone())), "");
        for node in snapshot.nodes.values_mut() {
            std::sync::Arc::make_mut(node).state = State::Held;
        }
        assert_eq!(changes(&mut told, &Ok(snapshot.clone())).lines().count(), 1);
        assert!(changes(&mut told, &Err("no controller is running".into())).contains("no controller"));
        snapshot.nodes.clear();
        assert!(changes(&mut told, &Ok(snapshot)).contains("web1: no longer declared"));
    }
}
