//! One call: from the pick to the head of the answer, elsewhere again as long as nothing was sent.

use std::fmt::{self, Debug};
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use callsign_core::Instance;
use http::{Request, Response};
use tokio::time::{Instant, sleep_until};
use tonic::body::Body;
use tonic::{Code, Status};

use super::body::{AnswerBody, Deadline, ResponseBody};
use super::channel::Shared;
use super::transport::{Connection, Fate, Proof};
use super::{deadline, status};
use crate::call::Call;
use crate::error::{NeverSent, PickError};
use crate::picked::Picked;
use crate::stats::Outcome;

/// How often a call is begun that never left. Each time its connection closed at that very moment, or had no place for it.
const MOST: usize = 16;
/// How often a call is begun anew because a server refused it. A server that is overloaded refuses streams too, and must
/// not get each of them many times over (gRFC A6, "transparent retries").
const AFTER_REFUSAL: usize = 1;

/// The answer to a call through a [`Channel`](super::Channel), to come. Dropping it cancels the call.
pub struct ResponseFuture(Pin<Box<dyn Future<Output = Result<Response<ResponseBody>, Status>> + Send>>);

impl Future for ResponseFuture {
    type Output = Result<Response<ResponseBody>, Status>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(cx)
    }
}

impl Debug for ResponseFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ResponseFuture")
    }
}

/// What a first pick gave.
pub(super) type First = Result<Picked<Connection>, PickError>;

pub(super) fn begin(shared: Arc<Shared>, ask: Call, first: First, request: Request<Body>) -> ResponseFuture {
    // From now, and not from the first poll: the caller's clock runs already.
    let timeout = [deadline::read(request.headers()), shared.timeout].into_iter().flatten().min();
    let deadline = timeout.and_then(|timeout| {
        let at = Instant::now().checked_add(timeout)?;
        Some(Deadline { timeout, sleep: Box::pin(sleep_until(at)) })
    });
    ResponseFuture(Box::pin(run(shared, ask, first, request, deadline)))
}

async fn run(
    shared: Arc<Shared>,
    ask: Call,
    first: First,
    request: Request<Body>,
    mut deadline: Option<Deadline>,
) -> Result<Response<ResponseBody>, Status> {
    let limit = deadline.as_ref().map(|deadline| (deadline.at(), deadline.timeout));
    let mut tried = None;
    let exchanged = {
        let mut exchange = pin!(exchange(&shared, ask, first, request, limit, &mut tried));
        match &mut deadline {
            None => Some(exchange.await),
            Some(deadline) => tokio::select! {
                biased;
                exchanged = &mut exchange => Some(exchanged),
                () = &mut deadline.sleep => None,
            },
        }
    };
    let (picked, answer) = match (exchanged, &deadline) {
        (Some(exchanged), _) => exchanged?,
        (None, Some(deadline)) => {
            return Err(status::deadline_exceeded(deadline.timeout, tried.as_deref()));
        }
        // Only a deadline ends a call without an answer.
        (None, None) => return Err(Status::internal("a call without a deadline was given up")),
    };
    if let Some(deadline) = deadline.as_ref().filter(|deadline| deadline.has_passed())
        && status::is_cancelled(answer.headers())
    {
        picked.report(Outcome::Failure);
        return Err(status::deadline_exceeded(deadline.timeout, Some(picked.instance())));
    }
    picked.answered();
    if let Some(outcome) = status::outcome_of_head(answer.status(), answer.headers()) {
        picked.report(outcome);
    }
    let (mut head, body) = answer.into_parts();
    head.extensions.insert(Arc::clone(picked.instance()));
    Ok(Response::from_parts(head, ResponseBody::new(body, picked, deadline)))
}

/// Sends the request to the first endpoint that takes it.
async fn exchange(
    shared: &Shared,
    mut ask: Call,
    first: First,
    mut request: Request<Body>,
    limit: Option<(Instant, Duration)>,
    tried: &mut Option<Arc<Instance>>,
) -> Result<(Picked<Connection>, Response<AnswerBody>), Status> {
    let at = limit.map(|(at, _)| at);
    let mut first = Some(first);
    let mut refusals = 0;
    for attempt in 1.. {
        let picked = match first.take() {
            Some(Ok(picked)) => Ok(picked),
            _ => shared.pick(&ask, at).await,
        };
        let picked = picked.map_err(|error| match limit {
            Some((at, timeout)) if Instant::now() >= at => status::no_endpoint_in_time(timeout, error),
            _ => status::no_endpoint(error),
        })?;
        *tried = Some(Arc::clone(picked.instance()));
        if let Some((at, timeout)) = limit {
            let left = at.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(status::deadline_exceeded(timeout, None));
            }
            deadline::write(request.headers_mut(), left);
            picked.allow(left);
        }
        let failed = match picked.call(request).await {
            Ok(answer) => return Ok((picked, answer)),
            Err(failed) => failed,
        };
        match failed.fate {
            Fate::Unsent(Proof::NeverLeft, Some(unsent)) if attempt < MOST => {
                ask.avoid(&picked);
                request = *unsent;
            }
            Fate::Unsent(Proof::Refused, Some(unsent)) if refusals < AFTER_REFUSAL => {
                refusals += 1;
                picked.report(Outcome::Failure);
                ask.avoid(&picked);
                request = *unsent;
            }
            Fate::Own(failure) => return Err(failure),
            Fate::Unsent(..) => {
                return Err(status::failed(picked.instance(), NeverSent(failed.error).into()));
            }
            Fate::Unknown => {
                let status = status::failed(picked.instance(), failed.error);
                // A server that keeps to the deadline by itself resets the stream.
                let status = match limit {
                    Some((at, timeout)) if status.code() == Code::Cancelled && Instant::now() >= at => {
                        status::deadline_exceeded(timeout, Some(picked.instance()))
                    }
                    _ => status,
                };
                if let Some(outcome) = status::outcome(status.code()) {
                    picked.report(outcome);
                }
                return Err(status);
            }
        }
    }
    Err(Status::internal("a call was begun more often than it can be counted"))
}
