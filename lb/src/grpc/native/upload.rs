//! [`Upload`]: sends the body of a request.

use std::future::poll_fn;
use std::task::{Context, Poll};

use bytes::Bytes;
use h2::{Reason, SendStream};
use http::HeaderMap;
use http_body::Frame;
use tonic::Status;
use tonic::body::Body;
use tracing::debug;

use super::super::kept::Kept;
use super::exchange::strip;

/// A body on its way. One frame is looked ahead, so that the last one says that it is.
pub(super) struct Upload {
    body: Kept,
    stream: SendStream<Bytes>,
    /// Next to be sent.
    data: Option<Bytes>,
    then: Option<Then>,
}

/// What comes after that, if it is known.
enum Then {
    Data(Bytes),
    Trailers(HeaderMap),
    End,
}

/// Why no more of a body is sent.
pub(super) enum Stopped {
    /// The caller's own stream failed with this.
    Failed(Status),
    /// Nobody takes it: how its call ends tells why.
    Refused,
}

impl From<h2::Error> for Stopped {
    fn from(_: h2::Error) -> Self {
        Self::Refused
    }
}

impl Upload {
    pub(super) fn new(body: Kept, stream: SendStream<Bytes>) -> Self {
        Self { body, stream, data: None, then: None }
    }

    /// Sends on, until all of it is on its way.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Stopped>> {
        loop {
            self.look_ahead(cx)?;
            let is_last = matches!(self.then, Some(Then::End));
            // The last frame is in memory one way or the other.
            if is_last {
                let last = self.data.take().unwrap_or_default();
                return Poll::Ready(Ok(self.stream.send_data(last, true)?));
            }
            if self.data.is_some() && !self.has_room(cx)? {
                return Poll::Pending;
            }
            if let Some(data) = self.data.take() {
                self.stream.send_data(data, false)?;
            }
            match self.then.take() {
                Some(Then::Data(data)) => self.data = Some(data),
                Some(Then::Trailers(mut trailers)) => {
                    strip(&mut trailers);
                    return Poll::Ready(Ok(self.stream.send_trailers(trailers)?));
                }
                _ if self.is_wanted(cx)? => return Poll::Pending,
                _ => return Poll::Ready(Err(Stopped::Refused)),
            }
        }
    }

    /// Reads the body until there is something to send and it is known what comes then, or for as far as it goes.
    fn look_ahead(&mut self, cx: &mut Context<'_>) -> Result<(), Stopped> {
        while self.then.is_none() {
            let Poll::Ready(frame) = self.body.poll_frame(cx) else { break };
            let frame = match frame {
                Some(Ok(frame)) => frame,
                Some(Err(failure)) => return Err(Stopped::Failed(failure)),
                None => {
                    self.then = Some(Then::End);
                    break;
                }
            };
            match frame.into_data().map_err(Frame::into_trailers) {
                // What is empty says nothing.
                Ok(data) if data.is_empty() => {}
                Ok(data) if self.data.is_none() => {
                    self.data = Some(data);
                    if self.body.is_end_stream() {
                        self.then = Some(Then::End);
                    }
                }
                Ok(data) => self.then = Some(Then::Data(data)),
                Err(Ok(trailers)) => self.then = Some(Then::Trailers(trailers)),
                // There are no other frames yet.
                Err(Err(_)) => {}
            }
        }
        Ok(())
    }

    /// Whether the server takes more now. What is claimed is little, so that who waits long claims nothing of what all share.
    fn has_room(&mut self, cx: &mut Context<'_>) -> Result<bool, Stopped> {
        self.stream.reserve_capacity(1);
        while self.stream.capacity() == 0 {
            match self.stream.poll_capacity(cx) {
                Poll::Ready(Some(room)) => drop(room?),
                Poll::Ready(None) => return Err(Stopped::Refused),
                Poll::Pending => return Ok(false),
            }
        }
        Ok(true)
    }

    /// Whether the server has not reset the stream. Wakes when it does.
    fn is_wanted(&mut self, cx: &mut Context<'_>) -> Result<bool, Stopped> {
        Ok(self.stream.poll_reset(cx)?.is_pending())
    }

    /// Sends the rest, once the answer has begun. Dropped, the server is told that no more comes.
    pub(super) async fn finish(mut self) {
        // Nobody will want the body back.
        self.body.forget();
        if let Err(Stopped::Failed(failure)) = poll_fn(|cx| self.poll(cx)).await {
            debug!(%failure, "the caller's stream failed");
            self.stream.send_reset(Reason::CANCEL);
        }
    }

    /// The body from its beginning, if it can be had.
    pub(super) fn into_whole(self) -> Option<Body> {
        self.body.into_whole()
    }
}
