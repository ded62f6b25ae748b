//! When nodes may be worked on, said by a calendar: days, hours, dates, a time zone.

use std::collections::BTreeSet;
use std::fmt;

use jiff::civil::{Date, Time, Weekday};
use jiff::tz::{TimeZone, TimeZoneDatabase};
use serde::{Deserialize, Serialize};

use crate::model::ParseError;
use crate::model::selector::Selector;

/// A span of time, said by a calendar, in which nodes may or may not be worked on. A node that some `allow` windows select
/// may be while one of them is open; none may be while a `deny` window that selects it is open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "FlatWindow", into = "FlatWindow")]
pub struct Window {
    /// Which nodes.
    pub on: Selector,
    /// Whether it opens or shuts.
    pub effect: Effect,
    /// When.
    pub span: Span,
}

/// A window as it is written. (`serde(flatten)` would not say in which field a mistake is.)
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct FlatWindow {
    #[serde(default = "Selector::everything")]
    on: Selector,
    #[serde(default)]
    effect: Effect,
    #[serde(default)]
    days: BTreeSet<Day>,
    #[serde(default)]
    hours: Option<Hours>,
    #[serde(default)]
    from: Option<Date>,
    #[serde(default)]
    until: Option<Date>,
    time_zone: Zone,
}

impl From<FlatWindow> for Window {
    fn from(flat: FlatWindow) -> Self {
        let FlatWindow { on, effect, days, hours, from, until, time_zone } = flat;
        Self { on, effect, span: Span { days, hours, from, until, time_zone } }
    }
}

impl From<Window> for FlatWindow {
    fn from(window: Window) -> Self {
        let Window { on, effect, span: Span { days, hours, from, until, time_zone } } = window;
        Self { on, effect, days, hours, from, until, time_zone }
    }
}

/// What a window does while it is open.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Effect {
    /// Nodes may be worked on.
    #[default]
    Allow,
    /// They may not.
    Deny,
}

impl fmt::Display for Effect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
        })
    }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.effect, self.span)
    }
}

/// Times of a calendar. A day of it begins where its hours begin: hours past midnight belong to the day before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Span {
    /// On these days of the week; empty: on all.
    #[serde(default)]
    pub days: BTreeSet<Day>,
    /// From when to when; `None`: the whole day. Where the end is not after the beginning, it is on the next day.
    #[serde(default)]
    pub hours: Option<Hours>,
    /// Not before this day.
    #[serde(default)]
    pub from: Option<Date>,
    /// Not after this day.
    #[serde(default)]
    pub until: Option<Date>,
    /// Whose clock and calendar.
    pub time_zone: Zone,
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let dates = match (self.from, self.until) {
            (None, None) => None,
            (Some(from), None) => Some(format!("from {from}")),
            (None, Some(until)) => Some(format!("until {until}")),
            (Some(from), Some(until)) if from == until => Some(format!("on {from}")),
            (Some(from), Some(until)) => Some(format!("{from} to {until}")),
        };
        let days = (!self.days.is_empty()).then(|| in_words(&self.days));
        let parts: Vec<String> =
            [days, self.hours.map(|hours| hours.to_string()), dates].into_iter().flatten().collect();
        let when = if parts.is_empty() { "every day".to_owned() } else { parts.join(" ") };
        write!(f, "{when} {}", self.time_zone)
    }
}

/// `mon-fri,sun`.
fn in_words(days: &BTreeSet<Day>) -> String {
    let all: Vec<Day> = Day::ALL.into_iter().filter(|day| days.contains(day)).collect();
    let runs = all.chunk_by(|day, next| *next as u8 == *day as u8 + 1);
    let run = |run: &[Day]| match run {
        [] => String::new(),
        [day] => day.to_string(),
        [first, last] => format!("{first},{last}"),
        [first, .., last] => format!("{first}-{last}"),
    };
    runs.map(run).collect::<Vec<_>>().join(",")
}

/// A day of the week, as `mon` to `sun`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Day {
    /// Monday.
    Mon,
    /// Tuesday.
    Tue,
    /// Wednesday.
    Wed,
    /// Thursday.
    Thu,
    /// Friday.
    Fri,
    /// Saturday.
    Sat,
    /// Sunday.
    Sun,
}

impl Day {
    /// All of them, from Monday on.
    pub const ALL: [Self; 7] = [Self::Mon, Self::Tue, Self::Wed, Self::Thu, Self::Fri, Self::Sat, Self::Sun];
}

impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Mon => "mon",
            Self::Tue => "tue",
            Self::Wed => "wed",
            Self::Thu => "thu",
            Self::Fri => "fri",
            Self::Sat => "sat",
            Self::Sun => "sun",
        })
    }
}

impl From<Weekday> for Day {
    fn from(day: Weekday) -> Self {
        match day {
            Weekday::Monday => Self::Mon,
            Weekday::Tuesday => Self::Tue,
            Weekday::Wednesday => Self::Wed,
            Weekday::Thursday => Self::Thu,
            Weekday::Friday => Self::Fri,
            Weekday::Saturday => Self::Sat,
            Weekday::Sunday => Self::Sun,
        }
    }
}

/// How people write the end of a day.
const END_OF_DAY: &str = "24:00";

/// A part of a day: `09:00-17:00`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Hours {
    /// From then on.
    pub from: Time,
    /// Until then; midnight is the end of the day.
    pub to: Time,
}

impl TryFrom<String> for Hours {
    type Error = ParseError;

    fn try_from(text: String) -> Result<Self, ParseError> {
        let clock = |text: &str| {
            let two_digits = |text: &str| text.len() == 2 && text.bytes().all(|b| b.is_ascii_digit());
            let (hours, minutes) = text.split_once(':').filter(|(h, m)| two_digits(h) && two_digits(m))?;
            Time::new(hours.parse().ok()?, minutes.parse().ok()?, 0, 0).ok()
        };
        let end = |text: &str| if text == END_OF_DAY { Some(Time::midnight()) } else { clock(text) };
        let parsed = text.split_once('-').and_then(|(from, to)| Some((clock(from)?, end(to)?)));
        match parsed {
            Some((from, to)) => Ok(Self { from, to }),
            None => Err(ParseError {
                what: "part of a day",
                input: text,
                expected: "two times, for example \"09:00-17:00\" or \"22:00-04:00\"",
            }),
        }
    }
}

impl From<Hours> for String {
    fn from(hours: Hours) -> Self {
        hours.to_string()
    }
}

impl fmt::Display for Hours {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-", self.from.strftime("%H:%M"))?;
        if self.to == Time::midnight() {
            f.write_str(END_OF_DAY)
        } else {
            write!(f, "{}", self.to.strftime("%H:%M"))
        }
    }
}

/// A time zone of the IANA database, for example `Europe/Berlin`. The database is the program's own: whatever the host has,
/// the same deployment means the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Zone(TimeZone);

impl Zone {
    /// Its rules.
    pub fn rules(&self) -> &TimeZone {
        &self.0
    }
}

impl TryFrom<String> for Zone {
    type Error = ParseError;

    fn try_from(name: String) -> Result<Self, ParseError> {
        match TimeZoneDatabase::bundled().get(&name) {
            Ok(zone) => Ok(Self(zone)),
            Err(_) => Err(ParseError {
                what: "time zone",
                input: name,
                expected: "a name of the IANA database, for example \"Europe/Berlin\" or \"UTC\"",
            }),
        }
    }
}

impl From<Zone> for String {
    fn from(zone: Zone) -> Self {
        zone.to_string()
    }
}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.iana_name().unwrap_or("UTC"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(json: serde_json::Value) -> Window {
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn a_window_is_named_by_what_it_says() {
        for (json, expected) in [
            (serde_json::json!({ "timeZone": "UTC" }), "allow every day UTC"),
            (
                serde_json::json!({ "days": ["fri", "mon", "tue", "wed", "thu"], "hours": "09:00-17:00", "timeZone": "Europe/Berlin" }),
                "allow mon-fri 09:00-17:00 Europe/Berlin",
            ),
            (
                serde_json::json!({ "effect": "deny", "from": "2026-12-20", "until": "2027-01-02", "timeZone": "Europe/Berlin" }),
                "deny 2026-12-20 to 2027-01-02 Europe/Berlin",
            ),
            (
                serde_json::json!({ "days": ["sun", "mon", "tue", "fri"], "hours": "22:00-00:00", "until": "2027-01-02", "timeZone": "UTC" }),
                "allow mon,tue,fri,sun 22:00-24:00 until 2027-01-02 UTC",
            ),
            (
                serde_json::json!({ "from": "2027-01-01", "until": "2027-01-01", "timeZone": "UTC" }),
                "allow on 2027-01-01 UTC",
            ),
        ] {
            assert_eq!(window(json).to_string(), expected);
        }
    }

    #[test]
    fn hours_are_two_times_of_day() {
        let hours = |text: &str| Hours::try_from(text.to_owned()).map(|hours| hours.to_string());
        assert_eq!(hours("22:00-04:30"), Ok("22:00-04:30".into()));
        assert_eq!(hours("00:00-24:00"), Ok("00:00-24:00".into()));
        for bad in [
            "",
            "9:00-17:00",
            "09:00",
            "+9:00-17:00",
            "09:00-25:00",
            "24:00-02:00",
            "09:60-10:00",
            "09:00 - 17:00",
        ] {
            assert!(hours(bad).is_err(), "{bad}");
        }
    }
}
