//! The date, from the battery-backed clock of the PC. In QEMU this clock runs in UTC by default.

use crate::cpu::{in8, out8};

const SECONDS: u8 = 0;
const MINUTES: u8 = 2;
const HOURS: u8 = 4;
const DAY: u8 = 7;
const MONTH: u8 = 8;
const YEAR: u8 = 9;
const STATUS_A: u8 = 10;
const STATUS_B: u8 = 11;

fn read(register: u8) -> u8 {
    out8(0x70, register);
    in8(0x71)
}

/// Milliseconds of Unix time; 0 if the clock has impossible values.
pub(crate) fn unix_ms() -> u64 {
    let fields = [SECONDS, MINUTES, HOURS, DAY, MONTH, YEAR];
    let mut last = None;
    // Reads until two reads in a row agree, so that no field was read in the middle of a change.
    for _ in 0..1000 {
        const CHANGING: u8 = 1 << 7;
        if read(STATUS_A) & CHANGING != 0 {
            continue;
        }
        let look = Some(fields.map(read));
        if look == last {
            break;
        }
        last = look;
    }
    last.and_then(seconds).unwrap_or(0) * 1000
}

fn seconds(raw: [u8; 6]) -> Option<u64> {
    const BINARY: u8 = 1 << 2;
    const HOURS_24: u8 = 1 << 1;
    let status = read(STATUS_B);
    let plain = |value: u8| {
        let decimal = if status & BINARY != 0 { value } else { (value >> 4) * 10 + (value & 15) };
        u64::from(decimal)
    };
    let [second, minute, raw_hour, day, month, year] = raw;
    // The top bit means "afternoon" on a 12-hour clock.
    let hour = match (status & HOURS_24 != 0, raw_hour & 0x80 != 0) {
        (true, _) => plain(raw_hour),
        (false, afternoon) => plain(raw_hour & 0x7f) % 12 + if afternoon { 12 } else { 0 },
    };
    let days = days(2000 + plain(year), plain(month), plain(day))?;
    Some(((days * 24 + hour) * 60 + plain(minute)) * 60 + plain(second))
}

/// Days from 1970 to a date after 2000.
fn days(year: u64, month: u64, day: u64) -> Option<u64> {
    const BEFORE_MONTH: [u64; 12] = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334];
    let before = BEFORE_MONTH.get(usize::try_from(month.checked_sub(1)?).ok()?)?;
    let leap_days = |years: u64| years / 4 - years / 100 + years / 400;
    let leap_year = year.is_multiple_of(4) && !year.is_multiple_of(100) || year.is_multiple_of(400);
    let this_leap_day = u64::from(leap_year && month > 2);
    let earlier = (year - 1970) * 365 + leap_days(year - 1) - leap_days(1969);
    Some(earlier + before + this_leap_day + day.checked_sub(1)?)
}
