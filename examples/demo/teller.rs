//! How the story looks on the terminal: headings, what happens with the seconds since the start, text that is shown.
//! Never decides what is told.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Instant;

use anstream::{eprintln, println};
use anstyle::{AnsiColor, Style};
use serde_json::Value;

const BOLD: Style = Style::new().bold();
const DIM: Style = Style::new().dimmed();

/// The voice.
pub struct Teller {
    start: Instant,
    /// What was last told of each node.
    nodes: RefCell<BTreeMap<String, String>>,
}

impl Teller {
    /// The clock starts now.
    pub fn start() -> Teller {
        Teller { start: Instant::now(), nodes: RefCell::default() }
    }

    /// A new part of the story.
    pub fn heading(&self, text: &str) {
        let line = "─".repeat(text.chars().count());
        println!("\n{BOLD}{text}{BOLD:#}\n{DIM}{line}{DIM:#}");
    }

    /// A sentence.
    pub fn say(&self, text: &str) {
        println!("{} {text}", self.clock());
    }

    /// Something that happened to a node.
    pub fn event(&self, node: &str, text: &str) {
        println!("{} {BOLD}{node}{BOLD:#}  {text}", self.clock());
    }

    /// Something that was found to be true.
    pub fn checked(&self, text: &str) {
        let green = AnsiColor::Green.on_default();
        println!("{} {green}✓{green:#} {text}", self.clock());
    }

    /// A command line whose output follows.
    pub fn command(&self, line: &str) {
        println!("\n{DIM}${DIM:#} {BOLD}{line}{BOLD:#}");
    }

    /// A text as it is, a little indented. `+` and `-` lines of a diff get their colours.
    pub fn show(&self, text: &str) {
        println!();
        for line in text.lines() {
            let style = match line.chars().next() {
                Some('+') => AnsiColor::Green.on_default(),
                Some('-') => AnsiColor::Red.on_default(),
                Some(_) | None => Style::new(),
            };
            println!("    {style}{line}{style:#}");
        }
        println!();
    }

    /// The end, when it is not a good one.
    pub fn failure(&self, reason: &str, log: &str) {
        let red = AnsiColor::Red.on_default().bold();
        eprintln!("\n{} {red}The demo failed:{red:#} {reason}", self.clock());
        if !log.is_empty() {
            eprintln!("\nThe end of the controller's log:\n{log}");
        }
    }

    /// Tells what is new about each node in a snapshot of the fleet.
    pub fn follow(&self, snapshot: &Value) {
        let mut told = self.nodes.borrow_mut();
        for (name, node) in snapshot["nodes"].as_object().into_iter().flatten() {
            let news = news(node);
            if !news.is_empty() && told.get(name) != Some(&news) {
                self.event(name, &news);
                told.insert(name.clone(), news);
            }
        }
    }

    fn clock(&self) -> String {
        format!("{DIM}{:>5.1} s{DIM:#} ", self.start.elapsed().as_secs_f32())
    }
}

/// What is to be told of a node: only what stays true for a moment, so that the counting of bytes does not fill the screen.
fn news(node: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let stage = &node["inFlight"]["stage"];
    match (text(&stage["stage"]).as_str(), text(&node["state"]).as_str()) {
        ("preparing", _) => "connecting".into(),
        ("copying", _) => "copying what it does not have".into(),
        ("switching", _) => match text(&stage["phase"]).as_str() {
            "checking" => "the node takes over: checking".into(),
            "testing" => "activating the new system".into(),
            "contact" => "activated; the node waits for somebody to log in".into(),
            "health" => "activated; the node waits for its health".into(),
            "committing" => "healthy; becomes the boot default".into(),
            "rolling-back" => "going back to the system before".into(),
            // It ended; the outcome comes with the next look.
            _ => String::new(),
        },
        (_, "in-sync") => format!("in sync with {}", text(&node["runningRevision"])),
        (_, "rolled-back") => "rolled back".into(),
        (_, "held" | "switching") => String::new(),
        (_, state) => format!("{}: {}", state.replace('-', " "), text(&node["why"])),
    }
}
