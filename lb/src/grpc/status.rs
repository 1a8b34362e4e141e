//! What failed, as the [`Status`] that a gRPC caller expects.

use std::sync::Arc;
use std::time::Duration;

use callsign_core::Instance;
use http::{HeaderMap, StatusCode};
use tonic::{Code, Status, TimeoutExpired};

use super::native::Full;
use crate::error::{BoxError, PickError, causes, chain};
use crate::stats::Outcome;

/// There was no endpoint.
pub(super) fn no_endpoint(error: PickError) -> Status {
    with_source(Status::unavailable(error.chain()), error)
}

/// The deadline passed, at the earliest moment while waiting for an endpoint.
pub(super) fn no_endpoint_in_time(timeout: Duration, error: PickError) -> Status {
    let message = format!("deadline exceeded: no endpoint within {timeout:?}: {}", error.chain());
    with_source(Status::deadline_exceeded(message), error)
}

/// The deadline passed, while waiting for the answer of an instance if there was one.
pub(super) fn deadline_exceeded(timeout: Duration, instance: Option<&Instance>) -> Status {
    Status::deadline_exceeded(match instance {
        Some(instance) => {
            format!("deadline exceeded: no answer from {} within {timeout:?}", instance.address())
        }
        None => format!("deadline exceeded: no endpoint within {timeout:?}"),
    })
}

/// The transport failed before there was an answer.
pub(super) fn failed(instance: &Instance, error: BoxError) -> Status {
    if causes(&*error).any(<dyn std::error::Error>::is::<TimeoutExpired>) {
        let message = format!("deadline exceeded: no answer from {} in time", instance.address());
        return with_source(Status::deadline_exceeded(message), error);
    }
    let full = causes(&*error).any(<dyn std::error::Error>::is::<Full>);
    let otherwise = if full { Code::ResourceExhausted } else { Code::Unavailable };
    let code = code_of_reset(&*error).unwrap_or(otherwise);
    let message = format!("call to {} failed: {}", instance.address(), chain(&*error));
    with_source(Status::new(code, message), error)
}

/// A stream broke off.
pub(super) fn of_stream(error: h2::Error) -> Status {
    // The server broke the rules.
    let code = if error.is_library() { Code::Internal } else { Code::Unavailable };
    with_source(Status::new(code, error.to_string()), error)
}

/// The transport failed in the middle of an answer.
pub(super) fn broken_off(instance: &Instance, status: Status) -> Status {
    let code = code_of_reset(&status).unwrap_or(match status.code() {
        // What tonic has no code for is an I/O error of the connection.
        Code::Unknown | Code::Cancelled => Code::Unavailable,
        code => code,
    });
    let message = format!("the answer of {} broke off: {}", instance.address(), chain(&status));
    with_source(Status::new(code, message), status)
}

/// What was meant when the stream was reset, as gRPC's "HTTP2 Transport Mapping" has it.
fn code_of_reset(error: &(dyn std::error::Error + 'static)) -> Option<Code> {
    let reset = causes(error).find_map(|cause| cause.downcast_ref::<h2::Error>())?;
    let reason = reset.reason().filter(|_| reset.is_reset() && !reset.is_library())?;
    if !reset.is_remote() {
        // It was us, because the caller's own stream had failed.
        return Some(Code::Cancelled);
    }
    Some(match reason {
        h2::Reason::REFUSED_STREAM => Code::Unavailable,
        h2::Reason::CANCEL => Code::Cancelled,
        h2::Reason::ENHANCE_YOUR_CALM => Code::ResourceExhausted,
        h2::Reason::INADEQUATE_SECURITY => Code::PermissionDenied,
        _ => Code::Internal,
    })
}

/// Whether these are the headers or trailers of a call that the server cancelled, as tonic's servers do when
/// the deadline passes on their side.
pub(super) fn is_cancelled(headers: &HeaderMap) -> bool {
    headers.get("grpc-status").is_some_and(|status| status == "1")
}

/// What the end of a call says of the instance; nothing if it was cancelled.
pub(super) fn outcome(code: Code) -> Option<Outcome> {
    match code {
        Code::Cancelled => None,
        Code::Unavailable
        | Code::ResourceExhausted
        | Code::DeadlineExceeded
        | Code::Internal
        | Code::Unknown
        | Code::DataLoss => Some(Outcome::Failure),
        _ => Some(Outcome::Success),
    }
}

/// The same of an answer's trailers, nothing if they hold no status.
pub(super) fn outcome_of_trailers(trailers: &HeaderMap) -> Option<Outcome> {
    outcome(Code::from_bytes(trailers.get("grpc-status")?.as_bytes()))
}

/// The same of an answer's head, nothing if the call goes on: gRPC's "HTTP to gRPC Status Code Mapping".
pub(super) fn outcome_of_head(status: StatusCode, headers: &HeaderMap) -> Option<Outcome> {
    if headers.contains_key("grpc-status") {
        return outcome_of_trailers(headers);
    }
    match status {
        StatusCode::OK => None,
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::NOT_FOUND => Some(Outcome::Success),
        _ => Some(Outcome::Failure),
    }
}

fn with_source(mut status: Status, source: impl Into<BoxError>) -> Status {
    status.set_source(Arc::from(source.into()));
    status
}
