//! Reads a length of time as it stands in an attribute.

use std::time::Duration;

/// Reads `5s`, `1.5h` and the like.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    if text.starts_with('-') {
        return Err(NOT_POSITIVE.to_owned());
    }
    let unknown =
        || format!("`{text}` is not a duration: write a number and `ms`, `s`, `min` or `h`, such as \"5s\"");
    let (number, unit) = text.split_at(text.find(|c: char| c.is_ascii_alphabetic()).ok_or_else(unknown)?);
    let millis_per_unit = match unit {
        "ms" => 1,
        "s" => 1_000,
        "min" => 60_000,
        "h" => 3_600_000,
        _ => return Err(unknown()),
    };
    if !number.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
        return Err(unknown());
    }
    let too_long = || format!("`{text}` is too long: leave the option out for no limit");
    let limit = if number.contains('.') {
        let count: f64 = number.parse().map_err(|_| unknown())?;
        Duration::try_from_secs_f64(count * millis_per_unit as f64 / 1_000.0).map_err(|_| too_long())?
    } else if number.is_empty() {
        return Err(unknown());
    } else {
        let count: Option<u64> = number.parse().ok();
        Duration::from_millis(
            count
                .and_then(|count| count.checked_mul(millis_per_unit))
                .ok_or_else(too_long)?,
        )
    };
    if limit.is_zero() {
        Err(NOT_POSITIVE.to_owned())
    } else {
        Ok(limit)
    }
}

const NOT_POSITIVE: &str = "the timeout must be longer than zero: leave the option out for no limit";
