//! [`exchange`]: one request and the head of its answer, on one connection.

use std::future::{Future, poll_fn};
use std::mem;
use std::pin::Pin;
use std::task::Poll;

use bytes::Bytes;
use h2::SendStream;
use h2::client::{ResponseFuture, SendRequest};
use http::header::{CONNECTION, HeaderName, TE, TRANSFER_ENCODING, UPGRADE};
use http::request::Parts;
use http::{HeaderMap, Request, Response};
use http_body::Body as _;
use tokio::runtime::Handle;
use tokio_util::task::AbortOnDropHandle;
use tonic::Status;
use tonic::body::Body;

use super::super::fate;
use super::super::kept::Kept;
use super::super::transport::{CallError, Fate, Proof};
use super::answer::Answer;
use super::lane::Place;
use super::upload::{Stopped, Upload};

/// From this number on a connection is left: its last stream has the number 2^31 - 1 (RFC 9113, 5.1.1).
const LAST_STREAMS: u32 = (1 << 31) - (1 << 20);

/// Sends a request and waits for the head of its answer. When it is dropped before that, the server is told that nobody waits
/// any more.
pub(super) async fn exchange(
    place: Place,
    mut sender: SendRequest<Bytes>,
    request: Request<Body>,
    runtime: &Handle,
) -> Result<Response<Answer>, CallError> {
    let (mut head, body) = request.into_parts();
    // Only the caller has a use for them, and to copy them costs something.
    let extensions = mem::take(&mut head.extensions);
    let awaits = place.awaits();
    let is_empty = body.is_end_stream();
    let sent = send(&mut sender, &head, is_empty);
    drop(sender);
    let again = |body| {
        head.extensions = extensions;
        Box::new(Request::from_parts(head, body))
    };
    let (mut answer, stream) = match sent {
        Ok(sent) => sent,
        Err(error) => {
            let fate = if is_callers_fault(&error) {
                Fate::Own(Status::internal(format!("the request cannot be sent: {error}")))
            } else {
                // The connection has ended, or is about to.
                place.line().shut();
                Fate::Unsent(Proof::NeverLeft, Some(again(body)))
            };
            return Err(CallError { error: error.into(), fate });
        }
    };
    let number = answer.stream_id().as_u32();
    if number > LAST_STREAMS {
        place.line().shut();
    }
    let mut upload = Upload::new(Kept::new(body), stream);
    let mut is_sending = !is_empty;
    let answered = poll_fn(|cx| {
        if is_sending && let Poll::Ready(sent) = upload.poll(cx) {
            is_sending = false;
            if let Err(Stopped::Failed(failure)) = sent {
                return Poll::Ready(Err(Failed::Own(failure)));
            }
        }
        Pin::new(&mut answer).poll(cx).map_err(Failed::Stream)
    });
    let (error, fate) = match answered.await {
        Ok(answer) => {
            awaits.answered();
            let upload = is_sending.then(|| AbortOnDropHandle::new(runtime.spawn(upload.finish())));
            return Ok(answer.map(|stream| Answer::new(stream, place, upload)));
        }
        Err(Failed::Own(failure)) => (failure.clone().into(), Fate::Own(failure)),
        Err(Failed::Stream(error)) => {
            let fate = if fate::is_refusal(&error) {
                Fate::Unsent(Proof::Refused, upload.into_whole().map(again))
            } else if error.is_io() && !place.line().has_sent(number) {
                // The connection has ended, and nothing leaves any more.
                Fate::Unsent(Proof::NeverLeft, upload.into_whole().map(again))
            } else {
                Fate::Unknown
            };
            (error.into(), fate)
        }
    };
    Err(CallError { error, fate })
}

/// Why there is no answer.
enum Failed {
    /// The caller's own stream failed with this.
    Own(Status),
    Stream(h2::Error),
}

fn send(
    sender: &mut SendRequest<Bytes>,
    head: &Parts,
    is_empty: bool,
) -> Result<(ResponseFuture, SendStream<Bytes>), h2::Error> {
    let mut request = Request::from_parts(head.clone(), ());
    match sender.send_request(request, is_empty) {
        Err(error) if is_callers_fault(&error) => {
            request = Request::from_parts(head.clone(), ());
            strip(request.headers_mut());
            sender.send_request(request, is_empty)
        }
        sent => sent,
    }
}

/// Whether it is the request and not the connection that is wrong.
fn is_callers_fault(error: &h2::Error) -> bool {
    !(error.is_io() || error.is_go_away() || error.is_reset())
}

/// Takes away what is about an HTTP/1 connection, or is said to be, as one who passes a request on may have left it in. HTTP/2
/// must not have it (RFC 9113, 8.2.2).
pub(super) fn strip(headers: &mut HeaderMap) {
    let named = headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
    let named = named.flat_map(|value| value.split(',')).filter_map(|name| name.trim().parse().ok());
    for name in named.filter(|name: &HeaderName| name != TE).collect::<Vec<_>>() {
        headers.remove(name);
    }
    for name in [CONNECTION, TRANSFER_ENCODING, UPGRADE] {
        headers.remove(name);
    }
    for name in ["keep-alive", "proxy-connection"] {
        headers.remove(name);
    }
    if headers.get(TE).is_some_and(|te| te != "trailers") {
        headers.remove(TE);
    }
}
