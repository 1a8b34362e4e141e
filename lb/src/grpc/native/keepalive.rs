//! [`Keepalive`]: asks a server that has been silent whether it is still there.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use h2::{Ping, PingPong};
use tokio::time::{Instant, Sleep, sleep};

use crate::clock::later;

/// The pings of one connection. Whatever is read shows that the server is there, and not its answer to a ping alone.
pub(super) struct Keepalive {
    pings: PingPong,
    /// How long it may be silent until it is asked.
    interval: Duration,
    /// How long it may take to answer.
    timeout: Duration,
    heard: Instant,
    reads: u64,
    is_asked: bool,
    sleep: Pin<Box<Sleep>>,
}

impl Keepalive {
    pub(super) fn new(pings: PingPong, (interval, timeout): (Duration, Duration)) -> Self {
        let sleep = Box::pin(sleep(interval));
        Self { pings, interval, timeout, heard: Instant::now(), reads: 0, is_asked: false, sleep }
    }

    /// Is ready when the server has not answered in time. `reads` counts what has been read from it.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, reads: u64) -> Poll<()> {
        if std::mem::replace(&mut self.reads, reads) != reads {
            self.heard = Instant::now();
            if std::mem::take(&mut self.is_asked) {
                self.sleep.as_mut().reset(later(self.heard, self.interval));
            }
        }
        // One that came, or that this is told of. Nothing is to be learnt of a connection that has failed.
        let _ = self.pings.poll_pong(cx);
        while self.sleep.as_mut().poll(cx).is_ready() {
            let due = later(self.heard, self.interval);
            if self.is_asked {
                return Poll::Ready(());
            }
            if due > self.sleep.deadline() {
                self.sleep.as_mut().reset(due);
                continue;
            }
            // It fails if one is under way, the answer to which has been overtaken by other words; and if the connection has
            // failed.
            let _ = self.pings.send_ping(Ping::opaque());
            self.is_asked = true;
            self.sleep.as_mut().reset(later(Instant::now(), self.timeout));
        }
        Poll::Pending
    }
}
