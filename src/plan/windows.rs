//! Whether the windows of a node are open, and when that changes: exact, by the calendar and clock of each window.
//!
//! What a window says in local time becomes moments as most calendars do it. A time that a change to summer time leaves out
//! is as much later as the clock is put forward: of 02:15-02:45 becomes 03:15-03:45, so that a daily window opens on that
//! day too. A time that the change back repeats is the first of the two: 02:00-03:00 then lasts two hours, 02:15-02:45
//! half an hour. Where the end comes to lie before the beginning, as of 02:30-03:15, the window does not open on that day.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use jiff::civil::{Date, Time};

use crate::model::name::{NodeName, Tag};
use crate::model::rollout::{Day, Effect, Span, Window};

/// A span that is open for so many days in a row is always open, one that is shut for so long is over: a calendar repeats
/// itself each week, and at a change of the clocks one day of it may be missing.
const DAYS: usize = 16;

/// So many openings and closings that do not change what counts are looked at. More have only windows that take turns to
/// keep a node open, and those do not stop.
const TURNS: usize = 128;

/// What the windows of a node say at a moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// Whether it may be worked on.
    pub open: bool,
    /// When `open` or `by` becomes something else; `None` where it never does. Always later than the moment.
    pub changes_at: Option<Timestamp>,
    /// Where it may not: the window that shuts it or, where none does, the one that will open next.
    pub by: Option<String>,
}

/// What the windows that select one node say: it may be worked on while one of those that allow is open, or where none
/// allows, and no window that denies is open. A fleet has few different sets of windows: see [`Calendar`].
pub fn standing<'a>(windows: impl Iterator<Item = &'a Window>, now: Timestamp) -> Standing {
    let windows: Vec<&Window> = windows.collect();
    let first = Moment::of(&windows, now);
    let mut next = first.constant_until;
    for _ in 0..TURNS {
        let Some(at) = next else { break };
        let moment = Moment::of(&windows, at);
        if moment.says != first.says {
            return first.says.told(&windows, Some(at));
        }
        next = moment.constant_until;
    }
    first.says.told(&windows, None)
}

/// Whether a span is open, and when it next opens or closes; `None` where it never does.
pub fn span_standing(span: &Span, now: Timestamp) -> (bool, Option<Timestamp>) {
    // A day that a zone left out, at the date line, puts what began two days ago on today.
    let Some(begin) =
        span.time_zone.rules().to_datetime(now).date().checked_sub(jiff::Span::new().days(2)).ok()
    else {
        return (false, None);
    };
    let begin = span.from.map_or(begin, |from| from.max(begin));
    let mut open_until: Option<Timestamp> = None;
    for date in begin.series(jiff::Span::new().days(1)).take(DAYS) {
        if span.until.is_some_and(|until| date > until) {
            return (open_until.is_some(), open_until);
        }
        let Some((from, to)) = occurrence(span, date).filter(|(_, to)| *to > now) else { continue };
        match open_until {
            None if from > now => return (false, Some(from)),
            None => open_until = Some(to),
            Some(until) if from > until => return (true, Some(until)),
            Some(until) => open_until = Some(until.max(to)),
        }
    }
    match open_until {
        None => (false, None),
        Some(_) => (true, span.until.and_then(|until| occurrence(span, until)).map(|(_, to)| to)),
    }
}

/// The moments at which a span opens and closes that begins on this day.
fn occurrence(span: &Span, date: Date) -> Option<(Timestamp, Timestamp)> {
    if !span.days.is_empty() && !span.days.contains(&Day::from(date.weekday())) {
        return None;
    }
    let (from, to) = span.hours.map_or((Time::midnight(), Time::midnight()), |hours| (hours.from, hours.to));
    let last = if to > from { date } else { date.tomorrow().ok()? };
    let moment = |date: Date, time: Time| span.time_zone.rules().to_timestamp(date.to_datetime(time)).ok();
    let (from, to) = (moment(date, from)?, moment(last, to)?);
    (from < to).then_some((from, to))
}

/// What several windows say together; windows by their place in the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Says {
    Open,
    Denied { by: usize },
    OpensNext { window: usize },
    NeverAgain,
}

impl Says {
    fn told(self, windows: &[&Window], changes_at: Option<Timestamp>) -> Standing {
        let name = |at: usize| windows.get(at).map(ToString::to_string);
        let (open, by) = match self {
            Self::Open => (true, None),
            Self::Denied { by } => (false, name(by)),
            Self::OpensNext { window } => (false, name(window)),
            Self::NeverAgain => (false, Some("no window allows it any more".into())),
        };
        Standing { open, changes_at, by }
    }
}

/// What windows say at one moment.
struct Moment {
    says: Says,
    /// Until then at least they say the same.
    constant_until: Option<Timestamp>,
}

impl Moment {
    fn of(windows: &[&Window], at: Timestamp) -> Self {
        let (mut allows, mut denies) = (Vec::new(), Vec::new());
        for (place, window) in windows.iter().enumerate() {
            let (open, changes_at) = span_standing(&window.span, at);
            match window.effect {
                Effect::Allow => allows.push((place, open, changes_at)),
                Effect::Deny => denies.push((place, open, changes_at)),
            }
        }
        let first =
            |turns: &[(usize, bool, Option<Timestamp>)]| turns.iter().filter_map(|(.., at)| *at).min();
        if let Some(nth) = denies.iter().position(|(_, open, _)| *open) {
            return Self { says: Says::Denied { by: denies[nth].0 }, constant_until: first(&denies[..=nth]) };
        }
        let until = |says, turn: Option<Timestamp>| Self {
            says,
            constant_until: turn.into_iter().chain(first(&denies)).min(),
        };
        let open: Vec<_> = allows.iter().filter(|(_, open, _)| *open).map(|(.., closes)| *closes).collect();
        if allows.is_empty() {
            until(Says::Open, None)
        } else if !open.is_empty() {
            // The last of them to close; one that never does is `None`.
            until(
                Says::Open,
                open.into_iter().collect::<Option<Vec<_>>>().and_then(|closings| closings.into_iter().max()),
            )
        } else {
            let opens = |(window, _, opens): &(usize, bool, Option<Timestamp>)| opens.map(|at| (at, *window));
            match allows.iter().filter_map(opens).min() {
                Some((at, window)) => until(Says::OpensNext { window }, Some(at)),
                None => until(Says::NeverAgain, None),
            }
        }
    }
}

/// The windows of a fleet at one moment. Nodes that the same windows select are looked up once.
#[derive(Debug)]
pub struct Calendar<'a> {
    windows: &'a [Window],
    now: Timestamp,
    known: BTreeMap<Vec<usize>, Standing>,
}

impl<'a> Calendar<'a> {
    /// Looks nothing up yet.
    pub fn new(windows: &'a [Window], now: Timestamp) -> Self {
        Self { windows, now, known: BTreeMap::new() }
    }

    /// What the windows say that select this node.
    pub fn of(&mut self, node: &NodeName, tags: &BTreeSet<Tag>) -> &Standing {
        let places = self.windows.iter().enumerate().filter(|(_, window)| window.on.matches(node, tags));
        let places: Vec<usize> = places.map(|(place, _)| place).collect();
        let (windows, now) = (self.windows, self.now);
        let look_up =
            |places: &Vec<usize>| standing(places.iter().filter_map(|place| windows.get(*place)), now);
        self.known.entry(places).or_insert_with_key(look_up)
    }
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;
    use proptest::prelude::*;
    use proptest::sample::{select, subsequence};
    use serde_json::json;

    use super::*;

    fn window(json: serde_json::Value) -> Window {
        serde_json::from_value(json).unwrap()
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    /// What a span says, with the moment of the change as its own clock shows it.
    fn says(span: &Window, now: &str) -> (bool, String) {
        let (open, changes_at) = span_standing(&span.span, at(now));
        let local = |at: Timestamp| {
            at.to_zoned(span.span.time_zone.rules().clone()).strftime("%F %H:%M%:z").to_string()
        };
        (open, changes_at.map_or("never".into(), local))
    }

    fn one(windows: &[Window], now: &str) -> (bool, Option<Timestamp>, Option<String>) {
        let Standing { open, changes_at, by } = standing(windows.iter(), at(now));
        (open, changes_at, by)
    }

    #[test]
    fn hours_of_some_days_open_and_close() {
        let office = window(
            json!({ "days": ["mon", "tue", "wed", "thu", "fri"], "hours": "09:00-17:00", "timeZone": "Europe/Berlin" }),
        );
        for (now, expected) in [
            ("2026-11-27T07:59:59Z", (false, "2026-11-27 09:00+01:00")),
            ("2026-11-27T08:00:00Z", (true, "2026-11-27 17:00+01:00")),
            ("2026-11-27T16:00:00Z", (false, "2026-11-30 09:00+01:00")),
            ("2026-11-28T12:00:00Z", (false, "2026-11-30 09:00+01:00")),
        ] {
            assert_eq!(says(&office, now), (expected.0, expected.1.into()), "{now}");
        }
    }

    #[test]
    fn hours_past_midnight_belong_to_the_day_on_which_they_begin() {
        let night = window(
            json!({ "days": ["sat"], "hours": "22:00-04:00", "until": "2026-11-28", "timeZone": "Europe/Berlin" }),
        );
        for (now, expected) in [
            ("2026-11-28T02:00:00Z", (false, "2026-11-28 22:00+01:00")),
            ("2026-11-28T21:00:00Z", (true, "2026-11-29 04:00+01:00")),
            ("2026-11-29T02:59:59Z", (true, "2026-11-29 04:00+01:00")),
            ("2026-11-29T03:00:00Z", (false, "never")),
        ] {
            assert_eq!(says(&night, now), (expected.0, expected.1.into()), "{now}");
        }
    }

    #[test]
    fn both_dates_belong_to_the_span() {
        let freeze =
            window(json!({ "from": "2026-12-20", "until": "2027-01-02", "timeZone": "Europe/Berlin" }));
        for (now, expected) in [
            ("2026-11-28T12:00:00Z", (false, "2026-12-20 00:00+01:00")),
            ("2026-12-19T23:00:00Z", (true, "2027-01-03 00:00+01:00")),
            ("2027-01-02T22:59:59Z", (true, "2027-01-03 00:00+01:00")),
            ("2027-01-02T23:00:00Z", (false, "never")),
        ] {
            assert_eq!(says(&freeze, now), (expected.0, expected.1.into()), "{now}");
        }
    }

    #[test]
    fn what_never_opens_or_never_closes_has_an_end() {
        for (json, expected) in [
            (json!({ "timeZone": "UTC" }), (true, "never")),
            (json!({ "hours": "09:00-09:00", "timeZone": "America/New_York" }), (true, "never")),
            (json!({ "until": "2031-05-05", "timeZone": "UTC" }), (true, "2031-05-06 00:00+00:00")),
            (json!({ "until": "2020-05-05", "timeZone": "UTC" }), (false, "never")),
            (json!({ "from": "2027-05-05", "until": "2027-05-04", "timeZone": "UTC" }), (false, "never")),
            (
                json!({ "days": ["mon"], "from": "2027-05-04", "until": "2027-05-09", "timeZone": "UTC" }),
                (false, "never"),
            ),
            (
                json!({ "days": ["mon"], "from": "9990-01-01", "timeZone": "UTC" }),
                (false, "9990-01-01 00:00+00:00"),
            ),
            (json!({ "days": ["sat"], "from": "9999-12-31", "timeZone": "UTC" }), (false, "never")),
        ] {
            let span = window(json);
            assert_eq!(says(&span, "2026-11-28T12:00:00Z"), (expected.0, expected.1.into()), "{span}");
        }
        let always = window(json!({ "timeZone": "Pacific/Apia" }));
        for now in [Timestamp::MIN, Timestamp::MAX] {
            span_standing(&always.span, now);
        }
    }

    #[test]
    fn a_time_that_summer_time_leaves_out_is_later_by_as_much() {
        for (zone, hours, now, expected) in [
            ("Europe/Berlin", "02:15-02:45", "2026-03-29T00:59:59Z", (false, "2026-03-29 03:15+02:00")),
            ("Europe/Berlin", "02:15-02:45", "2026-03-29T01:15:00Z", (true, "2026-03-29 03:45+02:00")),
            ("Europe/Berlin", "01:00-02:30", "2026-03-29T00:30:00Z", (true, "2026-03-29 03:30+02:00")),
            ("Europe/Berlin", "01:00-03:00", "2026-03-29T00:30:00Z", (true, "2026-03-29 03:00+02:00")),
            ("Europe/Berlin", "02:30-03:15", "2026-03-29T01:10:00Z", (false, "2026-03-30 02:30+02:00")),
            ("America/New_York", "02:15-02:45", "2026-03-08T07:20:00Z", (true, "2026-03-08 03:45-04:00")),
            ("America/New_York", "22:00-04:00", "2026-03-08T06:59:00Z", (true, "2026-03-08 04:00-04:00")),
        ] {
            let daily = window(json!({ "hours": hours, "timeZone": zone }));
            assert_eq!(says(&daily, now), (expected.0, expected.1.into()), "{daily} at {now}");
        }
    }

    #[test]
    fn a_time_that_comes_twice_in_autumn_is_the_first() {
        for (zone, hours, now, expected) in [
            ("Europe/Berlin", "02:00-03:00", "2026-10-25T00:00:00Z", (true, "2026-10-25 03:00+01:00")),
            ("Europe/Berlin", "02:00-03:00", "2026-10-25T01:59:59Z", (true, "2026-10-25 03:00+01:00")),
            ("Europe/Berlin", "02:15-02:45", "2026-10-25T00:15:00Z", (true, "2026-10-25 02:45+02:00")),
            ("Europe/Berlin", "02:15-02:45", "2026-10-25T01:15:00Z", (false, "2026-10-26 02:15+01:00")),
            ("America/New_York", "01:00-02:00", "2026-11-01T06:30:00Z", (true, "2026-11-01 02:00-05:00")),
            ("America/New_York", "01:15-01:45", "2026-11-01T06:15:00Z", (false, "2026-11-02 01:15-05:00")),
        ] {
            let daily = window(json!({ "hours": hours, "timeZone": zone }));
            assert_eq!(says(&daily, now), (expected.0, expected.1.into()), "{daily} at {now}");
        }
    }

    #[test]
    fn without_a_window_that_allows_only_those_that_deny_count() {
        assert_eq!(one(&[], "2026-11-28T12:00:00Z"), (true, None, None));
        let freeze = window(
            json!({ "effect": "deny", "from": "2026-12-20", "until": "2027-01-02", "timeZone": "UTC" }),
        );
        assert_eq!(
            one(std::slice::from_ref(&freeze), "2026-11-28T12:00:00Z"),
            (true, Some(at("2026-12-20T00:00:00Z")), None)
        );
        let by = Some("deny 2026-12-20 to 2027-01-02 UTC".into());
        assert_eq!(one(&[freeze], "2026-12-24T18:00:00Z"), (false, Some(at("2027-01-03T00:00:00Z")), by));
    }

    #[test]
    fn a_window_that_denies_wins_and_the_next_that_allows_is_named() {
        let windows = [
            window(json!({ "hours": "20:00-22:00", "timeZone": "UTC" })),
            window(json!({ "effect": "deny", "days": ["sat"], "hours": "12:00-21:00", "timeZone": "UTC" })),
            window(json!({ "days": ["sat"], "hours": "08:00-10:00", "timeZone": "UTC" })),
        ];
        let (early, late, deny) =
            ("allow sat 08:00-10:00 UTC", "allow 20:00-22:00 UTC", "deny sat 12:00-21:00 UTC");
        for (now, open, changes_at, by) in [
            ("2026-11-28T07:00:00Z", false, "2026-11-28T08:00:00Z", Some(early)),
            ("2026-11-28T08:00:00Z", true, "2026-11-28T10:00:00Z", None),
            ("2026-11-28T10:00:00Z", false, "2026-11-28T12:00:00Z", Some(late)),
            ("2026-11-28T20:30:00Z", false, "2026-11-28T21:00:00Z", Some(deny)),
            ("2026-11-28T21:00:00Z", true, "2026-11-28T22:00:00Z", None),
        ] {
            assert_eq!(one(&windows, now), (open, Some(at(changes_at)), by.map(Into::into)), "{now}");
        }
    }

    #[test]
    fn windows_that_take_turns_are_one() {
        let turns = [
            window(json!({ "hours": "08:00-20:00", "timeZone": "Europe/Berlin" })),
            window(json!({ "hours": "20:00-08:00", "until": "2026-11-30", "timeZone": "Europe/Berlin" })),
        ];
        assert_eq!(one(&turns, "2026-11-28T12:00:00Z"), (true, Some(at("2026-12-01T19:00:00Z")), None));
        let turns = [
            window(json!({ "hours": "08:00-20:00", "timeZone": "UTC" })),
            window(json!({ "hours": "20:00-08:00", "timeZone": "UTC" })),
        ];
        assert_eq!(one(&turns, "2026-11-28T12:00:00Z"), (true, None, None));
        let over = [window(json!({ "until": "2026-11-27", "timeZone": "UTC" }))];
        let by = Some("no window allows it any more".into());
        assert_eq!(one(&over, "2026-11-28T12:00:00Z"), (false, None, by));
    }

    #[test]
    fn a_calendar_says_what_the_windows_of_a_node_say() {
        let windows = [
            window(json!({ "on": "@web", "until": "2026-11-27", "timeZone": "UTC" })),
            window(json!({ "on": "db1", "effect": "deny", "timeZone": "UTC" })),
        ];
        let mut calendar = Calendar::new(&windows, at("2026-11-28T12:00:00Z"));
        for (node, tags, open) in
            [("db1", vec![], false), ("web1", vec!["web"], false), ("mail", vec!["eu"], true)]
        {
            let tags = tags.into_iter().map(|tag| tag.parse().unwrap()).collect();
            assert_eq!(calendar.of(&node.parse().unwrap(), &tags).open, open, "{node}");
        }
    }

    fn any_window() -> impl Strategy<Value = Window> {
        let times =
            vec!["00:00", "01:00", "01:30", "02:00", "02:15", "02:30", "03:00", "03:15", "09:00", "22:00"];
        let hours = proptest::option::of((select(times.clone()), select(times)));
        let days = subsequence(Day::ALL.to_vec(), 0..=7);
        let dates = vec!["2026-03-27", "2026-03-29", "2026-03-30", "2026-10-24", "2026-10-25", "2026-11-01"];
        let date = proptest::option::weighted(0.3, select(dates));
        let zones = vec!["UTC", "Europe/Berlin", "America/New_York", "Africa/Cairo", "Australia/Lord_Howe"];
        (hours, days, date.clone(), date, select(zones), any::<bool>()).prop_map(
            |(hours, days, from, until, zone, denies)| {
                let hours = hours.map(|(from, to)| format!("{from}-{to}"));
                let effect = if denies { "deny" } else { "allow" };
                window(json!({ "effect": effect, "days": days, "hours": hours, "from": from, "until": until, "timeZone": zone }))
            },
        )
    }

    /// Around the changes of the clocks of 2026, in spring and in autumn.
    fn any_moment() -> impl Strategy<Value = Timestamp> {
        let changes = vec![
            "2026-03-08T07:00:00Z",
            "2026-03-29T01:00:00Z",
            "2026-10-25T01:00:00Z",
            "2026-11-01T06:00:00Z",
        ];
        (select(changes), -200_000..200_000i64)
            .prop_map(|(change, off)| at(change) + SignedDuration::from_secs(off))
    }

    proptest! {
        #[test]
        fn nothing_changes_before_it_is_said_to_and_then_something_does(
            windows in proptest::collection::vec(any_window(), 0..4), now in any_moment(), parts in proptest::collection::vec(0.0..1.0f64, 20)
        ) {
            let says = |at: Timestamp| { let now = standing(windows.iter(), at); (now.open, now.by) };
            let Standing { open, changes_at, by } = standing(windows.iter(), now);
            let before = (open, by);
            let end = changes_at.unwrap_or(now + SignedDuration::from_hours(24 * 40));
            prop_assert!(end > now);
            let span = end.as_nanosecond() - now.as_nanosecond();
            let inner = parts.iter().map(|part| now + SignedDuration::from_nanos_i128((span as f64 * part) as i128));
            for at in inner.chain([end - SignedDuration::from_nanos(1)]).filter(|at| *at < end) {
                prop_assert_eq!(says(at), before.clone(), "at {}", at);
            }
            if let Some(at) = changes_at {
                prop_assert!(says(at) != before);
            }
        }

        #[test]
        fn a_span_is_open_when_its_clock_says_so(window in any_window(), now in any_moment()) {
            let span = &window.span;
            let local = span.time_zone.rules().to_datetime(now);
            // Away from a change of the clocks what is read there is all that counts.
            let day = SignedDuration::from_hours(26);
            let offset = |at: Timestamp| span.time_zone.rules().to_offset(at);
            prop_assume!(offset(now - day) == offset(now + day));
            let begins = |date: Date| (span.days.is_empty() || span.days.contains(&date.weekday().into()))
                && span.from.is_none_or(|from| date >= from) && span.until.is_none_or(|until| date <= until);
            let (from, to) = span.hours.map_or((Time::midnight(), Time::midnight()), |hours| (hours.from, hours.to));
            let (today, time) = (local.date(), local.time());
            let expected = if from < to {
                begins(today) && time >= from && time < to
            } else {
                begins(today) && time >= from || begins(today.yesterday().unwrap()) && time < to
            };
            prop_assert_eq!(span_standing(span, now).0, expected, "{} at {}", window, local);
        }
    }
}
