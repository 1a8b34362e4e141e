//! [`Answer`]: the body of an answer.

use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::RecvStream;
use http_body::Frame;
use tokio_util::task::AbortOnDropHandle;

use super::lane::Place;

/// The body of an answer, on a connection. When it is dropped the server is told that nobody wants the rest.
pub(in super::super) struct Answer {
    /// The call has it for as long as there is a body. Given back before the stream, whose end has the connection look whether
    /// there are still calls.
    _place: Place,
    stream: RecvStream,
    /// No trailers have come yet.
    is_open: bool,
    /// What is left of the request ends with it.
    _upload: Option<AbortOnDropHandle<()>>,
}

impl Answer {
    pub(super) fn new(stream: RecvStream, place: Place, upload: Option<AbortOnDropHandle<()>>) -> Self {
        Self { stream, is_open: true, _place: place, _upload: upload }
    }

    pub(in super::super) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        if !self.is_open {
            return Poll::Ready(None);
        }
        let frame = match ready!(self.stream.poll_data(cx)) {
            Some(Ok(data)) => {
                // It fails where the stream has ended, whose bytes count no more.
                let _ = self.stream.flow_control().release_capacity(data.len());
                return Poll::Ready(Some(Ok(Frame::data(data))));
            }
            Some(Err(error)) => Err(error),
            None => ready!(self.stream.poll_trailers(cx)).map(|trailers| trailers.map(Frame::trailers)),
        };
        self.is_open = false;
        // A server that has said all and wants no more of the request resets the stream without an error (RFC 9113, 8.1), of
        // which h2 says nothing here; where it has not said all, it has broken off.
        Poll::Ready(frame.transpose())
    }

    pub(in super::super) fn is_end_stream(&self) -> bool {
        !self.is_open || self.stream.is_end_stream()
    }
}
