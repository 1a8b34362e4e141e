//! [`Kept`]: a request body that can be had back as it was, so that a request which no server has looked at can be sent
//! elsewhere.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use tonic::Status;
use tonic::body::Body;

/// How many bytes of a body are remembered at most; longer ones cannot be had back once they are begun.
const MOST: usize = 64 * 1024;

/// A body, and what has been read of it as long as that is all of it. Frames share their bytes.
pub(super) struct Kept {
    rest: Body,
    read: VecDeque<Bytes>,
    size: usize,
    whole: bool,
}

impl Kept {
    pub(super) fn new(body: Body) -> Self {
        Self { rest: body, read: VecDeque::new(), size: 0, whole: true }
    }

    pub(super) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let polled = Pin::new(&mut self.rest).poll_frame(cx);
        match &polled {
            Poll::Ready(Some(Ok(frame))) if self.whole => self.remember(frame),
            Poll::Ready(Some(Err(_))) => self.forget(),
            // What has ended must not be asked again, by whoever gets it back.
            Poll::Ready(None) => self.rest = Body::empty(),
            _ => {}
        }
        polled
    }

    pub(super) fn is_end_stream(&self) -> bool {
        self.rest.is_end_stream()
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        self.rest.size_hint()
    }

    fn remember(&mut self, frame: &Frame<Bytes>) {
        match frame.data_ref() {
            Some(data) if self.size + data.len() <= MOST => {
                self.size += data.len();
                self.read.push_back(data.clone());
            }
            _ => self.forget(),
        }
    }

    /// Nobody will want it back.
    pub(super) fn forget(&mut self) {
        self.whole = false;
        self.read = VecDeque::new();
    }

    /// The body from its beginning, if it is whole.
    pub(super) fn into_whole(self) -> Option<Body> {
        let Self { rest, read, whole, .. } = self;
        whole.then(|| if read.is_empty() { rest } else { Body::new(Again { read, rest }) })
    }
}

/// A body from its beginning: what had been read of it, then the rest.
struct Again {
    read: VecDeque<Bytes>,
    rest: Body,
}

impl http_body::Body for Again {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        match self.read.pop_front() {
            Some(data) => Poll::Ready(Some(Ok(Frame::data(data)))),
            None => Pin::new(&mut self.rest).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.read.is_empty() && self.rest.is_end_stream()
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use http_body_util::{BodyExt, StreamBody};

    use super::*;

    fn body(frames: Vec<Result<Bytes, Status>>) -> Body {
        let frames = frames.into_iter().map(|frame| frame.map(Frame::data));
        Body::new(StreamBody::new(tokio_stream::iter(frames)))
    }

    fn hello() -> Body {
        body([&b"he"[..], b"ll", b"o"].into_iter().map(|part| Ok(Bytes::from_static(part))).collect())
    }

    async fn read(kept: &mut Kept) -> Option<Result<Frame<Bytes>, Status>> {
        poll_fn(|cx| kept.poll_frame(cx)).await
    }

    #[tokio::test]
    async fn is_had_back_as_it_was_however_far_it_got() {
        for far in 0..5 {
            let mut kept = Kept::new(hello());
            for _ in 0..far {
                read(&mut kept).await;
            }
            // And again, from the beginning.
            let mut again = Kept::new(kept.into_whole().unwrap());
            for _ in 0..far {
                read(&mut again).await;
            }
            assert_eq!(again.into_whole().unwrap().collect().await.unwrap().to_bytes(), "hello");
        }
    }

    /// As a body may be whose stream is not fused.
    struct Once(bool);

    impl http_body::Body for Once {
        type Data = Bytes;
        type Error = Status;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
            assert!(!std::mem::replace(&mut self.0, true), "asked for more after its end");
            Poll::Ready(None)
        }
    }

    #[tokio::test]
    async fn what_has_ended_is_not_asked_again() {
        let mut kept = Kept::new(Body::new(Once(false)));
        assert!(read(&mut kept).await.is_none());
        let again = kept.into_whole().unwrap();
        assert!(http_body::Body::is_end_stream(&again));
        assert!(again.collect().await.unwrap().to_bytes().is_empty());
    }

    #[tokio::test]
    async fn what_is_too_long_failed_or_is_not_wanted_is_not_had_back() {
        let half = || Ok(Bytes::from(vec![0; MOST / 2 + 1]));
        let mut kept = Kept::new(body(vec![half(), half()]));
        assert!(read(&mut kept).await.unwrap().is_ok() && read(&mut kept).await.unwrap().is_ok());
        assert!(kept.into_whole().is_none());

        let mut kept = Kept::new(body(vec![Ok(Bytes::new()), Err(Status::aborted("mine"))]));
        assert!(read(&mut kept).await.unwrap().is_ok() && read(&mut kept).await.unwrap().is_err());
        assert!(kept.into_whole().is_none());

        let mut kept = Kept::new(hello());
        assert!(read(&mut kept).await.unwrap().is_ok() && kept.read.len() == 1);
        kept.forget();
        assert!(read(&mut kept).await.unwrap().is_ok() && kept.read.is_empty());
        assert!(kept.into_whole().is_none());
    }
}
