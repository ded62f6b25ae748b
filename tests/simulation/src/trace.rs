//! What happened, for people: a line per event, and one per node whenever its decision is another one.

use std::collections::BTreeMap;
use std::sync::Arc;

use deciding::model::name::NodeName;
use deciding::model::snapshot::NodeView;

use crate::time::{Ms, time_of};

/// Written only when somebody is going to read it.
#[derive(Debug, Default)]
pub struct Trace {
    lines: Option<Vec<String>>,
    shown: BTreeMap<NodeName, String>,
}

impl Trace {
    pub fn written() -> Self {
        Self { lines: Some(Vec::new()), shown: BTreeMap::new() }
    }

    pub fn is_on(&self) -> bool {
        self.lines.is_some()
    }

    pub fn tell(&mut self, now: Ms, node: Option<&NodeName>, said: impl FnOnce() -> String) {
        if let Some(lines) = &mut self.lines {
            let time = time_of(now).strftime("%H:%M:%S");
            let node = node.map_or("-", NodeName::as_str);
            lines.push(format!("{time}.{:03}  {node:<4} {}", now % 1000, said()));
        }
    }

    pub fn show(&mut self, now: Ms, views: &BTreeMap<NodeName, Arc<NodeView>>) {
        if !self.is_on() {
            return;
        }
        for (name, view) in views {
            let line = format!("    = {}: {}", view.decision.as_str(), view.why);
            if self.shown.get(name) != Some(&line) {
                self.tell(now, Some(name), || line.clone());
                self.shown.insert(name.clone(), line);
            }
        }
    }

    pub fn text(&self) -> String {
        self.lines.as_ref().map(|lines| lines.join("\n")).unwrap_or_default()
    }
}
