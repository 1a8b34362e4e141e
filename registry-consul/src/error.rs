//! From an agent's answers to our errors: [`refusal`].

use callsign_core::{Error, ErrorKind, HttpAnswer};

/// The most of an answer's text that is shown.
pub(crate) const SHOWN: usize = 300;

/// What an answer that is no success says, to `what`, by `agent`.
pub(crate) fn refusal(what: &str, agent: &str, answer: &HttpAnswer) -> Error {
    let said = text(answer);
    let status = answer.status.as_u16();
    let kind = match status {
        401 => ErrorKind::Unauthenticated,
        // Who has no token or one that Consul does not know is told the same way.
        403 if said.contains("ACL not found") || said.contains("token does not exist") => {
            ErrorKind::Unauthenticated
        }
        403 => ErrorKind::PermissionDenied,
        404 => ErrorKind::NotFound,
        429 if said.contains("concurrent connections") => {
            let text = format!(
                "agent {agent}, {what}: {status} {said} (limits.http_max_conns_per_client in the agent's configuration: \
                 each watched service holds one connection)"
            );
            return Error::new(ErrorKind::Exhausted, text);
        }
        429 => ErrorKind::Exhausted,
        400 if said.contains("HTTP request to an HTTPS server") => {
            let text = format!(
                "agent {agent} speaks TLS: ask for it with consul+tls:// in the URL's scheme ({what}: {said})"
            );
            return Error::new(ErrorKind::Unavailable, text);
        }
        400 => ErrorKind::Invalid,
        500 if said.contains("ACL not found") => ErrorKind::Unauthenticated,
        500 if said.contains("Permission denied") => ErrorKind::PermissionDenied,
        500 if said.contains("No path to datacenter") => ErrorKind::NotFound,
        500..=599 => ErrorKind::Unavailable,
        _ => ErrorKind::Other,
    };
    Error::new(kind, format!("agent {agent}, {what}: {status} {said}"))
}

/// Whether the agent does not know what it was asked about: by an old one's words too.
pub(crate) fn is_unknown(answer: &HttpAnswer) -> bool {
    let said = text(answer);
    match answer.status.as_u16() {
        404 => true,
        500 => said.contains("does not have associated TTL") || said.contains("Unknown check"),
        _ => false,
    }
}

fn text(answer: &HttpAnswer) -> String {
    let text = String::from_utf8_lossy(&answer.body);
    let text: String =
        text.trim().chars().take(SHOWN).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if text.is_empty() { answer.status.canonical_reason().unwrap_or("no reason").to_owned() } else { text }
}
