//! [`ResponseBody`]: the body of an answer, which keeps its call in flight and to its deadline until it ends.

use std::fmt::{self, Debug};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use callsign_core::Instance;
use http_body::{Body as _, Frame, SizeHint};
use tokio::time::{Instant, Sleep};
use tonic::Status;
use tonic::body::Body;

use super::lent::Home;
use super::native::Answer;
use super::status;
use super::transport::Connection;
use crate::picked::Picked;
use crate::stats::Outcome;

/// The deadline of a call that has one.
pub(super) struct Deadline {
    pub(super) timeout: Duration,
    pub(super) sleep: Pin<Box<Sleep>>,
}

impl Deadline {
    pub(super) fn at(&self) -> Instant {
        self.sleep.deadline()
    }

    pub(super) fn has_passed(&self) -> bool {
        Instant::now() >= self.at()
    }
}

/// The body of an answer. The call is in flight until this has been read to its end or is dropped.
#[derive(Default)]
pub struct ResponseBody {
    body: AnswerBody,
    /// `None` once the call has ended.
    call: Option<Under>,
}

/// The body of an answer as a transport has it.
#[derive(Default)]
pub(super) enum AnswerBody {
    #[default]
    Empty,
    Native(Answer),
    Endpoint {
        body: Body,
        /// What is left of the request ends with it.
        _request: Home,
    },
}

impl AnswerBody {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        match self {
            Self::Empty => Poll::Ready(None),
            Self::Native(answer) => {
                answer.poll_frame(cx).map(|frame| frame.map(|frame| frame.map_err(status::of_stream)))
            }
            Self::Endpoint { body, .. } => Pin::new(body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Native(answer) => answer.is_end_stream(),
            Self::Endpoint { body, .. } => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Native(_) => SizeHint::default(),
            Self::Endpoint { body, .. } => body.size_hint(),
        }
    }
}

/// What a call under way holds.
struct Under {
    picked: Picked<Connection>,
    deadline: Option<Deadline>,
}

impl ResponseBody {
    pub(super) fn new(body: AnswerBody, picked: Picked<Connection>, deadline: Option<Deadline>) -> Self {
        if body.is_end_stream() {
            return Self::default();
        }
        Self { body, call: Some(Under { picked, deadline }) }
    }

    fn is_late(&self) -> bool {
        self.call.as_ref().and_then(|call| call.deadline.as_ref()).is_some_and(Deadline::has_passed)
    }

    /// Ends a call whose deadline has passed.
    fn end_late(&mut self) -> Status {
        self.report(Some(Outcome::Failure));
        match self.end() {
            Some((instance, Some(deadline))) => status::deadline_exceeded(deadline.timeout, Some(&instance)),
            _ => Status::deadline_exceeded("deadline exceeded"),
        }
    }

    fn report(&self, outcome: Option<Outcome>) {
        if let (Some(call), Some(outcome)) = (&self.call, outcome) {
            call.picked.report(outcome);
        }
    }

    /// Ends the call: it is in flight no more, and the server is told if it is still at it.
    fn end(&mut self) -> Option<(Arc<Instance>, Option<Deadline>)> {
        self.body = AnswerBody::Empty;
        self.call.take().map(|call| (Arc::clone(call.picked.instance()), call.deadline))
    }
}

impl http_body::Body for ResponseBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        match this.body.poll_frame(cx) {
            // A server that is never slow must not outrun the clock.
            Poll::Ready(Some(Ok(frame))) if frame.is_data() && this.is_late() => {
                Poll::Ready(Some(Err(this.end_late())))
            }
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(trailers) = frame.trailers_ref() {
                    let cancelled = status::is_cancelled(trailers);
                    this.report(if cancelled && this.is_late() {
                        Some(Outcome::Failure)
                    } else {
                        status::outcome_of_trailers(trailers)
                    });
                    if let Some((instance, Some(deadline))) = this.end()
                        && cancelled
                        && deadline.has_passed()
                    {
                        let status = status::deadline_exceeded(deadline.timeout, Some(&instance));
                        return Poll::Ready(Some(Err(status)));
                    }
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => {
                let error = match &this.call {
                    Some(Under { picked, deadline: Some(deadline) }) if deadline.has_passed() => {
                        status::deadline_exceeded(deadline.timeout, Some(picked.instance()))
                    }
                    Some(Under { picked, .. }) => status::broken_off(picked.instance(), error),
                    None => error,
                };
                this.report(status::outcome(error.code()));
                this.end();
                Poll::Ready(Some(Err(error)))
            }
            Poll::Ready(None) => {
                this.end();
                Poll::Ready(None)
            }
            Poll::Pending => {
                let deadline = this.call.as_mut().and_then(|call| call.deadline.as_mut());
                if deadline.is_some_and(|deadline| deadline.sleep.as_mut().poll(cx).is_ready()) {
                    return Poll::Ready(Some(Err(this.end_late())));
                }
                Poll::Pending
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Debug for ResponseBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let instance = self.call.as_ref().map(|call| call.picked.instance().id());
        f.debug_struct("ResponseBody").field("in_flight_on", &instance).finish_non_exhaustive()
    }
}
