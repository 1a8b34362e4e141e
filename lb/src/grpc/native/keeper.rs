//! [`Keeper`]: the task of the connections to one instance. It moves their requests, opens more connections when they are
//! needed, and looks after those that have fallen silent. The entry is [`Keeper::run`].

use std::future::pending;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tracing::debug;

use super::dial::Dial;
use super::driver::Driver;
use super::lane::{Lane, Line};
use super::pool::Pool;
use crate::error::{BoxError, chain};

/// How often connections with calls are looked at.
const BEAT: Duration = Duration::from_millis(250);
/// How long a server may say nothing while calls wait for an answer, until it is dialled anew.
const SILENCE: Duration = Duration::from_secs(1);
/// The most, where it is slow: it must not be dialled all the time.
const LONG_SILENCE: Duration = Duration::from_secs(64);
/// How long that dial may take until the instance counts as gone.
const REPLY: Duration = Duration::from_secs(1);
/// The pause after a failed dial for another connection.
const PAUSE: Duration = Duration::from_secs(1);
/// How long a connection that is not needed stays open.
const SPARE: Duration = Duration::from_secs(60);

/// Keeps the connections to one instance, until it is dropped.
pub(super) struct Keeper {
    pool: Arc<Pool>,
    dial: Arc<Dial>,
    connect_timeout: Duration,
    /// How many connections there may be.
    most: usize,
    drivers: JoinSet<()>,
    dialling: Option<Dialling>,
    watched: Vec<Watched>,
    /// How long silence may last: longer where it has ended in an answer, or where the server has been dialled for it and
    /// was there.
    patience: Duration,
    /// No dial for another connection before.
    not_before: Instant,
    /// Since when there is a connection too many.
    spare_since: Option<Instant>,
}

type Made = Result<(Arc<Lane>, Driver), BoxError>;

/// A dial under way.
struct Dialling {
    made: Pin<Box<dyn Future<Output = Made> + Send>>,
    /// Why: a connection has fallen silent, on which so much had been read; or one more is needed.
    instead_of: Option<(Arc<Line>, u64)>,
}

/// What was last seen of a connection.
struct Watched {
    line: Arc<Line>,
    reads: u64,
    read_at: Instant,
    answers: u64,
    /// Since when calls wait for an answer and nothing was read.
    silent_since: Option<Instant>,
}

impl Watched {
    fn new(line: Arc<Line>, now: Instant) -> Self {
        Self { reads: line.reads(), read_at: now, answers: line.answers(), silent_since: None, line }
    }

    /// Looks at it again, and returns for how long it has been silent, and whether that has just ended in an answer.
    fn look(&mut self, now: Instant) -> Option<(Duration, bool)> {
        let (reads, answers) = (self.line.reads(), self.line.answers());
        let silent = |since: Instant| now.duration_since(since);
        let before = self.silent_since.map(silent).unwrap_or_default();
        let was_answered = std::mem::replace(&mut self.answers, answers) != answers;
        if std::mem::replace(&mut self.reads, reads) != reads {
            self.read_at = now;
            self.silent_since = None;
        } else if self.line.is_awaited() {
            let since = *self.silent_since.get_or_insert(now);
            return Some((silent(since), false));
        } else {
            self.silent_since = None;
        }
        was_answered.then_some((before, true))
    }
}

impl Keeper {
    pub(super) fn new(pool: Arc<Pool>, dial: Arc<Dial>, most: usize, connect_timeout: Duration) -> Self {
        Self {
            pool,
            dial,
            connect_timeout,
            most,
            drivers: JoinSet::new(),
            dialling: None,
            watched: Vec::new(),
            patience: SILENCE,
            not_before: Instant::now(),
            spare_since: None,
        }
    }

    /// Takes a connection in.
    pub(super) fn keep(&mut self, lane: &Arc<Lane>, driver: Driver) {
        self.drivers.spawn(driver);
        self.watched.push(Watched::new(Arc::clone(&lane.line), Instant::now()));
        self.pool.add(lane);
    }

    pub(super) async fn run(mut self) {
        let common = Arc::clone(&self.pool.common);
        loop {
            self.look(Instant::now());
            let made = async {
                match &mut self.dialling {
                    Some(dialling) => (&mut dialling.made).await,
                    None => pending().await,
                }
            };
            let is_busy = || {
                let awaited = self.watched.iter().any(|watched| watched.line.is_awaited());
                awaited || self.watched.len() > 1 || common.waiting.load(Ordering::SeqCst) > 0
            };
            // In this order: a call that begins now is seen, or sees that it is to wake somebody.
            common.set_asleep(true);
            let is_busy = is_busy();
            if is_busy {
                common.set_asleep(false);
            }
            let beat = async {
                match is_busy {
                    true => sleep(BEAT).await,
                    false => pending().await,
                }
            };
            tokio::select! {
                () = common.wake.notified() => {}
                Some(_) = self.drivers.join_next(), if !self.drivers.is_empty() => {}
                made = made => self.dialled(made),
                () = beat => {}
            }
        }
    }

    /// Sees what is to be done, and begins it.
    fn look(&mut self, now: Instant) {
        self.pool.sweep();
        let silent = self.listen(now);
        // What is answered on one that takes no more calls still tells how slow the server is.
        self.watched.retain(|watched| !watched.line.is_shut() || watched.line.taken() > 0);
        self.spare(now);
        if self.dialling.is_some() || self.pool.common.is_shut() {
            return;
        }
        if let Some(silent) = silent {
            self.begin(REPLY, Some(silent));
        } else if now >= self.not_before && self.needs_more() {
            self.begin(self.connect_timeout, None);
        }
    }

    /// Whether more calls wait than there are places for, and there may be another connection.
    fn needs_more(&self) -> bool {
        let waiting = self.pool.common.waiting.load(Ordering::SeqCst);
        let lanes = self.pool.lanes();
        // Who has been told that there is a place may not have taken it yet.
        let free = lanes.iter().map(|lane| lane.line.free()).fold(0, usize::saturating_add);
        waiting > free && lanes.len() < self.most
    }

    /// A connection that has been silent for too long, with how much had been read on it.
    fn listen(&mut self, now: Instant) -> Option<(Arc<Line>, u64)> {
        let mut longest = None;
        for watched in &mut self.watched {
            match watched.look(now) {
                Some((silent, true)) => {
                    self.patience = silent.saturating_mul(2).clamp(SILENCE, LONG_SILENCE);
                }
                Some((silent, false)) if silent >= self.patience && !watched.line.is_shut() => {
                    longest = Some((Arc::clone(&watched.line), watched.reads));
                }
                _ => {}
            }
        }
        longest
    }

    /// Lets go of a connection that has not been needed for long.
    fn spare(&mut self, now: Instant) {
        let lanes = self.pool.lanes();
        let Some((last, others)) = lanes.split_last().filter(|(_, others)| !others.is_empty()) else {
            self.spare_since = None;
            return;
        };
        let taken = lanes.iter().map(|lane| lane.line.taken()).sum::<usize>();
        let room = others.iter().map(|lane| lane.line.streams()).fold(0, usize::saturating_add);
        if taken > room / 2 {
            self.spare_since = None;
        } else if now.duration_since(*self.spare_since.get_or_insert(now)) >= SPARE {
            self.spare_since = None;
            last.line.shut();
        }
    }

    fn begin(&mut self, within: Duration, instead_of: Option<(Arc<Line>, u64)>) {
        let (dial, common) = (Arc::clone(&self.dial), Arc::clone(&self.pool.common));
        let made = Box::pin(async move {
            match timeout(within, dial.run(&common)).await {
                Ok(made) => made,
                Err(_) => Err(format!("no connection within {within:?}").into()),
            }
        });
        self.dialling = Some(Dialling { made, instead_of });
    }

    fn dialled(&mut self, made: Made) {
        let instead_of = self.dialling.take().and_then(|dialling| dialling.instead_of);
        let address = &self.dial.address;
        match (made, instead_of) {
            // It may have come too late: then what is dropped here closes.
            (Ok(_), _) if self.pool.common.is_shut() => {}
            (Ok((lane, driver)), None) => self.keep(&lane, driver),
            // The server is there, and slow, or the way of the old connection is broken. Calls on that go on.
            (Ok((lane, driver)), Some((old, reads))) => {
                if old.reads() == reads {
                    debug!(%address, "a connection has fallen silent: another one takes its place");
                    self.keep(&lane, driver);
                    old.shut();
                    self.patience = self.patience.saturating_mul(2).min(LONG_SILENCE);
                }
            }
            (Err(error), None) => {
                debug!(%address, error = %chain(&*error), "no further connection");
                self.not_before = Instant::now() + PAUSE;
            }
            (Err(error), Some((old, reads))) => {
                if old.reads() == reads {
                    debug!(%address, error = %chain(&*error), "fallen silent");
                    let now = Instant::now();
                    for Watched { line, reads, read_at, .. } in &self.watched {
                        if line.reads() == *reads && now.duration_since(*read_at) >= SILENCE {
                            line.shut();
                        }
                    }
                }
            }
        }
    }
}
