//! From the client library's errors to ours. The entry is [`map`].
//!
//! etcd tells what it refuses by a gRPC code and a fixed text; where the code alone says too little, the text
//! decides.

use std::error::Error as _;

use callsign_core::{Error, ErrorKind};
use etcd_client::Error as Client;
use tonic::{Code, ConnectError, Status};

/// What `etcd-client` says of a lease that has expired or never was.
const NO_LEASE: &str = "lease not found";

/// An error of a request to one member, in our words: `what` was asked, `member` is its address.
pub(crate) fn map(what: &str, member: &str, error: &Client) -> Error {
    let (kind, says) = match error {
        Client::GRpcStatus(status) => return of_status(what, member, status),
        Client::LeaseKeepAliveError(text) if text == NO_LEASE => (ErrorKind::NotFound, text.clone()),
        Client::TransportError(_)
        | Client::IoError(_)
        | Client::WatchError(_)
        | Client::LeaseKeepAliveError(_) => (ErrorKind::Unavailable, error.to_string()),
        Client::InvalidArgs(_) | Client::InvalidUri(_) => (ErrorKind::Invalid, error.to_string()),
        _ => (ErrorKind::Other, error.to_string()),
    };
    Error::new(kind, format!("etcd at {member}, {what}: {says}"))
}

fn of_status(what: &str, member: &str, status: &Status) -> Error {
    let cause = root_cause(status);
    if unsent_status(status) && cause.is_some() {
        let error = Error::new(ErrorKind::Unavailable, format!("cannot connect to etcd at {member}"));
        return cause.map_or_else(|| error.clone(), |cause| error.clone().with_source(cause));
    }
    let error = Error::new(kind_of(status), format!("etcd at {member}, {what}: {}", status.message()));
    match cause {
        Some(cause) if !status.message().contains(&cause) => error.with_source(cause),
        _ => error,
    }
}

/// The kind of what etcd says in a watch's cancellation, where there is only a text.
pub(crate) fn of_cancelled_watch(what: &str, member: &str, reason: &str) -> Error {
    let kind = match reason {
        _ if is_about_identity(reason) || reason.contains("Unauthenticated") => ErrorKind::Unauthenticated,
        _ if reason.contains("permission denied") => ErrorKind::PermissionDenied,
        _ => ErrorKind::Unavailable,
    };
    Error::new(kind, format!("etcd at {member} ended the {what}: {reason}"))
}

fn kind_of(status: &Status) -> ErrorKind {
    let text = status.message();
    match status.code() {
        _ if is_about_identity(text) => ErrorKind::Unauthenticated,
        Code::Unavailable | Code::Aborted => ErrorKind::Unavailable,
        Code::DeadlineExceeded => ErrorKind::Timeout,
        // Of our own transport, for several reasons.
        Code::Cancelled if text.contains("Timeout expired") => ErrorKind::Timeout,
        Code::Cancelled => ErrorKind::Unavailable,
        // A stream that dies with its connection.
        Code::Unknown | Code::Internal if is_about_transport(text) => ErrorKind::Unavailable,
        Code::Unauthenticated => ErrorKind::Unauthenticated,
        Code::PermissionDenied => ErrorKind::PermissionDenied,
        Code::ResourceExhausted => ErrorKind::Exhausted,
        Code::NotFound => ErrorKind::NotFound,
        Code::InvalidArgument => ErrorKind::Invalid,
        Code::OutOfRange | Code::DataLoss => ErrorKind::Malformed,
        Code::Unimplemented => ErrorKind::Unsupported,
        Code::Ok | Code::Unknown | Code::AlreadyExists | Code::FailedPrecondition | Code::Internal => {
            ErrorKind::Other
        }
    }
}

fn is_about_transport(text: &str) -> bool {
    ["h2 protocol error", "transport error", "connection error", "error reading a body"]
        .iter()
        .any(|sign| text.contains(sign))
}

/// etcd refuses who does not say who they are with codes that suggest a bad request.
fn is_about_identity(text: &str) -> bool {
    [
        "user name is empty",
        "invalid user ID or password",
        "invalid auth token",
        "revision of auth store is old",
    ]
    .iter()
    .any(|sign| text.contains(sign))
}

/// Whether it was refused for what we say of who we are, before anything was done.
pub(crate) fn is_unauthenticated(error: &Client) -> bool {
    matches!(error, Client::GRpcStatus(status) if kind_of(status) == ErrorKind::Unauthenticated)
}

/// Whether etcd has authentication switched off, so that nobody needs to say who they are.
pub(crate) fn needs_no_identity(error: &Client) -> bool {
    matches!(error, Client::GRpcStatus(status) if status.message().contains("authentication is not enabled"))
}

/// Whether the request certainly never took effect, so that it may be sent again elsewhere.
pub(crate) fn unsent(error: &Client) -> bool {
    match error {
        Client::GRpcStatus(status) => {
            // A member without a leader refuses before it proposes anything.
            unsent_status(status) || status.message().contains("etcdserver: no leader") || was_queued(status)
        }
        _ => false,
    }
}

/// Whether it failed with the connection that it was to use, so that a new connection may do. A connection that
/// the server closed is noticed by using it.
pub(crate) fn connection_died(error: &Client) -> bool {
    matches!(error, Client::GRpcStatus(status) if was_queued(status)
        || matches!(status.code(), Code::Unknown | Code::Internal | Code::Unavailable)
            && is_about_transport(status.message())
            && !unsent_status(status))
}

/// Whether the connection closed before the request had its turn.
fn was_queued(status: &Status) -> bool {
    status.code() == Code::Cancelled && status.message().contains("operation was canceled")
}

fn unsent_status(status: &Status) -> bool {
    let mut cause = status.source();
    while let Some(error) = cause {
        if error.is::<ConnectError>() {
            return true;
        }
        cause = error.source();
    }
    false
}

/// The innermost cause, as the operating system words it.
fn root_cause(status: &Status) -> Option<String> {
    let mut cause = status.source()?;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    Some(cause.to_string())
}

/// Whether the revision that was asked for exists no more, or not yet: the reader must start afresh.
pub(crate) fn lost_revision(error: &Client) -> bool {
    matches!(error, Client::GRpcStatus(status) if status.code() == Code::OutOfRange
        && (status.message().contains("compacted") || status.message().contains("future revision")))
}

/// Whether the answer is larger than what we take in.
pub(crate) fn too_large(error: &Client) -> bool {
    matches!(error, Client::GRpcStatus(status) if status.code() == Code::OutOfRange
        && status.message().contains("message length too large"))
}

/// Whether a lease of this id exists already.
pub(crate) fn lease_exists(error: &Client) -> bool {
    matches!(error, Client::GRpcStatus(status) if status.message().contains("lease already exists"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(code: Code, text: &str) -> ErrorKind {
        map("list", "h:1", &Client::GRpcStatus(Status::new(code, text))).kind()
    }

    #[test]
    fn what_etcd_says_has_its_kind() {
        for (code, text, is) in [
            (Code::Unavailable, "etcdserver: no leader", ErrorKind::Unavailable),
            (Code::Unavailable, "etcdserver: request timed out", ErrorKind::Unavailable),
            (Code::Cancelled, "Timeout expired", ErrorKind::Timeout),
            (Code::Cancelled, "operation was canceled", ErrorKind::Unavailable),
            (
                Code::Unknown,
                "h2 protocol error: error reading a body from connection",
                ErrorKind::Unavailable,
            ),
            (Code::Unknown, "something else", ErrorKind::Other),
            (Code::InvalidArgument, "etcdserver: user name is empty", ErrorKind::Unauthenticated),
            (Code::Unauthenticated, "etcdserver: invalid auth token", ErrorKind::Unauthenticated),
            (Code::InvalidArgument, "etcdserver: request is too large", ErrorKind::Invalid),
            (Code::PermissionDenied, "etcdserver: permission denied", ErrorKind::PermissionDenied),
            (Code::ResourceExhausted, "etcdserver: mvcc: database space exceeded", ErrorKind::Exhausted),
            (Code::ResourceExhausted, "etcdserver: too many requests", ErrorKind::Exhausted),
            (Code::NotFound, "etcdserver: requested lease not found", ErrorKind::NotFound),
            (Code::Unimplemented, "unknown service etcdserverpb.KV", ErrorKind::Unsupported),
        ] {
            assert_eq!(kind(code, text), is, "{code:?} {text}");
        }
        let error = map("renewal", "h:1", &Client::LeaseKeepAliveError(NO_LEASE.to_owned()));
        assert_eq!(error.kind(), ErrorKind::NotFound);
        let error = map("renewal", "h:1", &Client::LeaseKeepAliveError("channel closed".to_owned()));
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(error.to_string().contains("h:1") && error.to_string().contains("renewal"), "{error}");
        assert_eq!(
            of_cancelled_watch("watch", "h:1", "etcdserver: permission denied").kind(),
            ErrorKind::PermissionDenied
        );
    }

    #[test]
    fn only_what_never_left_may_be_sent_again() {
        let status = |text: &str| Client::GRpcStatus(Status::new(Code::Unavailable, text));
        assert!(unsent(&status("etcdserver: no leader")));
        assert!(!unsent(&status("etcdserver: leader changed")));
        assert!(!unsent(&status("etcdserver: request timed out")));
        let refused = Status::from_error(Box::new(ConnectError("refused".into())));
        assert!(unsent(&Client::GRpcStatus(Status::cancelled("operation was canceled"))));
        assert!(!unsent(&Client::GRpcStatus(Status::cancelled("Timeout expired"))));
        let refused = Client::GRpcStatus(refused);
        assert!(unsent(&refused) && !connection_died(&refused));
        let died =
            Client::GRpcStatus(Status::unknown("h2 protocol error: error reading a body from connection"));
        assert!(!unsent(&died) && connection_died(&died));
    }
}
