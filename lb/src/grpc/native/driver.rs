//! [`Driver`]: all that moves one connection, in one task.
//!
//! hyper has a task for the connection and one for its requests. With both in one, a request is not begun while the server's
//! word that it goes away is being taken in, so what becomes of it is known; and a request wakes one task in place of two.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use callsign_core::Stream;
use hyper::client::conn::http2;
use hyper_util::rt::TokioIo;
use tokio::runtime::Handle;
use tracing::debug;

use super::super::io::WatchedIo;
use super::super::lent::Lent;
use super::dial::Note;
use super::lane::Line;
use crate::error::chain;

type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Gathers what hyper spawns while it makes a connection, and spawns what comes later: a task for each call, which ends
/// with it or with the connection.
#[derive(Clone)]
pub(super) struct Executor {
    runtime: Handle,
    gathered: Arc<Gathered>,
}

#[derive(Default)]
struct Gathered {
    is_complete: AtomicBool,
    tasks: Mutex<Vec<Task>>,
}

impl Executor {
    pub(super) fn new(runtime: Handle) -> Self {
        Self { runtime, gathered: Arc::default() }
    }

    /// What has been gathered. From now on all is spawned.
    fn complete(&self) -> Vec<Task> {
        self.gathered.is_complete.store(true, Ordering::Release);
        std::mem::take(&mut *self.gathered.tasks.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl<F> hyper::rt::Executor<F> for Executor
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, task: F) {
        if self.gathered.is_complete.load(Ordering::Acquire) {
            drop(self.runtime.spawn(task));
        } else {
            let mut tasks = self.gathered.tasks.lock().unwrap_or_else(PoisonError::into_inner);
            tasks.push(Box::pin(task));
        }
    }
}

type Requests = http2::Connection<TokioIo<WatchedIo<Stream, Note>>, Lent, Executor>;

/// What moves a connection. It must be polled for as long as the connection lives, and closes it when it is dropped.
pub(super) struct Driver {
    line: Arc<Line>,
    requests: Option<Requests>,
    connection: Vec<Task>,
}

impl Driver {
    pub(super) fn new(line: Arc<Line>, requests: Requests, executor: &Executor) -> Self {
        Self { line, requests: Some(requests), connection: executor.complete() }
    }
}

impl Future for Driver {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        if let Some(requests) = &mut this.requests
            && let Poll::Ready(ended) = Pin::new(requests).poll(cx)
        {
            if let Err(error) = ended {
                debug!(error = %chain(&error), "connection failed");
            }
            // Before what waits there comes back, so that nothing is sent here again.
            this.line.shut();
            this.requests = None;
        }
        this.connection.retain_mut(|task| task.as_mut().poll(cx).is_pending());
        if this.connection.is_empty() { Poll::Ready(()) } else { Poll::Pending }
    }
}
