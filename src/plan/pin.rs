//! Whether a person's pin on a node still holds. It ends at a time, and clocks are stepped: one that is behind the moment at
//! which the pin was made is wrong, and one that is ahead is outvoted by the other.

use jiff::{SignedDuration, Timestamp};

use crate::model::journal::{PIN_FOR, PinEnd};
use crate::model::observed::NodeState;
use crate::model::store_path::StorePath;

/// The clock of the person who made the pin may be ahead by so much.
const LAPTOP_AHEAD: SignedDuration = SignedDuration::from_mins(10);

/// Whether it holds at `now`. The node's state was read at `seen_at`; both are times of the controller's clock.
pub fn holds(
    until: &PinEnd,
    toplevel: &StorePath,
    state: &NodeState,
    seen_at: Timestamp,
    now: Timestamp,
) -> bool {
    match until {
        PinEnd::NextRelease(pinned) => pinned == toplevel,
        PinEnd::At(end) => {
            let on_node = state.clock.and_then(|clock| clock.checked_add(now.duration_since(seen_at)).ok());
            holds_until(*end, [Some(now), on_node])
        }
    }
}

/// Over as soon as every clock that can be right says so; held where none can be.
fn holds_until(end: Timestamp, clocks: [Option<Timestamp>; 2]) -> bool {
    let made = end.checked_sub(PIN_FOR + LAPTOP_AHEAD).unwrap_or(Timestamp::MIN);
    let mut right = clocks.into_iter().flatten().filter(|clock| *clock >= made).peekable();
    right.peek().is_none() || right.any(|clock| clock < end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_was_stepped_by_a_year_neither_ends_a_pin_nor_prolongs_it() {
        let made: Timestamp = "2026-11-22T12:00:00Z".parse().unwrap();
        let (end, year) = (made + PIN_FOR, SignedDuration::from_hours(24 * 365));
        let minutes = |minutes| made + SignedDuration::from_mins(minutes);
        for (ours, on_node, expected) in [
            (minutes(30), Some(minutes(30)), true),
            (minutes(61), Some(minutes(61)), false),
            (minutes(61), None, false),
            (minutes(30) + year, Some(minutes(30)), true),
            (minutes(61) + year, Some(minutes(61)), false),
            (minutes(61) - year, Some(minutes(61)), false),
            (minutes(30) - year, Some(minutes(30)), true),
            (minutes(30), Some(minutes(30) - year), true),
            (minutes(61), Some(minutes(61) - year), false),
            (minutes(30), Some(minutes(30) + year), true),
            (minutes(61) - year, None, true),
        ] {
            assert_eq!(holds_until(end, [Some(ours), on_node]), expected, "{ours} {on_node:?}");
        }
    }
}
