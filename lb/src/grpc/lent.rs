//! A request body that can be had back as it was, so that a request which no server has looked at can be sent
//! elsewhere; that remembers its own failure, which HTTP/2 has no way to report; and that ends with its call.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio::sync::oneshot;
use tonic::Status;
use tonic::body::Body;

/// How many bytes of a body are remembered at most; longer ones cannot be had back once they are begun.
const MOST: usize = 64 * 1024;

/// What has become of a body that was lent out.
pub(super) enum Returned {
    /// It was let go of, and here it is from its beginning; and whether any of it had been asked for.
    Whole { body: Body, begun: bool },
    /// The caller's own stream failed with this.
    Failed(Status),
}

/// Where a body that was lent out is waited for. When this is dropped after the answer has begun the call is over, and so is
/// the body: hyper resets no stream whose answer nobody wants any more while its request goes on.
pub(super) struct Home {
    way: oneshot::Receiver<Returned>,
    answered: Arc<AtomicBool>,
}

impl Home {
    /// The call has its answer: nobody will want the body back.
    pub(super) fn answered(&self) {
        self.answered.store(true, Ordering::Relaxed);
    }

    /// What has come back; `None` if the body is still out, or could not be kept whole.
    pub(super) fn look(&mut self) -> Option<Returned> {
        self.way.try_recv().ok()
    }

    /// Waits until it is let go of.
    pub(super) async fn wait(&mut self) -> Option<Returned> {
        (&mut self.way).await.ok()
    }
}

/// Lends a body out.
pub(super) fn lend(body: Body) -> (Lent, Home) {
    let (way, home) = oneshot::channel();
    let answered = Arc::<AtomicBool>::default();
    let lent = Lent {
        rest: Some(body),
        read: VecDeque::new(),
        size: 0,
        whole: true,
        begun: false,
        way: Some(way),
        answered: Arc::clone(&answered),
    };
    (lent, Home { way: home, answered })
}

/// A body that is lent out.
pub(super) struct Lent {
    rest: Option<Body>,
    /// What has been read of it, as long as it is whole. Frames share their bytes.
    read: VecDeque<Bytes>,
    size: usize,
    whole: bool,
    /// Whether it was asked for a frame.
    begun: bool,
    way: Option<oneshot::Sender<Returned>>,
    answered: Arc<AtomicBool>,
}

impl Lent {
    /// The body from its beginning, if it is whole: for whom it was given back to.
    pub(super) fn take(mut self) -> Option<Body> {
        self.way = None;
        self.whole()
    }

    fn whole(&mut self) -> Option<Body> {
        let rest = self.rest.take().filter(|_| self.whole)?;
        let read = std::mem::take(&mut self.read);
        Some(if read.is_empty() { rest } else { Body::new(Again { read, rest }) })
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

    fn forget(&mut self) {
        self.whole = false;
        self.read = VecDeque::new();
    }

    fn send_home(&mut self, returned: Returned) {
        if let Some(way) = self.way.take() {
            // Nobody waits for it once the call has ended.
            let _ = way.send(returned);
        }
    }
}

impl http_body::Body for Lent {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        self.begun = true;
        let is_over = self.way.as_mut().is_some_and(|way| way.poll_closed(cx).is_ready());
        let answered = self.answered.load(Ordering::Relaxed);
        if self.whole && answered {
            self.forget();
        }
        // Before that hyper resets it. Where the head has not left yet a reset of ours would leave h2 with a stream less and
        // nobody told who waits for one.
        if is_over && answered {
            self.rest = None;
            return Poll::Ready(Some(Err(given_up())));
        }
        let Some(body) = &mut self.rest else { return Poll::Ready(None) };
        let polled = Pin::new(body).poll_frame(cx);
        match &polled {
            Poll::Ready(Some(Ok(frame))) if self.whole => self.remember(frame),
            Poll::Ready(Some(Err(failure))) => {
                let failure = failure.clone();
                self.forget();
                self.send_home(Returned::Failed(failure));
            }
            _ => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.rest.as_ref().is_none_or(http_body::Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.rest.as_ref().map_or_else(|| SizeHint::with_exact(0), http_body::Body::size_hint)
    }
}

/// Has hyper reset the stream, as one that was cancelled.
fn given_up() -> Status {
    let mut status = Status::cancelled("the call is over");
    status.set_source(Arc::new(h2::Error::from(h2::Reason::CANCEL)));
    status
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let Some(body) = self.whole() {
            let begun = self.begun;
            self.send_home(Returned::Whole { body, begun });
        }
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
    use std::time::Duration;

    use http_body_util::{BodyExt, StreamBody};

    use super::*;

    fn body(frames: Vec<Result<Bytes, Status>>) -> Body {
        let frames = frames.into_iter().map(|frame| frame.map(Frame::data));
        Body::new(StreamBody::new(tokio_stream::iter(frames)))
    }

    fn hello() -> Body {
        body([&b"he"[..], b"ll", b"o"].into_iter().map(|part| Ok(Bytes::from_static(part))).collect())
    }

    fn whole(home: &mut Home) -> Body {
        match home.look() {
            Some(Returned::Whole { body, .. }) => body,
            _ => panic!("it did not come home"),
        }
    }

    #[tokio::test]
    async fn comes_home_as_it_was_however_far_it_got() {
        for read in 0..5 {
            let (mut lent, mut home) = lend(hello());
            for _ in 0..read {
                drop(lent.frame().await);
            }
            assert!(home.look().is_none(), "it is still out");
            drop(lent);
            // And again, from the beginning.
            let (lent, mut again) = lend(whole(&mut home));
            assert_eq!(lent.collect().await.unwrap().to_bytes(), "hello");
            assert_eq!(whole(&mut again).collect().await.unwrap().to_bytes(), "hello");
            assert!(home.look().is_none(), "it comes home once");
        }
    }

    #[tokio::test]
    async fn tells_whether_it_was_begun_and_forgets_once_nobody_waits() {
        for begun in [false, true] {
            let (mut lent, mut home) = lend(hello());
            if begun {
                drop(lent.frame().await);
            }
            drop(lent);
            assert!(matches!(home.wait().await, Some(Returned::Whole { begun: told, .. }) if told == begun));
        }
        let (mut lent, home) = lend(hello());
        assert!(lent.frame().await.unwrap().is_ok() && lent.read.len() == 1);
        home.answered();
        assert!(lent.frame().await.unwrap().is_ok() && lent.read.is_empty());
        // And ends with its call, also while it waits for its next frame.
        let silent = tokio_stream::pending::<Result<Frame<Bytes>, Status>>();
        let (lent, home) = lend(Body::new(StreamBody::new(silent)));
        let mut lent = Box::pin(lent.collect());
        assert!(tokio::time::timeout(Duration::from_millis(1), &mut lent).await.is_err());
        home.answered();
        drop(home);
        let failure = lent.await.map(|_| ()).unwrap_err();
        assert_eq!(failure.code(), tonic::Code::Cancelled);
    }

    #[tokio::test]
    async fn what_is_too_long_or_failed_does_not_come_home() {
        let half = || Ok(Bytes::from(vec![0; MOST / 2 + 1]));
        let (mut lent, mut home) = lend(body(vec![half(), half()]));
        assert!(lent.frame().await.unwrap().is_ok() && lent.frame().await.unwrap().is_ok());
        drop(lent);
        assert!(home.look().is_none());

        let (mut lent, mut home) = lend(body(vec![Ok(Bytes::new()), Err(Status::aborted("mine"))]));
        assert!(lent.frame().await.unwrap().is_ok() && lent.frame().await.unwrap().is_err());
        drop(lent);
        let Some(Returned::Failed(failure)) = home.look() else { panic!("its failure is not told") };
        assert_eq!(failure.message(), "mine");
        assert!(home.look().is_none());
    }
}
