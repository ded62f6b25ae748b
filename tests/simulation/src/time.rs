//! Time that is made up: milliseconds since the beginning of a schedule, and what the clocks show meanwhile.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use deciding::reconcile::clock::Moment;
use jiff::{SignedDuration, Timestamp};

/// Milliseconds.
pub type Ms = u64;

pub const SECOND: Ms = 1000;
pub const MINUTE: Ms = 60 * SECOND;
pub const HOUR: Ms = 60 * MINUTE;
pub const DAY: Ms = 24 * HOUR;

/// The moment at which every schedule begins: a Sunday at noon.
pub fn dawn() -> Timestamp {
    Timestamp::from_second(1_795_348_800).unwrap()
}

/// The time of day where every clock is right.
pub fn time_of(at: Ms) -> Timestamp {
    dawn() + SignedDuration::from_millis(at.cast_signed())
}

/// What both clocks of the controller's host show, where the one on the wall is ahead.
pub fn moment(at: Ms, ahead: SignedDuration) -> Moment {
    static BEGAN: OnceLock<Instant> = OnceLock::new();
    let steady = *BEGAN.get_or_init(Instant::now) + Duration::from_millis(at);
    Moment { wall: time_of(at) + ahead, steady }
}

/// When the steady clock shows this.
pub fn ms_of(instant: Instant) -> Ms {
    let since = instant.duration_since(moment(0, SignedDuration::ZERO).steady);
    Ms::try_from(since.as_millis()).unwrap_or(Ms::MAX)
}
