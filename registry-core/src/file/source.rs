//! [`FileSource`]: follows one service's directory. What is heard of is looked at at once, and everything is
//! looked at every now and then, in case that something was not heard.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

use super::ended;
use super::follow::Follower;
use super::notice::{Heard, Inbox, Listen, listen};
use crate::backend::{Source, Update};
use crate::error::Result;
use crate::model::ServiceName;

/// How often everything is looked at where all changes and deaths are heard of.
const SAFETY: Duration = Duration::from_secs(5);
/// How often where they are not: the time within which a death is to be seen is twice that.
const POLL: Duration = Duration::from_millis(500);
/// The least time between two looks at everything that hints call for.
const CALM: Duration = Duration::from_millis(10);
/// How many entries are looked at before that is told: when many owners die, the first are not to wait for the last.
const AT_ONCE: usize = 500;
/// When an owner is probed again whose lock was closed and could not be had yet.
const AGAIN: [Duration; 3] =
    [Duration::from_millis(5), Duration::from_millis(50), Duration::from_millis(500)];

/// What to look at.
#[derive(Debug)]
enum Look {
    List,
    /// At everything that is not as it was, and at what was heard of in any case.
    Refresh(Heard),
    At(Heard),
}

/// What a look came to.
#[derive(Debug)]
enum Seen {
    All(Update),
    /// Everything was looked at, which took so long.
    Refreshed(Option<Update>, Duration),
    /// With the entries to probe again.
    Some(Option<Update>, Vec<String>),
}

type Work = JoinHandle<(Box<Follower>, Result<Seen>)>;

#[derive(Debug)]
pub(super) struct FileSource {
    follower: Follow,
    inbox: Arc<Inbox>,
    pub(super) listen: Listen,
    root: Arc<Path>,
    service: ServiceName,
    listed: bool,
    skipped: usize,
    refresh_at: Instant,
    /// Before this, no hint makes us look at everything.
    calm_until: Instant,
    /// What is to be looked at again, in the order of its time; and how often that was done.
    again: BTreeMap<(Instant, String), usize>,
    /// What was heard and not looked at yet.
    heard: Heard,
}

/// The follower, here or at work. The work goes on when `next` is dropped, and the next call takes it up.
#[derive(Debug)]
enum Follow {
    Here(Box<Follower>),
    Working {
        work: Work,
        is_list: bool,
    },
    /// It was lost with a runtime that ended, and is made anew.
    Lost,
}

impl FileSource {
    pub(super) fn new(root: Arc<Path>, service: &ServiceName) -> Self {
        let now = Instant::now();
        Self {
            follower: Follow::Lost,
            inbox: Arc::default(),
            listen,
            root,
            service: service.clone(),
            listed: false,
            skipped: 0,
            refresh_at: now,
            calm_until: now,
            again: BTreeMap::new(),
            heard: Heard::default(),
        }
    }

    /// Waits until there is something to look at. Cancel-safe: what it takes out it returns at once.
    async fn wait(&mut self) -> Look {
        loop {
            self.heard.add(self.inbox.take());
            let now = Instant::now();
            if std::mem::take(&mut self.heard.anything) {
                self.refresh_at = self.refresh_at.min(self.calm_until.max(now));
            }
            if self.refresh_at <= now {
                // It covers what was heard of, but not those whose lock was closed a moment ago.
                let heard = std::mem::take(&mut self.heard);
                self.look_again(heard.closed.iter().cloned(), 0);
                return Look::Refresh(heard);
            }
            while let Some(due) = self.again.first_entry().filter(|due| due.key().0 <= now) {
                let ((_, stem), tries) = due.remove_entry();
                self.look_again([stem.clone()], tries + 1);
                self.heard.touched.insert(stem);
            }
            if !self.heard.is_empty() {
                return Look::At(self.heard.take_some(AT_ONCE));
            }
            let at = self.again.keys().next().map_or(self.refresh_at, |(at, _)| self.refresh_at.min(*at));
            tokio::select! {
                () = self.inbox.news() => {}
                () = sleep_until(at) => {}
            }
        }
    }

    fn look_again(&mut self, stems: impl IntoIterator<Item = String>, tries: usize) {
        if let Some(after) = AGAIN.get(tries) {
            let at = Instant::now() + *after;
            self.again.extend(stems.into_iter().map(|stem| ((at, stem), tries)));
        }
    }

    fn begin(&mut self, look: Look) {
        let mut follower = match std::mem::replace(&mut self.follower, Follow::Lost) {
            Follow::Here(follower) => follower,
            _ => Box::new(Follower::new(&self.root, &self.service, Arc::clone(&self.inbox), self.listen)),
        };
        let is_list = matches!(look, Look::List);
        let work = tokio::task::spawn_blocking(move || {
            let started = Instant::now();
            let seen = match look {
                Look::List => follower.list().map(|all| Seen::All(Update::Full(all))),
                Look::Refresh(heard) => follower
                    .refresh(&heard)
                    .map(|changes| Seen::Refreshed(changes.into_update(), started.elapsed())),
                Look::At(heard) => {
                    follower.look_at(heard).map(|(changes, alive)| Seen::Some(changes.into_update(), alive))
                }
            };
            (follower, seen)
        });
        self.follower = Follow::Working { work, is_list };
    }

    /// Notes what was seen, and says what of it is news.
    fn take_in(&mut self, follower: Box<Follower>, seen: Result<Seen>) -> Option<Result<Update>> {
        let skipped = follower.skipped();
        let more_or_less = std::mem::replace(&mut self.skipped, skipped) != skipped;
        let hears_all = follower.hears_all();
        self.follower = Follow::Here(follower);
        let now = Instant::now();
        let update = match seen {
            Ok(Seen::All(update)) => {
                self.listed = true;
                self.plan(hears_all, Duration::ZERO, now);
                return Some(Ok(update));
            }
            Ok(Seen::Refreshed(update, took)) => {
                self.plan(hears_all, took, now);
                update
            }
            Ok(Seen::Some(update, alive)) => {
                self.look_again(alive, 0);
                update
            }
            Err(error) => return Some(Err(error)),
        };
        // That more or less can be understood is news too.
        update.or_else(|| more_or_less.then(|| Update::Delta { put: Vec::new(), gone: Vec::new() })).map(Ok)
    }

    /// When to look at everything the next time: seldom enough that a large service costs no more than a few
    /// percent of one processor.
    fn plan(&mut self, hears_all: bool, took: Duration, now: Instant) {
        let pause = if hears_all { SAFETY.max(took * 50) } else { POLL.max(took * 10) };
        self.refresh_at = now + pause;
        self.calm_until = now + CALM.max(took * 10);
    }
}

#[async_trait]
impl Source for FileSource {
    async fn next(&mut self) -> Result<Update> {
        loop {
            if let Follow::Working { work, is_list } = &mut self.follower {
                // A look that was begun before it was to list anew is in the list too.
                let outdated = !self.listed && !*is_list;
                let done = work.await;
                self.follower = Follow::Lost;
                let (follower, seen) = done.map_err(|error| {
                    self.listed = false;
                    ended(error)
                })?;
                match self.take_in(follower, seen) {
                    _ if outdated => {}
                    Some(Err(error)) => {
                        self.listed = false;
                        return Err(error);
                    }
                    Some(Ok(update)) => return Ok(update),
                    None => {}
                }
            }
            let look = if self.listed { self.wait().await } else { Look::List };
            self.begin(look);
        }
    }

    fn relist(&mut self) {
        self.listed = false;
    }

    fn skipped(&self) -> usize {
        self.skipped
    }
}
