//! [`Pending`]: a request whose caller may go away before it is answered.

use std::fmt;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};

use callsign_core::{HttpAnswer, Result};

type Answer = Pin<Box<dyn Future<Output = Result<HttpAnswer>> + Send>>;

/// A request that was sent, or none. What Consul was asked to write it may write at any time, also after the connection
/// was closed: so a call that is dropped leaves its request here, and the next call first sees what became of it.
#[derive(Default)]
pub(crate) struct Pending(Mutex<Option<Answer>>);

impl fmt::Debug for Pending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pending")
    }
}

impl Pending {
    fn get(&mut self) -> &mut Option<Answer> {
        self.0.get_mut().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a request, once what was sent before has been answered.
    pub(crate) async fn send(
        &mut self,
        request: impl Future<Output = Result<HttpAnswer>> + Send + 'static,
    ) -> Result<HttpAnswer> {
        drop(self.settle().await);
        let answer = self.get().insert(Box::pin(request)).as_mut().await;
        *self.get() = None;
        answer
    }

    /// The answer to what was sent and not waited for; `None` if there is no such.
    pub(crate) async fn settle(&mut self) -> Option<Result<HttpAnswer>> {
        let answer = self.get().as_mut()?.as_mut().await;
        *self.get() = None;
        Some(answer)
    }
}
