//! Sizes and durations as people write them.
//!
//! Owns the parsers for command lines, and the formatting for output. Units are powers of 1024. A number that does not
//! fit is an error, never a smaller number.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Parses a size: `4096`, `64K`, `16M`, `2G`, `1T`; a trailing `B` or `iB` is allowed.
///
/// # Errors
/// A text that says what was expected, or that the size does not fit 64 bits.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let shift = match unit.to_ascii_uppercase().as_str() {
        "" | "B" => 0,
        "K" | "KB" | "KIB" => 10,
        "M" | "MB" | "MIB" => 20,
        "G" | "GB" | "GIB" => 30,
        "T" | "TB" | "TIB" => 40,
        _ => return Err("expected a size such as 4096, 64K, 16M, 2G or 1T".to_owned()),
    };
    let number: u64 = number
        .parse()
        .map_err(|_| "expected a size such as 4096, 64K, 16M, 2G or 1T".to_owned())?;
    number.checked_mul(1 << shift).ok_or_else(|| "the size does not fit 64 bits".to_owned())
}

/// Parses a duration: `250ms`, `5s`, `2m`, also `us` and `h`; a bare `0` needs no unit.
///
/// # Errors
/// A text that says what was expected, or that the duration is too long.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    const HINT: &str = "expected a duration such as 250ms, 5s or 2m";
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| HINT.to_owned())?;
    let micros: u64 = match unit {
        "" if number == 0 => 1,
        "us" => 1,
        "ms" => 1_000,
        "s" => 1_000_000,
        "m" => 60_000_000,
        "h" => 3_600_000_000,
        _ => return Err(HINT.to_owned()),
    };
    number
        .checked_mul(micros)
        .map(Duration::from_micros)
        .ok_or_else(|| "the duration is too long".to_owned())
}

/// Parses the seconds of a measurement: `2`, `0.5`.
///
/// # Errors
/// A text that says what was expected.
pub fn parse_seconds(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(seconds) if (0.001..=3_600.0).contains(&seconds) => Ok(seconds),
        _ => Err("expected seconds from 0.001 to 3600, such as 2 or 0.5".to_owned()),
    }
}

/// Parses permission bits in octal.
///
/// # Errors
/// A text that says what was expected.
pub fn parse_mode(text: &str) -> Result<u32, String> {
    match u32::from_str_radix(text, 8) {
        Ok(mode) if mode <= 0o777 => Ok(mode),
        _ => Err("expected permission bits in octal, such as 600 or 660".to_owned()),
    }
}

/// Checks the name of a region, before anything is opened.
///
/// # Errors
/// A text that says what is wrong with it.
pub fn parse_name(text: &str) -> Result<String, String> {
    commonhold::Name::new(text).map(|_| text.to_owned()).map_err(|why| why.to_string())
}

/// A size as text, such as `1.5 GiB`; exact below 1 KiB.
#[must_use]
pub fn human_size(bytes: u64) -> String {
    let units = [("TiB", 40_u32), ("GiB", 30), ("MiB", 20), ("KiB", 10)];
    for (unit, shift) in units {
        if bytes >> shift > 0 {
            let whole = bytes >> shift;
            let rest = bytes & ((1 << shift) - 1);
            let tenths = (rest * 10) >> shift;
            return if tenths == 0 {
                format!("{whole} {unit}")
            } else {
                format!("{whole}.{tenths} {unit}")
            };
        }
    }
    format!("{bytes} B")
}

/// A time as text relative to now, such as `5.0 s ago`. A time in the future is written as [`point`] does.
#[must_use]
pub fn since(time: SystemTime) -> String {
    match SystemTime::now().duration_since(time) {
        Ok(ago) => format!("{} ago", human_duration(ago)),
        Err(_) => point(time),
    }
}

/// A point in time as text (RFC 3339). One that has no such form is written in seconds of Unix time.
#[must_use]
pub fn point(time: SystemTime) -> String {
    /// The first second of the year 10000. RFC 3339 has only four digits for a year.
    const YEAR_10000: u64 = 253_402_300_800;
    match time.duration_since(UNIX_EPOCH).map(|since| since.as_secs()) {
        Ok(seconds @ 0..YEAR_10000) => {
            humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(seconds)).to_string()
        }
        Ok(seconds) => format!("{seconds} s after 1970"),
        Err(before) => format!("{} s before 1970", before.duration().as_secs()),
    }
}

/// A duration as text, such as `12 us`, `3.4 ms`, `5.0 s` or `2 m 3 s`.
#[must_use]
pub fn human_duration(time: Duration) -> String {
    let micros = time.as_micros();
    match micros {
        0..10_000 => format!("{micros} us"),
        10_000..1_000_000 => format!("{:.1} ms", time.as_secs_f64() * 1e3),
        1_000_000..60_000_000 => format!("{:.1} s", time.as_secs_f64()),
        60_000_000..3_600_000_000 => {
            format!("{} m {} s", time.as_secs() / 60, time.as_secs() % 60)
        }
        _ => format!("{} h {} m", time.as_secs() / 3600, time.as_secs() / 60 % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_powers_of_1024() {
        assert_eq!(parse_size("0"), Ok(0));
        assert_eq!(parse_size("4096"), Ok(4096));
        assert_eq!(parse_size("64K"), Ok(65536));
        assert_eq!(parse_size("16m"), Ok(16 << 20));
        assert_eq!(parse_size("2GiB"), Ok(2 << 30));
        assert_eq!(parse_size("1T"), Ok(1 << 40));
    }

    #[test]
    fn a_size_that_overflows_or_is_no_number_is_an_error() {
        for bad in ["", "K", "-1", "1.5G", "4 K", "16777216T", "99999999999999999999", "1X", "1é"]
        {
            assert!(parse_size(bad).is_err(), "{bad:?}");
        }
        assert_eq!(parse_size("16777215T"), Ok(16_777_215 << 40));
    }

    #[test]
    fn durations_need_a_unit_unless_they_are_zero() {
        assert_eq!(parse_duration("0"), Ok(Duration::ZERO));
        assert_eq!(parse_duration("0s"), Ok(Duration::ZERO));
        assert_eq!(parse_duration("7us"), Ok(Duration::from_micros(7)));
        assert_eq!(parse_duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(parse_duration("5s"), Ok(Duration::from_secs(5)));
        assert_eq!(parse_duration("2m"), Ok(Duration::from_secs(120)));
        assert_eq!(parse_duration("1h"), Ok(Duration::from_secs(3600)));
        for bad in ["", "5", "s", "-1s", "1.5s", "5 s", "5S", "99999999999999h"] {
            assert!(parse_duration(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn seconds_may_be_fractions_but_not_zero_or_infinite() {
        assert_eq!(parse_seconds("0.5"), Ok(0.5));
        assert_eq!(parse_seconds("3600"), Ok(3600.0));
        for bad in ["0", "-1", "inf", "NaN", "1s", "3601", ""] {
            assert!(parse_seconds(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn modes_are_octal_permission_bits() {
        assert_eq!(parse_mode("660"), Ok(0o660));
        assert!(parse_mode("888").is_err());
        assert!(parse_mode("7777").is_err());
    }

    #[test]
    fn every_point_in_time_can_be_formatted() {
        let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        assert_eq!(point(at(0)), "1970-01-01T00:00:00Z");
        assert_eq!(point(at(253_402_300_799)), "9999-12-31T23:59:59Z");
        assert_eq!(point(at(253_402_300_800)), "253402300800 s after 1970");
        let last = UNIX_EPOCH + Duration::from_millis(u64::MAX);
        assert_eq!(point(last), "18446744073709551 s after 1970");
        assert_eq!(since(last), point(last));
        assert_eq!(point(UNIX_EPOCH - Duration::from_secs(7)), "7 s before 1970");
        assert!(since(at(0)).ends_with(" h 0 m ago") || since(at(0)).ends_with("m ago"));
        for duration in [Duration::ZERO, Duration::MAX, Duration::from_millis(u64::MAX)] {
            assert!(!human_duration(duration).is_empty());
        }
    }

    #[test]
    fn sizes_and_durations_are_rounded_down_and_have_units() {
        assert_eq!(human_size(0), "0 B");
        assert_eq!(human_size(1023), "1023 B");
        assert_eq!(human_size(1536), "1.5 KiB");
        assert_eq!(human_size(64 << 30), "64 GiB");
        assert_eq!(human_duration(Duration::from_micros(48)), "48 us");
        assert_eq!(human_duration(Duration::from_millis(2500)), "2.5 s");
        assert_eq!(human_duration(Duration::from_secs(125)), "2 m 5 s");
    }
}
