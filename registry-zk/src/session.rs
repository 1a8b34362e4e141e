//! [`Session`]: the one session of a registry, shared by all that it registers and watches.
//!
//! A disconnect is no expiry: the client library returns to the same session by itself. Only one that has ended is
//! replaced, by whoever needs it first; nobody does so in the background.
//!
//! A ZooKeeper that lost its data refuses, without a word, whoever has seen more of it than it has, and a client would try
//! until it gives its session up, 1.4 times its timeout later. So whoever waits for a lost connection asks for the same
//! session as one who has seen nothing: then it is told that there is none.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use callsign_core::{CredentialProvider, Error, ErrorKind, Result};
use tokio::sync::{Mutex, watch};
use tokio::time::{Instant, timeout, timeout_at};
use tracing::{info, warn};
use zookeeper_client::{Client, SessionState, StateWatcher};

use crate::away::Away;
use crate::doubt::Doubt;
use crate::error;
use crate::owners::{Left, Owners};
use crate::way::Way;

/// The most bytes of paths that are watched for own nodes. Above 128 KiB the client library asks for its watches in a
/// way that ends the session at the next reconnect; what is left of that is for the services that are followed.
const WATCHED: usize = 96 * 1024;

/// How often it is tried to remove what was left behind, before the next look.
const TRIES: usize = 5;

/// How long a connection may take to return before it is asked whether its session has ended.
pub(crate) const PROBE: Duration = Duration::from_secs(1);

/// How an ensemble is reached.
pub(crate) struct Ensemble {
    pub(crate) way: Way,
    /// What is asked for; the ensemble may grant another.
    pub(crate) timeout: Duration,
    pub(crate) request_timeout: Duration,
    pub(crate) credentials: Option<Arc<dyn CredentialProvider>>,
}

pub(crate) struct Session {
    ensemble: Ensemble,
    state: Mutex<State>,
    pub(crate) owners: Owners,
    watched: AtomicUsize,
    /// How many sources and leases there are.
    users: AtomicUsize,
    /// The last session that has ended as ZooKeeper says, though its client does not know it.
    ended: watch::Sender<i64>,
    /// Who is not connected.
    away: Mutex<Option<Away>>,
    doubt: Doubt,
}

#[derive(Default)]
struct State {
    client: Option<Client>,
    /// The last attempt that failed.
    failed: Option<(Instant, Error)>,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("hosts", &self.hosts()).finish_non_exhaustive()
    }
}

impl Session {
    pub(crate) fn new(ensemble: Ensemble) -> Self {
        Self {
            ensemble,
            state: Mutex::default(),
            owners: Owners::default(),
            watched: AtomicUsize::new(0),
            users: AtomicUsize::new(0),
            ended: watch::Sender::new(0),
            away: Mutex::default(),
            doubt: Doubt::default(),
        }
    }

    /// A client whose session lives and is connected.
    pub(crate) async fn client(&self) -> Result<Client> {
        let by = Instant::now() + self.ensemble.request_timeout;
        loop {
            let client = self.current().await?;
            let mut states = client.state_watcher();
            let soon = by.min(Instant::now() + PROBE);
            match timeout_at(soon, settled(&client, &mut states)).await {
                Ok(true) => {
                    self.tidy(&client).await?;
                    return Ok(client);
                }
                Ok(false) => {}
                Err(_) if self.has_ended(&client).await => {}
                Err(_) if Instant::now() >= by => return Err(self.disconnected()),
                Err(_) => {}
            }
        }
    }

    /// Whether a session has ended. If it is not connected ZooKeeper is asked, now and then.
    pub(crate) async fn has_ended(&self, client: &Client) -> bool {
        if !self.lives(client) {
            return true;
        }
        if client.state() == SessionState::SyncConnected {
            return false;
        }
        // Whoever comes while it is asked hears of it later.
        let Ok(mut away) = self.away.try_lock() else { return false };
        if !Away::is_to_be_asked_for(&mut away, client) {
            return false;
        }
        let mut states = client.state_watcher();
        tokio::select! {
            ended = self.probe(client) => ended,
            // Its client was quicker, and would lose the connection again to who asks on.
            _ = settled(client, &mut states) => !self.lives(client),
        }
    }

    /// Asks ZooKeeper whether a session has ended.
    async fn probe(&self, client: &Client) -> bool {
        let Ok(connector) = self.ensemble.way.connector() else { return false };
        let connector = connector
            .with_session(client.session().clone())
            .with_session_timeout(self.ensemble.timeout)
            .with_fail_eagerly()
            // If the session lives it is its client's, and goes on.
            .with_detached();
        let asked = timeout(PROBE * 2, self.ensemble.way.connect(connector)).await;
        let ended = matches!(asked, Ok(Err(zookeeper_client::Error::SessionExpired)));
        if ended {
            info!(ensemble = self.hosts(), session = %client.session_id(), "ZooKeeper does not know the session any more");
            self.ended.send_replace(client.session_id().0);
        }
        ended
    }

    /// Whether a session has not ended, as far as is known.
    pub(crate) fn lives(&self, client: &Client) -> bool {
        !client.state().is_terminated() && *self.ended.borrow() != client.session_id().0
    }

    /// Waits until a session is found to have ended before its client knows it. Cancel-safe.
    pub(crate) async fn found_ended(&self, client: &Client) {
        let session = client.session_id().0;
        let mut ended = self.ended.subscribe();
        let find_out = async {
            loop {
                let mute = self.doubt.mute(client).await;
                let mut states = client.state_watcher();
                let ended = tokio::select! {
                    ended = self.probe(client) => ended,
                    // It is told whether its session has ended, or lost it to who asks: then it lives.
                    _ = states.changed() => false,
                };
                if ended {
                    return;
                }
                mute.asked();
            }
        };
        tokio::select! {
            biased;
            Ok(_) = ended.wait_for(|ended| *ended == session) => {}
            () = find_out => {}
        }
    }

    /// That it is not connected.
    pub(crate) fn disconnected(&self) -> Error {
        let text = format!(
            "ZooKeeper at {}: the connection is lost, and none of its servers takes it up{}",
            self.hosts(),
            self.ensemble.way.refused()
        );
        Error::new(ErrorKind::Unavailable, text)
    }

    /// Waits for an answer, within its bound.
    pub(crate) async fn ask<T>(
        &self,
        what: &str,
        answer: impl Future<Output = Result<T, zookeeper_client::Error>>,
    ) -> Result<T> {
        self.asked(what, answer).await?.map_err(|error| self.said(what, &error))
    }

    /// The same where some of what ZooKeeper may say is no failure.
    pub(crate) async fn asked<T>(&self, what: &str, answer: impl Future<Output = T>) -> Result<T> {
        let within = self.ensemble.request_timeout;
        timeout(within, answer).await.map_err(|_| {
            let text = format!("ZooKeeper at {} did not answer the {what} within {within:?}", self.hosts());
            Error::new(ErrorKind::Timeout, text)
        })
    }

    pub(crate) fn said(&self, what: &str, error: &zookeeper_client::Error) -> Error {
        error::map(what, self.hosts(), error)
    }

    pub(crate) fn hosts(&self) -> &str {
        self.ensemble.way.hosts()
    }

    /// Whether one more path of an own node may be watched; to be given back.
    pub(crate) fn may_watch(&self, bytes: usize) -> bool {
        let more = |watched: usize| (watched + bytes <= WATCHED).then_some(watched + bytes);
        self.watched.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }

    pub(crate) fn watched_no_more(&self, bytes: usize) {
        self.watched.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Ends the session, if nobody is busy with it: what it owns goes with it.
    pub(crate) fn end(&self) {
        if let Ok(mut state) = self.state.try_lock() {
            state.client = None;
        }
    }

    /// The client of the session that lives, or of a new one. Whoever comes while one is being opened shares what comes
    /// of it.
    async fn current(&self) -> Result<Client> {
        let asked = Instant::now();
        let mut state = self.state.lock().await;
        if let Some(client) = state.client.as_ref().filter(|client| self.lives(client)) {
            return Ok(client.clone());
        }
        if let Some((_, error)) = state.failed.as_ref().filter(|(at, _)| *at > asked) {
            return Err(error.clone());
        }
        state.client = None;
        match self.open().await {
            Ok(client) => {
                info!(
                    ensemble = self.hosts(), session = %client.session_id(), timeout = ?client.session_timeout(),
                    "a session is open"
                );
                state.client = Some(client.clone());
                state.failed = None;
                Ok(client)
            }
            Err(error) => {
                state.failed = Some((Instant::now(), error.clone()));
                Err(error)
            }
        }
    }

    async fn open(&self) -> Result<Client> {
        const WHAT: &str = "opening of a session";
        let way = &self.ensemble.way;
        let mut connector = way.connector()?.with_session_timeout(self.ensemble.timeout).with_fail_eagerly();
        if let Some(provider) = &self.ensemble.credentials {
            let provided = self.asked("question for credentials", provider.credentials()).await?;
            let credentials = provided.map_err(|error| {
                Error::new(ErrorKind::Unavailable, "there are no credentials for ZooKeeper")
                    .with_source(error)
            })?;
            let said = format!("{}:{}", credentials.user(), credentials.password().expose());
            connector = connector.with_auth("digest", said.as_bytes());
        }
        match self.asked(WHAT, way.connect(connector)).await? {
            Ok(client) => Ok(client),
            Err(error) => {
                let said = self.said(WHAT, &error);
                Err(Error::new(said.kind(), format!("{said}{}", way.trouble().await)))
            }
        }
    }

    /// Removes what was left behind by leases that could not say so at their end.
    pub(crate) async fn tidy(&self, client: &Client) -> Result<()> {
        for left in self.owners.left() {
            match self.remove_left(client, &left).await {
                Err(error) if error.is_temporary() => return Err(error),
                Err(error) => {
                    warn!(path = left.path, error = %error.chain(), "this node stays until the session ends");
                }
                Ok(()) => {}
            }
            self.owners.removed(&left);
        }
        Ok(())
    }

    async fn remove_left(&self, client: &Client, left: &Left) -> Result<()> {
        const WHAT: &str = "removal of what was left behind";
        for _ in 0..TRIES {
            let Some(stat) = self.ask(WHAT, client.check_stat(&left.path)).await? else { return Ok(()) };
            if !left.sessions.contains(&stat.ephemeral_owner) {
                return Ok(());
            }
            let delete = || client.delete(&left.path, Some(stat.version));
            // Somebody here has claimed it since, and what is there may be his.
            let Some(deleted) = self.owners.unless_taken(&left.path, delete) else { return Ok(()) };
            match self.asked(WHAT, deleted).await? {
                Err(zookeeper_client::Error::NoNode) | Ok(()) => return Ok(()),
                Err(zookeeper_client::Error::BadVersion) => {}
                Err(error) => return Err(self.said(WHAT, &error)),
            }
        }
        Err(Error::new(
            ErrorKind::Unavailable,
            format!("{WHAT}: the node {} changes all the time", left.path),
        ))
    }
}

/// Waits until the session is connected, or has ended.
pub(crate) async fn settled(client: &Client, states: &mut StateWatcher) -> bool {
    let mut state = client.state();
    loop {
        match state {
            SessionState::SyncConnected | SessionState::ConnectedReadOnly => return true,
            state if state.is_terminated() => return false,
            _ => state = states.changed().await,
        }
    }
}

/// A source or a lease, for as long as it lives.
///
/// A session that lives on would keep what could not be removed, and whoever uses it next removes that; where nobody is left
/// who does, it ends.
#[derive(Debug)]
pub(crate) struct User(Arc<Session>);

impl User {
    pub(crate) fn new(session: &Arc<Session>) -> Self {
        session.users.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(session))
    }
}

impl Drop for User {
    fn drop(&mut self) {
        if self.0.users.fetch_sub(1, Ordering::SeqCst) == 1 && !self.0.owners.left().is_empty() {
            self.0.end();
        }
    }
}

/// Waits until a session has ended, as its client knows. Does not keep it from ending.
pub(crate) fn ended(client: &Client) -> impl Future<Output = ()> + Send + use<> {
    let (mut states, mut state) = (client.state_watcher(), client.state());
    async move {
        while !state.is_terminated() {
            state = states.changed().await;
        }
    }
}

#[cfg(test)]
#[path = "session_tests.rs"]
mod tests;
