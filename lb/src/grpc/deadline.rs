//! The `grpc-timeout` header: read from a request, and written anew with what is left at dispatch.

use std::time::Duration;

use http::{HeaderMap, HeaderValue};

pub(super) const GRPC_TIMEOUT: &str = "grpc-timeout";

/// The timeout of a request, if it has a readable one: at most 8 digits and a unit.
pub(super) fn read(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(GRPC_TIMEOUT)?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let amount: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(amount * 3600)),
        "M" => Some(Duration::from_secs(amount * 60)),
        "S" => Some(Duration::from_secs(amount)),
        "m" => Some(Duration::from_millis(amount)),
        "u" => Some(Duration::from_micros(amount)),
        "n" => Some(Duration::from_nanos(amount)),
        _ => None,
    }
}

/// Writes a timeout in the finest unit that eight digits hold, rounded down.
pub(super) fn write(headers: &mut HeaderMap, timeout: Duration) {
    const MOST: u128 = 99_999_999;
    let seconds = u128::from(timeout.as_secs());
    let units = [
        (timeout.as_nanos(), 'n'),
        (timeout.as_micros(), 'u'),
        (timeout.as_millis(), 'm'),
        (seconds, 'S'),
        (seconds / 60, 'M'),
    ];
    let (amount, unit) =
        units.into_iter().find(|(amount, _)| *amount <= MOST).unwrap_or(((seconds / 3600).min(MOST), 'H'));
    // Digits and a letter are always a header value.
    if let Ok(value) = HeaderValue::try_from(format!("{amount}{unit}")) {
        headers.insert(GRPC_TIMEOUT, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text_of(timeout: Duration) -> String {
        let mut headers = HeaderMap::new();
        write(&mut headers, timeout);
        headers[GRPC_TIMEOUT].to_str().unwrap().to_owned()
    }

    fn read_text(text: &str) -> Option<Duration> {
        read(&HeaderMap::from_iter([(
            http::header::HeaderName::from_static(GRPC_TIMEOUT),
            text.parse().unwrap(),
        )]))
    }

    #[test]
    fn is_written_in_eight_digits_and_never_longer_than_it_is() {
        assert_eq!(text_of(Duration::from_nanos(99_999_999)), "99999999n");
        assert_eq!(text_of(Duration::from_secs(2)), "2000000u");
        assert_eq!(text_of(Duration::from_secs(100)), "100000m");
        assert_eq!(text_of(Duration::from_secs(100_000)), "100000S");
        assert_eq!(text_of(Duration::MAX), "99999999H");
        for nanos in (0..200).map(|n: u32| 7u64.saturating_pow(n / 8).saturating_add(n.into())) {
            let timeout = Duration::from_nanos(nanos);
            let read = read_text(&text_of(timeout)).unwrap();
            assert!(read <= timeout && timeout - read <= timeout / 1000, "{timeout:?} {read:?}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_none() {
        for text in ["", "S", "1", "1x", "123456789S", "-1S", "1.5S", " 1S"] {
            assert_eq!(read_text(text), None, "{text:?}");
        }
        assert_eq!(read_text("99999999H"), Some(Duration::from_secs(99_999_999 * 3600)));
    }
}
