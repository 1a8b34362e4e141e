//! [`Driver`]: all that moves one connection.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use callsign_core::Stream;
use h2::client::Connection;
use tracing::debug;

use super::super::io::WatchedIo;
use super::dial::Note;
use super::keepalive::Keepalive;
use super::lane::Line;
use crate::error::chain;

/// What moves a connection. It must be polled for as long as the connection lives, and closes it when it is dropped.
pub(super) struct Driver {
    line: Arc<Line>,
    connection: Connection<WatchedIo<Stream, Note>, Bytes>,
    keepalive: Option<Keepalive>,
    /// Others have been let go first.
    has_yielded: bool,
}

impl Driver {
    pub(super) fn new(
        line: Arc<Line>,
        connection: Connection<WatchedIo<Stream, Note>, Bytes>,
        keepalive: Option<Keepalive>,
    ) -> Self {
        Self { line, connection, keepalive, has_yielded: false }
    }
}

impl Future for Driver {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        // Who is about to call, or has just got an answer and calls again, does so first: what is sent together costs little
        // more than one request.
        if this.line.taken() > 1 && !std::mem::replace(&mut this.has_yielded, true) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        this.has_yielded = false;
        let polled = Pin::new(&mut this.connection).poll(cx);
        if let Poll::Ready(ended) = polled {
            if let Err(error) = ended {
                debug!(error = %chain(&error), "connection failed");
            }
            this.line.shut();
            return Poll::Ready(());
        }
        if let Some(keepalive) = &mut this.keepalive
            && keepalive.poll(cx, this.line.reads()).is_ready()
        {
            this.keepalive = None;
            // Its calls end with the error that the next look at its bytes gives.
            this.line.give_up();
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }
}
