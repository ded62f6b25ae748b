//! What the verbs that steer a running controller share: who asks, until when, and what is said where none runs.

use std::path::Path;

use anyhow::{Context, Result, bail};
use jiff::civil::{DateTime, Time};
use jiff::{SignedDuration, Span, SpanRelativeTo, Timestamp, Zoned};
use serde_json::{Value, json};

use super::ask::{self, AskError};
use super::{Global, act, fleet, output};
use crate::config;
use crate::controller;
use crate::model::intent::edit::{Done, Edit, Resume};

/// Until when something counts.
#[derive(Debug, Clone, clap::Args)]
#[group(multiple = false)]
pub struct End {
    /// For so long: 30m, 2h, 3d
    #[arg(long = "for", value_name = "DURATION", value_parser = lasting, allow_hyphen_values = true)]
    pub lasts: Option<SignedDuration>,
    /// Until then: 18:00, "2026-11-23 08:00" (in this host's time zone), 2026-11-23T08:00:00Z
    #[arg(long, value_name = "TIME", value_parser = moment)]
    pub until: Option<Timestamp>,
}

impl End {
    /// The time, if any was given.
    pub fn at(&self, now: Timestamp) -> Option<Timestamp> {
        let lasts = self.lasts.map(|lasts| now.saturating_add(lasts).unwrap_or(Timestamp::MAX));
        self.until.or(lasts)
    }
}

/// "30m", "2h", "3d", "1h 30m".
fn lasting(text: &str) -> Result<SignedDuration, String> {
    let refused = || format!("{text:?} is not a time to come; write for example 30m, 2h or 3d");
    let span: Span = text.parse().map_err(|_| refused())?;
    let lasting = span.to_duration(SpanRelativeTo::days_are_24_hours()).map_err(|_| refused())?;
    if lasting.is_positive() { Ok(lasting) } else { Err(refused()) }
}

fn moment(text: &str) -> Result<Timestamp, String> {
    moment_at(text, &Zoned::now())
}

/// A time of day is the next one.
fn moment_at(text: &str, now: &Zoned) -> Result<Timestamp, String> {
    let zone = now.time_zone();
    let absolute = text.parse::<Timestamp>().ok();
    let next = |time: Time| {
        let today = now.date().to_datetime(time).to_zoned(zone.clone()).ok()?;
        if today > *now {
            return Some(today.timestamp());
        }
        let tomorrow = now.date().tomorrow().ok()?.to_datetime(time).to_zoned(zone.clone()).ok()?;
        Some(tomorrow.timestamp())
    };
    let daily = || text.parse::<Time>().ok().and_then(next);
    let local = || Some(text.parse::<DateTime>().ok()?.to_zoned(zone.clone()).ok()?.timestamp());
    let found = absolute.or_else(local).or_else(daily).ok_or_else(|| {
        format!(
            "{text:?} is not a time; write for example 18:00, \"2026-11-23 08:00\" or 2026-11-23T08:00:00Z"
        )
    })?;
    if found > now.timestamp() { Ok(found) } else { Err(format!("{text} is in the past")) }
}

/// What is done where no controller runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Nobody {
    /// It is kept for the next one.
    Kept,
    /// It makes no sense.
    Refused,
}

/// Says something to the controller and prints what became of it.
pub async fn say(global: &Global, edit: Edit, nobody: Nobody) -> Result<()> {
    let by = act::asker();
    let socket = fleet::socket(global)?;
    let (verb, document) = document(&edit, &by);
    let done = match (ask::steer(&socket, verb, &document).await, nobody) {
        (Ok(done), _) => done,
        (Err(AskError::NotRunning { .. }), Nobody::Kept) => {
            let state = config::state_dir(std::env::var("STATE_DIRECTORY").ok());
            at_rest(global, &state, &edit, &by, &socket)?
        }
        (Err(error), _) => return Err(error.into()),
    };
    output::print(&done.said.iter().map(|said| format!("{said}\n")).collect::<String>())
}

/// On a host that has never had a controller a word would be kept for nobody.
fn at_rest(global: &Global, state: &Path, edit: &Edit, by: &str, socket: &Path) -> Result<Done> {
    if !state.is_dir() && global.config_if_any()?.is_none() {
        bail!(
            "no controller is running here (nobody listens on {}), and this host has neither a configuration nor the state of \
             one; say this where the controller runs",
            socket.display()
        );
    }
    let mut done = controller::edit_at_rest(state, edit, by)
        .with_context(|| format!("no controller is running: nobody listens on {}", socket.display()))?;
    done.said.push(format!("No controller runs here; the next one finds it in {}.", state.display()));
    Ok(done)
}

fn document(edit: &Edit, by: &str) -> (&'static str, Value) {
    match edit {
        Edit::Suspend(ask) => {
            ("suspend", json!({ "on": ask.on, "reason": ask.reason, "until": ask.until, "by": by }))
        }
        Edit::Resume(Resume::On(on)) => ("resume", json!({ "on": on, "by": by })),
        Edit::Resume(Resume::Id(id)) => ("resume", json!({ "id": id, "by": by })),
        Edit::Resume(Resume::All) => ("resume", json!({ "all": true, "by": by })),
        Edit::Resume(Resume::Unreadable) => ("resume", json!({ "by": by })),
        Edit::Approve(ask) => ("approve", json!({ "hash": ask.hash, "by": by })),
        Edit::Override(ask) => {
            ("override", json!({ "on": ask.on, "reason": ask.reason, "until": ask.until, "by": by }))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_long_is_told_from_what_is_no_time_to_come() {
        for (text, seconds) in [("30m", 1_800), ("2h", 7_200), ("3d", 259_200), ("1h 30m", 5_400)] {
            assert_eq!(lasting(text).unwrap().as_secs(), seconds, "{text}");
        }
        for bad in ["-1h", "0s", "2", "soon", ""] {
            assert!(lasting(bad).unwrap_err().contains("30m, 2h or 3d"), "{bad}");
        }
    }

    #[test]
    fn a_time_is_the_next_of_its_kind_in_this_hosts_zone() {
        let now: Zoned = "2026-11-22T17:00:00+01:00[Europe/Berlin]".parse().unwrap();
        for (text, at) in [
            ("18:00", "2026-11-22T17:00:00Z"),
            ("08:00", "2026-11-23T07:00:00Z"),
            ("2026-11-23 08:00", "2026-11-23T07:00:00Z"),
            ("2026-11-23T08:00:00Z", "2026-11-23T08:00:00Z"),
        ] {
            assert_eq!(moment_at(text, &now).unwrap().to_string(), at, "{text}");
        }
        assert!(moment_at("2026-11-21 08:00", &now).unwrap_err().contains("in the past"));
        assert!(moment_at("tomorrow", &now).unwrap_err().contains("is not a time"));
    }
}
