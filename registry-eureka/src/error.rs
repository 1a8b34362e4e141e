//! From a server's answers to our errors: [`refusal`].

use callsign_core::{Error, ErrorKind, HttpAnswer};

/// The most of an answer's text that is shown.
const SHOWN: usize = 300;

/// What an answer that is no success says, to `what`, by `server`.
pub(crate) fn refusal(what: &str, server: &str, answer: &HttpAnswer) -> Error {
    let status = answer.status.as_u16();
    let said = text(answer);
    let (kind, hint) = match status {
        401 => (ErrorKind::Unauthenticated, ": user and password are those before the host of the URL"),
        403 => (
            ErrorKind::PermissionDenied,
            ": we may not, or the server has just started and shows nothing until it has heard of its peers",
        ),
        404 => (ErrorKind::NotFound, ""),
        405 | 406 | 415 => (ErrorKind::Unsupported, ": is the URL's path that below which Eureka has /apps?"),
        400 if said.contains("requires TLS") => {
            (ErrorKind::Unavailable, ": ask for TLS with eureka+tls:// in the URL's scheme")
        }
        400 => (ErrorKind::Invalid, ""),
        429 | 503 => (ErrorKind::Exhausted, ""),
        500..=599 => (ErrorKind::Unavailable, ""),
        300..=399 => {
            (ErrorKind::Unsupported, ": redirects are not followed, as a password would follow them")
        }
        _ => (ErrorKind::Other, ""),
    };
    Error::new(kind, format!("server {server}, {what}: {status} {said}{hint}"))
}

/// What a server said, on one line and not too long.
fn text(answer: &HttpAnswer) -> String {
    let text = String::from_utf8_lossy(&answer.body);
    let text = text.trim();
    let text = if text.starts_with("<!") || text.starts_with("<html") { "" } else { text };
    let text: String = text.chars().take(SHOWN).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if text.is_empty() { answer.status.canonical_reason().unwrap_or("no reason").to_owned() } else { text }
}
