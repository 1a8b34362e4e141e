//! [`PendingRequest`]: a request whose caller may go away before it is answered.

use std::fmt;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};

use super::HttpAnswer;
use crate::error::Result;

type Answer = Pin<Box<dyn Future<Output = Result<HttpAnswer>> + Send>>;

/// A request that was sent, or none: for leases, any call of which may be dropped half way. What a server was asked to
/// write it may write at any time, also after the connection was closed: so a call that is dropped leaves its request
/// here, and the next call first sees what became of it.
#[derive(Default)]
pub struct PendingRequest(Mutex<Option<Answer>>);

impl fmt::Debug for PendingRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PendingRequest")
    }
}

impl PendingRequest {
    fn get(&mut self) -> &mut Option<Answer> {
        self.0.get_mut().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a request, once what was sent before has been answered. Cancel-safe in that the request is kept.
    ///
    /// # Errors
    /// As the request.
    pub async fn send(
        &mut self,
        request: impl Future<Output = Result<HttpAnswer>> + Send + 'static,
    ) -> Result<HttpAnswer> {
        drop(self.settle().await);
        let answer = self.get().insert(Box::pin(request)).as_mut().await;
        *self.get() = None;
        answer
    }

    /// The answer to what was sent and not waited for; `None` if there is no such.
    pub async fn settle(&mut self) -> Option<Result<HttpAnswer>> {
        let answer = self.get().as_mut()?.as_mut().await;
        *self.get() = None;
        Some(answer)
    }
}
