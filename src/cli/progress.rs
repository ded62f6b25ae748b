//! What is being done to each node, while it is done: one live line a node on a terminal, `[node] stage` lines elsewhere.
//!
//! Writes to stderr, so that stdout holds the answer alone. Only shows; whoever acts tells it.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal};
use std::time::Duration;

use anstyle::AnsiColor;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::sync::watch;

use crate::model::name::NodeName;
use crate::model::observed::Stage;
use crate::model::spoken::bytes;

/// Between two pictures of a spinner that nothing happens to.
const TICK: Duration = Duration::from_millis(200);

/// The lines of all nodes of one verb.
#[derive(Debug)]
pub struct Progress {
    lines: BTreeMap<NodeName, Line>,
}

/// Where one node's stages are shown.
#[derive(Debug)]
enum Line {
    /// A line that is drawn again.
    Live(ProgressBar),
    /// A new line for each stage, with the node's name in front.
    Plain,
    /// Nowhere.
    Silent,
}

/// A line that turns while one thing is waited for that is about no single node; gone when this is dropped.
#[derive(Debug)]
pub struct Waiting(ProgressBar);

impl Waiting {
    /// Shows what is waited for, on a terminal.
    pub fn on(what: String) -> Self {
        if !io::stderr().is_terminal() {
            return Self(ProgressBar::hidden());
        }
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        let bar = bar.with_style(style("{spinner} {wide_msg} {elapsed:>4}")).with_message(what);
        bar.enable_steady_tick(TICK);
        Self(bar)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

/// How much is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Show {
    /// Whatever suits stderr.
    Stages,
    /// Nothing.
    Nothing,
}

/// How something ended, for its last line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// As it should.
    Well,
    /// Not as it should.
    Badly,
}

impl Progress {
    /// Lines for these nodes.
    pub fn new<'a>(nodes: impl IntoIterator<Item = &'a NodeName>, show: Show) -> Self {
        let nodes: Vec<&NodeName> = nodes.into_iter().collect();
        let line: Box<dyn Fn(&NodeName) -> Line> = match show {
            Show::Nothing => Box::new(|_| Line::Silent),
            Show::Stages if !io::stderr().is_terminal() => Box::new(|_| Line::Plain),
            Show::Stages => {
                let all = MultiProgress::with_draw_target(ProgressDrawTarget::stderr());
                let width = nodes.iter().map(|name| name.as_str().len()).max().unwrap_or(0);
                Box::new(move |name| Line::Live(live(&all, name, width)))
            }
        };
        Self { lines: nodes.into_iter().map(|name| (name.clone(), line(name))).collect() }
    }

    /// Shows what is being done to a node.
    pub fn say(&self, node: &NodeName, doing: &str) {
        match self.lines.get(node) {
            Some(Line::Live(bar)) => bar.set_message(first_line(doing).to_owned()),
            Some(Line::Plain) => anstream::eprintln!("[{node}] {doing}"),
            Some(Line::Silent) | None => {}
        }
    }

    /// Shows the last word about a node; its line stays.
    pub fn end(&self, node: &NodeName, ended: Ended, how: &str) {
        let color = match ended {
            Ended::Well => AnsiColor::Green,
            Ended::Badly => AnsiColor::Red,
        }
        .on_default();
        match self.lines.get(node) {
            Some(Line::Live(bar)) => {
                // indicatif draws its template's own colours and leaves those in a message alone.
                let style = if console_colors() {
                    (color.render().to_string(), "\u{1b}[0m")
                } else {
                    (String::new(), "")
                };
                bar.finish_with_message(format!("{}{}{}", style.0, first_line(how), style.1));
            }
            Some(Line::Plain) => anstream::eprintln!("[{node}] {how}"),
            Some(Line::Silent) | None => {}
        }
    }

    /// Ends the last live line, so that the answer starts on a line of its own.
    pub fn close(&self) {
        if self.lines.values().any(|line| matches!(line, Line::Live(_))) {
            anstream::eprintln!();
        }
    }

    /// Shows a deployment's stages until it is over: until its sender is gone.
    pub async fn follow(&self, node: &NodeName, mut stages: watch::Receiver<Stage>) {
        let mut last = String::new();
        loop {
            let stage = stages.borrow_and_update().clone();
            let words = match self.lines.get(node) {
                // Elsewhere than on a terminal each stage is said once, not each MiB.
                Some(Line::Plain) => coarse(&stage),
                Some(Line::Live(_) | Line::Silent) | None => fine(&stage),
            };
            if words != last {
                self.say(node, &words);
                last = words;
            }
            if stages.changed().await.is_err() {
                return;
            }
        }
    }
}

fn live(all: &MultiProgress, name: &NodeName, width: usize) -> ProgressBar {
    let line = ProgressBar::new_spinner().with_style(style("{spinner} {prefix}  {wide_msg} {elapsed:>4}"));
    let bar = all.add(line.with_prefix(format!("{name:width$}")));
    bar.enable_steady_tick(TICK);
    bar
}

/// Templates are constants; were one wrong, a plain spinner would be seen.
fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner())
}

fn console_colors() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|no| no.is_empty())
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

/// A stage with its figures.
pub fn fine(stage: &Stage) -> String {
    match stage {
        Stage::Copying { bytes: done, total } if *total > 0 => {
            format!("copying {} of {}", bytes(*done), bytes(*total))
        }
        Stage::Copying { bytes: done, total: _ } if *done > 0 => format!("copying {}", bytes(*done)),
        Stage::Building { done, total, now } if !now.is_empty() => {
            format!("building on the node, {done} of {total}: {now}")
        }
        Stage::Preparing
        | Stage::Rebooting
        | Stage::Copying { .. }
        | Stage::Building { .. }
        | Stage::Hook { .. }
        | Stage::Switching { .. } => coarse(stage),
    }
}

/// A stage without what changes all the time.
fn coarse(stage: &Stage) -> String {
    match stage {
        Stage::Preparing => "preparing".into(),
        Stage::Rebooting => "rebooting".into(),
        Stage::Copying { bytes: _, total } if *total > 0 => format!("copying {}", bytes(*total)),
        Stage::Copying { .. } => "copying".into(),
        Stage::Building { .. } => "building on the node".into(),
        Stage::Hook { name, said, .. } if said.is_empty() => format!("hook {name}"),
        Stage::Hook { name, said, .. } => format!("{name}: {said}"),
        Stage::Switching { phase, detail } if detail.is_empty() => phase.as_str().into(),
        Stage::Switching { phase, detail } => format!("{}: {detail}", phase.as_str()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::journal::Phase;

    #[test]
    fn the_templates_of_live_lines_are_valid() {
        for template in ["{spinner} {prefix}  {wide_msg} {elapsed:>4}", "{spinner} {wide_msg} {elapsed:>4}"] {
            assert!(ProgressStyle::with_template(template).is_ok());
        }
    }

    #[test]
    fn figures_are_for_terminals_alone() {
        let half = Stage::Copying { bytes: 1 << 20, total: 2 << 20 };
        assert_eq!(
            (fine(&half).as_str(), coarse(&half).as_str()),
            ("copying 1.0 MiB of 2.0 MiB", "copying 2.0 MiB")
        );
        let health = Stage::Switching { phase: Phase::Health, detail: "nginx.service 1 of 2".into() };
        assert_eq!(fine(&health), "health: nginx.service 1 of 2");
        assert_eq!(fine(&Stage::Copying { bytes: 0, total: 0 }), "copying");
    }

    #[tokio::test]
    async fn following_ends_with_the_deployment() {
        let node: NodeName = "web1".parse().unwrap();
        let progress = Progress::new([&node], Show::Nothing);
        let (sender, receiver) = watch::channel(Stage::Preparing);
        let deploy = async move {
            sender.send_replace(Stage::Copying { bytes: 1, total: 2 });
        };
        tokio::join!(progress.follow(&node, receiver), deploy);
    }
}
