//! A request body that comes home if it was never touched, so that a request which was never sent can be sent
//! elsewhere.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tonic::Status;
use tonic::body::Body;

/// Where an untouched body is put.
#[derive(Clone, Default)]
pub(super) struct Home(Arc<Mutex<Option<Body>>>);

impl Home {
    /// The body, if it has come home.
    pub(super) fn take(&self) -> Option<Body> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Lends a body out.
pub(super) fn lend(body: Body) -> (Body, Home) {
    let home = Home::default();
    (Body::new(Lent { body: Some(body), touched: false, home: home.clone() }), home)
}

struct Lent {
    body: Option<Body>,
    touched: bool,
    home: Home,
}

impl http_body::Body for Lent {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        self.touched = true;
        match &mut self.body {
            Some(body) => Pin::new(body).poll_frame(cx),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(http_body::Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), http_body::Body::size_hint)
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if !self.touched {
            *self.home.0.lock().unwrap_or_else(PoisonError::into_inner) = self.body.take();
        }
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::{BodyExt, Full};

    use super::*;

    #[tokio::test]
    async fn comes_home_only_if_untouched() {
        let whole = || Body::new(Full::new(Bytes::from_static(b"hello")).map_err(|never| match never {}));
        let (lent, home) = lend(whole());
        drop(lent);
        assert_eq!(home.take().unwrap().collect().await.unwrap().to_bytes(), "hello");

        let (mut lent, home) = lend(whole());
        lent.frame().await.unwrap().unwrap();
        drop(lent);
        assert!(home.take().is_none());
    }
}
