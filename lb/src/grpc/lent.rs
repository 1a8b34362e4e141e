//! [`Lent`]: a request body in the hands of tonic's transport, which can be had back as it was; that remembers its own failure,
//! which HTTP/2 has no way to report; and that ends with its call.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio::sync::oneshot;
use tonic::Status;
use tonic::body::Body;

use super::kept::Kept;

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
    let body = Some(Kept::new(body));
    let lent = Lent { body, begun: false, way: Some(way), answered: Arc::clone(&answered) };
    (lent, Home { way: home, answered })
}

/// A body that is lent out.
pub(super) struct Lent {
    body: Option<Kept>,
    /// Whether it was asked for a frame.
    begun: bool,
    way: Option<oneshot::Sender<Returned>>,
    answered: Arc<AtomicBool>,
}

impl Lent {
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
        // Before that hyper resets it. Where the head has not left yet a reset of ours would leave h2 with a stream less and
        // nobody told who waits for one.
        if is_over && answered {
            self.body = None;
            return Poll::Ready(Some(Err(given_up())));
        }
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        if answered {
            body.forget();
        }
        let polled = body.poll_frame(cx);
        if let Poll::Ready(Some(Err(failure))) = &polled {
            let failure = failure.clone();
            self.send_home(Returned::Failed(failure));
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Kept::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), Kept::size_hint)
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
        if let Some(body) = self.body.take().and_then(Kept::into_whole) {
            let begun = self.begun;
            self.send_home(Returned::Whole { body, begun });
        }
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
            assert_eq!(whole(&mut home).collect().await.unwrap().to_bytes(), "hello");
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
        let (mut lent, mut home) = lend(hello());
        assert!(lent.frame().await.unwrap().is_ok());
        home.answered();
        assert!(lent.frame().await.unwrap().is_ok());
        drop(lent);
        assert!(home.look().is_none());
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
    async fn what_failed_does_not_come_home() {
        let (mut lent, mut home) = lend(body(vec![Ok(Bytes::new()), Err(Status::aborted("mine"))]));
        assert!(lent.frame().await.unwrap().is_ok() && lent.frame().await.unwrap().is_err());
        drop(lent);
        let Some(Returned::Failed(failure)) = home.look() else { panic!("its failure is not told") };
        assert_eq!(failure.message(), "mine");
        assert!(home.look().is_none());
    }
}
