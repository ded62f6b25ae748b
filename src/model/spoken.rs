//! Ages and sizes the way people say them: `4 s`, `2 m`, `1 h`, `3 d`; `3.4 MiB`. Pure; the clock is an argument.

use jiff::Timestamp;

/// The time from `then` to `now` in its largest whole unit. A time in the future (another machine's clock) is `0 s`.
pub fn age(then: Timestamp, now: Timestamp) -> String {
    let seconds = now.as_second().saturating_sub(then.as_second()).max(0);
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3_600 => format!("{} m", seconds / 60),
        3_600..86_400 => format!("{} h", seconds / 3_600),
        _ => format!("{} d", seconds / 86_400),
    }
}

/// A time in UTC, to the second: what is said is read in other places than it was said.
pub fn clock(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M:%S UTC").to_string()
}

/// Bytes in the unit that leaves one to three digits before the point: `512 B`, `3.4 MiB`.
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if count < 1_024 {
        return format!("{count} B");
    }
    // Exact enough: one decimal place is shown.
    #[allow(clippy::cast_precision_loss)]
    let mut value = count as f64 / 1_024.0;
    let mut unit = 0;
    while value >= 1_024.0 && unit + 1 < UNITS.len() {
        value /= 1_024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_said_in_their_largest_unit() {
        let then = Timestamp::UNIX_EPOCH;
        for (seconds, said) in [
            (0, "0 s"),
            (59, "59 s"),
            (60, "1 m"),
            (3_599, "59 m"),
            (3_600, "1 h"),
            (86_399, "23 h"),
            (259_200, "3 d"),
        ] {
            assert_eq!(age(then, Timestamp::from_second(seconds).unwrap()), said);
        }
        assert_eq!(age(Timestamp::from_second(9).unwrap(), then), "0 s");
    }

    #[test]
    fn bytes_are_said_in_a_readable_unit() {
        for (count, said) in
            [(0, "0 B"), (1_023, "1023 B"), (1_536, "1.5 KiB"), (5 << 20, "5.0 MiB"), (3 << 30, "3.0 GiB")]
        {
            assert_eq!(bytes(count), said);
        }
    }
}
