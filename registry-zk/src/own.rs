//! [`OwnNode`]: listens at the node of one registration, so that its loss is known at once and not at the next look.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use zookeeper_client::{Client, OneshotWatcher};

use crate::session::{Session, ended};

/// Resolves when it is worth looking. Kept in `self` and not on the stack of a call, so that a call that is dropped does
/// not have to ask for the watch again.
type Listening = Pin<Box<dyn Future<Output = ()> + Send>>;

pub(crate) struct OwnNode {
    session: Arc<Session>,
    listening: Option<Listening>,
    /// The bytes that the watch counts for.
    watched: usize,
}

impl fmt::Debug for OwnNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OwnNode").field("listens", &self.listening.is_some()).finish_non_exhaustive()
    }
}

impl OwnNode {
    pub(crate) fn new(session: Arc<Session>) -> Self {
        Self { session, listening: None, watched: 0 }
    }

    /// Whether the node may be watched; without, what becomes of the session is listened for.
    pub(crate) fn may_watch(&mut self, path: &str) -> bool {
        if self.watched == 0 && self.session.may_watch(path.len()) {
            self.watched = path.len();
        }
        self.watched > 0
    }

    pub(crate) fn listen(&mut self, watcher: OneshotWatcher) {
        self.listening = Some(Box::pin(async move {
            watcher.changed().await;
        }));
    }

    pub(crate) fn listen_to_session(&mut self, client: &Client) {
        self.listening = Some(Box::pin(ended(client)));
    }

    /// Waits for news, if it listens. Cancel-safe.
    pub(crate) async fn heard(&mut self) {
        if let Some(listening) = &mut self.listening {
            listening.await;
            self.listening = None;
        }
    }

    /// Stops listening.
    pub(crate) fn close(&mut self) {
        self.listening = None;
        self.session.watched_no_more(std::mem::take(&mut self.watched));
    }
}

impl Drop for OwnNode {
    fn drop(&mut self) {
        self.close();
    }
}
