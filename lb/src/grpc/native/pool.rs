//! [`Pool`]: all connections to an instance, and the calls that wait for a place on one. The entry is [`Pool::enter`].

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use arc_swap::ArcSwap;
use bytes::Bytes;
use h2::client::SendRequest;

use super::lane::{Common, Lane, Place};

/// The connections to an instance, the oldest first.
#[derive(Debug)]
pub(super) struct Pool {
    pub(super) common: Arc<Common>,
    lanes: ArcSwap<Vec<Arc<Lane>>>,
    /// How many calls may wait.
    queue: usize,
}

/// A place on a connection, and where to send the request.
type Seat = (Place, SendRequest<Bytes>);

/// Why a call has no place.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NoPlace {
    /// No connection takes calls any more.
    Shut,
    /// As many calls as may are waiting already: so many.
    Full(usize),
}

/// A call in the queue.
struct Waiting<'a>(&'a Common);

impl<'a> Waiting<'a> {
    /// Puts a call in the queue, and returns whether it is the first.
    fn join(common: &'a Common, most: usize) -> Option<(Self, bool)> {
        let join = |waiting| (waiting < most).then_some(waiting + 1);
        let before = common.waiting.fetch_update(Ordering::SeqCst, Ordering::SeqCst, join).ok()?;
        Some((Self(common), before == 0))
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Pool {
    pub(super) fn new(common: Arc<Common>, queue: usize) -> Self {
        Self { common, lanes: ArcSwap::default(), queue }
    }

    pub(super) fn lanes(&self) -> Arc<Vec<Arc<Lane>>> {
        self.lanes.load_full()
    }

    /// Adds a connection. Only the keeper changes the list.
    pub(super) fn add(&self, lane: &Arc<Lane>) {
        let mut lanes = Vec::clone(&self.lanes.load());
        lanes.push(Arc::clone(lane));
        self.lanes.store(Arc::new(lanes));
        lane.line.open();
        self.common.pass_on();
    }

    /// Lets go of the connections that take no calls any more: they close when the calls on them have ended.
    pub(super) fn sweep(&self) {
        let lanes = self.lanes.load();
        if lanes.iter().any(|lane| lane.line.is_shut()) {
            let open = lanes.iter().filter(|lane| !lane.line.is_shut()).cloned().collect();
            self.lanes.store(Arc::new(open));
        }
    }

    /// A place on the connection with the fewest calls, if there is one.
    fn take(&self) -> Option<Seat> {
        let lanes = self.lanes.load();
        loop {
            let free = lanes.iter().filter(|lane| lane.line.free() > 0);
            let lane = free.min_by_key(|lane| lane.line.taken())?;
            // Somebody else may have been faster, and then another one may be free.
            if let Some(seat) = lane.take() {
                return Some(seat);
            }
        }
    }

    /// A place for a call, in the order in which calls came if they have to wait. Cancel-safe.
    pub(super) async fn enter(&self) -> Result<Seat, NoPlace> {
        let common = &*self.common;
        if common.waiting.load(Ordering::SeqCst) == 0
            && let Some(seat) = self.take()
        {
            return Ok(seat);
        }
        if common.is_shut() {
            return Err(NoPlace::Shut);
        }
        let (waiting, is_first) = Waiting::join(common, self.queue).ok_or(NoPlace::Full(self.queue))?;
        // It may open another connection.
        common.wake.notify_one();
        // Whoever is not the first is told by the one before, and must not overtake it.
        let mut may_take = is_first;
        let seat = loop {
            let mut freed = pin!(common.freed.notified());
            freed.as_mut().enable();
            if let Some(seat) = may_take.then(|| self.take()).flatten() {
                break seat;
            }
            if common.is_shut() {
                return Err(NoPlace::Shut);
            }
            freed.await;
            may_take = true;
        };
        drop(waiting);
        // Several places may have become free at once, of which only one was told.
        if self.lanes.load().iter().any(|lane| lane.line.free() > 0) {
            common.pass_on();
        }
        Ok(seat)
    }
}
