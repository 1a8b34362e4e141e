//! [`Lane`]: one HTTP/2 connection, and how many calls it has and takes. Counters only, so that calls need no lock.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering};

use bytes::Bytes;
use h2::client::SendRequest;
use tokio::sync::{Notify, oneshot};

use crate::factory::Lifeline;

/// What all connections to an instance share.
#[derive(Debug)]
pub(super) struct Common {
    /// How many connections take calls.
    open: AtomicUsize,
    /// How many calls wait for a place.
    pub(super) waiting: AtomicUsize,
    /// Told for one call that waits: there may be a place.
    pub(super) freed: Notify,
    /// Wakes the keeper.
    pub(super) wake: Notify,
    /// Whether the keeper is to be woken when a call begins.
    asleep: AtomicBool,
    lifeline: Lifeline,
}

impl Common {
    pub(super) fn new(lifeline: Lifeline) -> Self {
        Self {
            open: AtomicUsize::new(0),
            waiting: AtomicUsize::new(0),
            freed: Notify::new(),
            wake: Notify::new(),
            asleep: AtomicBool::new(false),
            lifeline,
        }
    }

    /// Whether no connection takes calls.
    pub(super) fn is_shut(&self) -> bool {
        self.open.load(Ordering::SeqCst) == 0
    }

    /// Whether the next call to begin wakes the keeper.
    pub(super) fn set_asleep(&self, asleep: bool) {
        self.asleep.store(asleep, Ordering::SeqCst);
    }

    /// Wakes the keeper, if it has asked for it.
    fn rouse(&self) {
        if self.asleep.load(Ordering::SeqCst) && self.asleep.swap(false, Ordering::SeqCst) {
            self.wake.notify_one();
        }
    }

    /// Tells whoever waits longest that there may be a place.
    pub(super) fn pass_on(&self) {
        if self.waiting.load(Ordering::SeqCst) > 0 {
            self.freed.notify_one();
        }
    }

    fn one_less(&self) {
        if self.open.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.lifeline.cut();
            // They go elsewhere.
            self.freed.notify_waiters();
        }
    }
}

/// What is known of one connection.
#[derive(Debug)]
pub(super) struct Line {
    common: Arc<Common>,
    stage: AtomicU8,
    taken: AtomicUsize,
    /// How many calls it takes.
    streams: AtomicUsize,
    most: usize,
    /// Calls whose answers have not begun.
    unanswered: AtomicUsize,
    answers: AtomicU64,
    /// How often something was read.
    reads: AtomicU64,
    /// The last stream that was begun.
    sent: AtomicU32,
    /// The server is not there any more.
    given_up: AtomicBool,
}

const NEW: u8 = 0;
const OPEN: u8 = 1;
const SHUT: u8 = 2;

impl Line {
    /// One that takes no calls yet, and at most so many later.
    pub(super) fn new(common: Arc<Common>, most: usize) -> Self {
        Self {
            common,
            stage: AtomicU8::new(NEW),
            taken: AtomicUsize::new(0),
            streams: AtomicUsize::new(most),
            most,
            unanswered: AtomicUsize::new(0),
            answers: AtomicU64::new(0),
            reads: AtomicU64::new(0),
            sent: AtomicU32::new(0),
            given_up: AtomicBool::new(false),
        }
    }

    /// Takes calls from now on, unless it has been shut.
    pub(super) fn open(&self) {
        self.common.open.fetch_add(1, Ordering::SeqCst);
        if self.stage.compare_exchange(NEW, OPEN, Ordering::SeqCst, Ordering::SeqCst).is_err() {
            self.common.one_less();
        }
    }

    /// Takes no more calls. Those that it has go on.
    pub(super) fn shut(&self) {
        if self.stage.swap(SHUT, Ordering::SeqCst) == OPEN {
            self.common.one_less();
            self.common.wake.notify_one();
        }
    }

    pub(super) fn is_shut(&self) -> bool {
        self.stage.load(Ordering::SeqCst) == SHUT
    }

    /// The server takes so many calls.
    pub(super) fn allow(&self, streams: u32) {
        let streams = usize::try_from(streams).unwrap_or(usize::MAX);
        self.streams.store(streams.min(self.most), Ordering::SeqCst);
        self.common.pass_on();
    }

    pub(super) fn taken(&self) -> usize {
        self.taken.load(Ordering::SeqCst)
    }

    pub(super) fn streams(&self) -> usize {
        self.streams.load(Ordering::SeqCst)
    }

    /// How many more calls it takes.
    pub(super) fn free(&self) -> usize {
        if self.is_shut() { 0 } else { self.streams().saturating_sub(self.taken()) }
    }

    fn take(&self) -> bool {
        let most = self.streams();
        let taken = self
            .taken
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |taken| (taken < most).then_some(taken + 1));
        taken.is_ok()
    }

    /// Has the connection end at the next look at its bytes.
    pub(super) fn give_up(&self) {
        self.given_up.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_given_up(&self) -> bool {
        self.given_up.load(Ordering::Relaxed)
    }

    pub(super) fn reads(&self) -> u64 {
        self.reads.load(Ordering::Relaxed)
    }

    pub(super) fn note_read(&self) {
        // There is one who reads.
        self.reads.store(self.reads().wrapping_add(1), Ordering::Relaxed);
    }

    /// The head of this stream's request, or its trailers, have begun to leave.
    pub(super) fn note_sent(&self, stream: u32) {
        // There is one who writes.
        if stream > self.sent.load(Ordering::Relaxed) {
            self.sent.store(stream, Ordering::Relaxed);
        }
    }

    /// Whether any of the stream has left. Streams leave in the order of their numbers.
    pub(super) fn has_sent(&self, stream: u32) -> bool {
        stream <= self.sent.load(Ordering::Relaxed)
    }

    pub(super) fn answers(&self) -> u64 {
        self.answers.load(Ordering::Relaxed)
    }

    /// Whether there are calls whose answers have not begun.
    pub(super) fn is_awaited(&self) -> bool {
        self.unanswered.load(Ordering::SeqCst) > 0
    }
}

/// One HTTP/2 connection. When this is dropped it takes no more requests, and closes when the calls on it have ended.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) line: Arc<Line>,
    sender: SendRequest<Bytes>,
    /// Its end is the end of the connection's time.
    _hold: oneshot::Sender<()>,
}

impl Lane {
    pub(super) fn new(line: Arc<Line>, sender: SendRequest<Bytes>, hold: oneshot::Sender<()>) -> Self {
        Self { line, sender, _hold: hold }
    }

    /// A place on it, and where to send the request, if there is one.
    pub(super) fn take(&self) -> Option<(Place, SendRequest<Bytes>)> {
        if !self.line.take() {
            return None;
        }
        let place = Place(Arc::clone(&self.line));
        (!self.line.is_shut()).then(|| (place, self.sender.clone()))
    }
}

/// The place of one call on a connection, until it is dropped.
#[derive(Debug)]
pub(in super::super) struct Place(Arc<Line>);

impl Place {
    pub(super) fn line(&self) -> &Line {
        &self.0
    }

    /// Counts a call as not answered until this is dropped.
    pub(super) fn awaits(&self) -> Awaits<'_> {
        self.0.unanswered.fetch_add(1, Ordering::SeqCst);
        self.0.common.rouse();
        Awaits(&self.0)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.taken.fetch_sub(1, Ordering::SeqCst);
        self.0.common.pass_on();
    }
}

/// A call whose answer has not begun.
pub(super) struct Awaits<'a>(&'a Line);

impl Awaits<'_> {
    /// It has.
    pub(super) fn answered(self) {
        self.0.answers.fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for Awaits<'_> {
    fn drop(&mut self) {
        self.0.unanswered.fetch_sub(1, Ordering::SeqCst);
    }
}
