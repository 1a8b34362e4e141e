//! What failed, as the [`Status`] that a gRPC caller expects.

use std::sync::Arc;
use std::time::Duration;

use callsign_core::Instance;
use http::HeaderMap;
use tonic::{Code, Status, TimeoutExpired};

use crate::error::{BoxError, NeverSent, PickError, causes, chain};

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
pub(super) fn failed(instance: &Instance, error: BoxError, unsent: bool) -> Status {
    if causes(&*error).any(<dyn std::error::Error>::is::<TimeoutExpired>) {
        let message = format!("deadline exceeded: no answer from {} in time", instance.address());
        return with_source(Status::deadline_exceeded(message), error);
    }
    // A failure of the caller's own request stream is no failure of the transport.
    let own = causes(&*error).find_map(|cause| cause.downcast_ref::<Status>());
    if let Some(own) = own.filter(|own| !matches!(own.code(), Code::Unknown | Code::Cancelled)) {
        let status = Status::with_metadata(own.code(), own.message(), own.metadata().clone());
        return with_source(status, error);
    }
    let status = Status::unavailable(format!("call to {} failed: {}", instance.address(), chain(&*error)));
    if unsent { with_source(status, NeverSent(error)) } else { with_source(status, error) }
}

/// The transport failed in the middle of an answer.
pub(super) fn broken_off(instance: &Instance, status: Status) -> Status {
    // What tonic has no code for is an I/O error of the connection.
    if !matches!(status.code(), Code::Unknown | Code::Cancelled) {
        return status;
    }
    let message = format!("the answer of {} broke off: {}", instance.address(), chain(&status));
    with_source(Status::unavailable(message), status)
}

/// Whether these are the headers or trailers of a call that the server cancelled, as tonic's servers do when
/// the deadline passes on their side.
pub(super) fn is_cancelled(headers: &HeaderMap) -> bool {
    headers.get("grpc-status").is_some_and(|status| status == "1")
}

fn with_source(mut status: Status, source: impl Into<BoxError>) -> Status {
    status.set_source(Arc::from(source.into()));
    status
}
