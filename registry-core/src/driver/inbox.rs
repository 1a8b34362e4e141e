//! [`Inbox`]: what the guard of a registration wants, and how much of it the registry has confirmed.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::error::{Error, Result};
use crate::model::{Instance, State};
use crate::registrar::{Change, Command, Leave, Progress};

/// What came first: the end of the work, or the word to leave.
pub(crate) enum Step<T> {
    Done(T),
    Leave(Leave),
}

/// What the guard wants: the content to publish, and the end. The registry wants an end too, when it closes.
pub(crate) struct Inbox {
    commands: mpsc::UnboundedReceiver<Command>,
    closing: watch::Receiver<Option<Instant>>,
    drain: Duration,
    /// What is to be published, shared with the guard.
    desired: watch::Sender<Arc<Instance>>,
    /// Whether that is to be written.
    unwritten: bool,
    /// What is being written.
    sending: Option<Arc<Instance>>,
    /// What was written last with an outcome that is not known.
    sent: Option<Arc<Instance>>,
    /// What the registry confirmed last.
    published: Option<Arc<Instance>>,
    /// The updates that are not published yet.
    waiting: Vec<watch::Sender<Progress>>,
}

impl Inbox {
    pub(crate) fn new(
        commands: mpsc::UnboundedReceiver<Command>,
        closing: watch::Receiver<Option<Instant>>,
        drain: Duration,
        desired: watch::Sender<Arc<Instance>>,
    ) -> Self {
        Self {
            commands,
            closing,
            drain,
            desired,
            unwritten: true,
            sending: None,
            sent: None,
            published: None,
            waiting: Vec::new(),
        }
    }

    pub(crate) fn desired(&self) -> Arc<Instance> {
        Arc::clone(&self.desired.borrow())
    }

    /// Whether there is content to be written.
    pub(crate) fn is_unwritten(&self) -> bool {
        self.unwritten
    }

    /// The content to write now. What comes of it is told by one of the four methods that follow.
    pub(crate) fn take(&mut self) -> Arc<Instance> {
        self.unwritten = false;
        let content = self.desired();
        self.sending = Some(Arc::clone(&content));
        content
    }

    /// What was taken is published.
    pub(crate) fn published(&mut self) {
        self.published = self.sending.take();
        self.sent = None;
        if !self.unwritten {
            self.answer(&Ok(()));
        }
    }

    /// Whether what was taken is published is not known: it is to be written again. Whoever gave up waiting is
    /// forgotten.
    pub(crate) fn unknown(&mut self, error: &Error) {
        self.waiting.retain(|waiting| !waiting.is_closed());
        for waiting in &self.waiting {
            waiting.send_replace(Progress::Waiting { error: Some(error.clone()) });
        }
        self.sent = self.sending.take().or_else(|| self.sent.take());
        self.unwritten = true;
    }

    /// What was taken was refused for what it is: what was published before stays, unless there is newer content.
    pub(crate) fn refused(&mut self) {
        let newer = std::mem::replace(&mut self.unwritten, true);
        self.sending = None;
        if let Some(published) = self.published.clone().filter(|_| !newer) {
            self.desired.send_replace(published);
            // What came before it with an unknown outcome may still be there.
            self.unwritten = self.sent.is_some();
        }
    }

    /// The entry is gone, or another's: nothing is published.
    pub(crate) fn forgotten(&mut self) {
        (self.sending, self.sent, self.published) = (None, None, None);
        self.unwritten = true;
    }

    /// What the entry may hold by all that is known: what was confirmed last, and what was sent since.
    pub(crate) fn candidates(&self) -> Vec<Arc<Instance>> {
        self.sent.iter().chain(&self.published).cloned().collect()
    }

    /// The registry was read, and holds this.
    pub(crate) fn confirmed(&mut self, content: &Arc<Instance>) {
        if self.sent.as_ref().is_some_and(|sent| Arc::ptr_eq(sent, content)) {
            self.published = self.sent.take();
            if **content == *self.desired() {
                self.unwritten = false;
                self.answer(&Ok(()));
            }
        }
    }

    /// Answers all who wait for an update.
    pub(crate) fn answer(&mut self, result: &Result<()>) {
        for waiting in self.waiting.drain(..) {
            waiting.send_replace(Progress::Done(result.clone()));
        }
    }

    /// Waits for a command: takes an update in, or returns the word to leave. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Option<Leave> {
        let command = tokio::select! {
            biased;
            command = self.commands.recv() => command,
            by = closes(&mut self.closing) => {
                let drain = self.drain.min(by.saturating_duration_since(Instant::now()) / 2);
                Some(Command::Leave(Leave { drain, ..Leave::at_once(by) }))
            }
        };
        match command {
            Some(Command::Update(change, done)) => {
                self.update(change, done);
                None
            }
            Some(Command::Leave(leave)) => Some(leave),
            None => Some(Leave::at_once(Instant::now())),
        }
    }

    /// Does `work`, unless the word to leave comes first. Updates are taken in without disturbing it.
    pub(crate) async fn race<T>(&mut self, work: impl Future<Output = T>) -> Step<T> {
        let mut work = pin!(work);
        loop {
            tokio::select! {
                biased;
                told = self.next() => if let Some(leave) = told { return Step::Leave(leave) },
                done = &mut work => return Step::Done(done),
            }
        }
    }

    /// Waits until the registry closes, and wants everything to have ended before `by`. For whoever leaves already.
    pub(crate) async fn closes_before(&mut self, by: Instant) -> Instant {
        match closes(&mut self.closing).await {
            sooner if sooner < by => sooner,
            // It may be the reason for leaving.
            _ => std::future::pending().await,
        }
    }

    fn update(&mut self, change: Change, done: watch::Sender<Progress>) {
        let desired = self.desired();
        let content = match change {
            Change::Content(instance) => *instance,
            Change::Drain => Instance::clone(&desired).with_state(State::Draining),
        };
        if *desired != content {
            self.desired.send_replace(Arc::new(content));
            self.unwritten = true;
        } else if !self.unwritten && self.sending.is_none() {
            // It is published as it is.
            done.send_replace(Progress::Done(Ok(())));
            return;
        }
        self.waiting.push(done);
    }
}

/// An error would say that the registry itself is gone, and nobody waits for us.
async fn closes(closing: &mut watch::Receiver<Option<Instant>>) -> Instant {
    closing.wait_for(Option::is_some).await.ok().and_then(|by| *by).unwrap_or_else(Instant::now)
}
