//! [`Servers`]: what the servers of one Eureka are asked, which of them, and as whom.
//!
//! One of them is asked for as long as it answers; one that failed is asked last for a while.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use callsign_core::{CredentialProvider, Error, ErrorKind, HttpAnswer, HttpClient, HttpTurn, Result};
use http::header::{ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderValue, Method, Request};
use tokio::time::{Instant, timeout};
use tracing::debug;

use crate::ask::{Answered, Ask, inflated};
use crate::error::refusal;

/// How long one that failed is asked after all others.
const QUARANTINE: Duration = Duration::from_secs(30);
/// So many are tried for one request.
const TRIES: usize = 3;
/// Whoever gives up waiting for an answer after this long suspects the server, too.
const SUSPECT: Duration = Duration::from_secs(1);
/// The least that each of several gets of the time there is.
const LEAST: Duration = Duration::from_secs(1);
/// For so long it is known that lists take their time.
const SLOW: Duration = Duration::from_secs(300);

/// Which server is asked first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Order {
    /// The first that is given, as long as it answers.
    #[default]
    Given,
    /// Any, so that many clients spread over all of them.
    Random,
}

impl Order {
    pub(crate) const ALL: [(&'static str, Self); 2] = [("given", Self::Given), ("random", Self::Random)];
}

/// One server.
pub(crate) struct Server {
    pub(crate) http: HttpClient,
    pub(crate) name: String,
}

/// All servers of one Eureka.
#[derive(Clone)]
pub(crate) struct Servers(Arc<Inner>);

struct Inner {
    /// In order of preference.
    all: Vec<(Server, HttpClient)>,
    state: Mutex<Vec<State>>,
    /// What stands before `/apps`, with no slash at its end.
    base: String,
    credentials: Option<Arc<dyn CredentialProvider>>,
    timeout: Duration,
}

/// What is known of a server.
#[derive(Debug, Clone, Copy, Default)]
struct State {
    failed_at: Option<Instant>,
    /// It showed no list, and may show none for a while after its start; all else is well.
    refused_at: Option<Instant>,
    /// It has applications below the path.
    proven: bool,
    /// A list took longer than what each of several servers gets, with this one or another that has the same.
    slow_at: Option<Instant>,
}

impl fmt::Debug for Servers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.all.iter().map(|(server, _)| &server.name)).finish()
    }
}

impl Servers {
    pub(crate) fn new(
        all: Vec<Server>,
        base: &str,
        credentials: Option<Arc<dyn CredentialProvider>>,
        timeout: Duration,
    ) -> Self {
        let state = Mutex::new(vec![State::default(); all.len()]);
        let all = all.into_iter().map(|server| {
            let lists = server.http.apart();
            (server, lists)
        });
        let base = base.trim_end_matches('/').to_owned();
        Self(Arc::new(Inner { all: all.collect(), state, base, credentials, timeout }))
    }

    pub(crate) fn name(&self, server: usize) -> &str {
        self.0.all.get(server).map_or("", |(server, _)| &server.name)
    }

    fn state(&self) -> MutexGuard<'_, Vec<State>> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, server: usize, change: impl FnOnce(&mut State)) {
        if let Some(state) = self.state().get_mut(server) {
            change(state);
        }
    }

    fn known(&self, server: usize) -> State {
        self.state().get(server).copied().unwrap_or_default()
    }

    /// In the order in which they are to be asked now.
    fn order(&self, ask: &Ask) -> Vec<usize> {
        let (state, now) = (self.state(), Instant::now());
        let failed = |server: &usize| {
            let state = state.get(*server).copied().unwrap_or_default();
            let failed_at = state.failed_at.max(state.refused_at.filter(|_| ask.list));
            failed_at.filter(|at| now.saturating_duration_since(*at) < QUARANTINE)
        };
        let mut order: Vec<_> = (0..self.0.all.len()).collect();
        // Stable: those that have not failed stay in order, those that have follow, the first to fail first.
        order.sort_by_key(failed);
        order.truncate(TRIES);
        order
    }

    /// Asks, and returns the answer whatever its status, by the first server that is not out of order itself.
    ///
    /// They share the time there is, as one that hangs is to cost little. A list has all of it to come to its end with each
    /// of them; and to begin with the last, or where lists were seen to take so long.
    pub(crate) async fn ask(&self, what: &str, ask: &Ask) -> Result<Answered> {
        let authorization = self.authorization().await?;
        let order = self.order(ask);
        let tries = u32::try_from(order.len()).unwrap_or(1).max(1);
        let each = (self.0.timeout / tries).max(LEAST.min(self.0.timeout));
        // Waiting for others that ask takes none of a server's time, and is no failure of its.
        let mut patience = self.0.timeout;
        let mut last = None;
        let mut refused = None;
        for (server, left) in order.into_iter().zip((0..tries).rev()) {
            let waits_since = Instant::now();
            let turn = timeout(patience, self.client(server, ask)?.turn()).await;
            patience = patience.saturating_sub(waits_since.elapsed());
            let Ok(turn) = turn else { break };
            // Whoever had the turn before has found out.
            if left > 0 && self.known(server).failed_at.is_some_and(|at| at > waits_since) {
                continue;
            }
            let asked = Instant::now();
            let slow = self.known(server).slow_at.is_some_and(|at| at.elapsed() < SLOW);
            let head = if ask.list && (left == 0 || slow) { self.0.timeout } else { each };
            let times = (head, if ask.list { self.0.timeout } else { each });
            let answer = self.ask_one(server, turn, what, ask, authorization.as_ref(), times).await;
            let failed = answer.as_ref().map_or(true, |answer| answer.status.as_u16() >= 500);
            let answered = answer.map(|answer| Answered { answer, by: server, asked });
            if failed {
                self.note(server, |state| state.failed_at = Some(Instant::now()));
                debug!(server = self.name(server), what, "a server of Eureka failed");
                last = Some(answered);
                continue;
            }
            self.note(server, |state| state.failed_at = None);
            if ask.whole && answered.as_ref().is_ok_and(|answered| answered.answer.status.as_u16() == 403) {
                // Another may show it. If none does, that is what whoever may not read it is to know.
                self.note(server, |state| state.refused_at = Some(Instant::now()));
                refused = Some(answered);
                continue;
            }
            if ask.list && asked.elapsed() > each {
                self.state().iter_mut().for_each(|state| state.slow_at = Some(Instant::now()));
            }
            return answered;
        }
        refused.or(last).unwrap_or_else(|| {
            let text =
                format!("the {what} waited too long for others that Eureka was asked at the same time");
            Err(Error::new(ErrorKind::Timeout, text))
        })
    }

    fn client(&self, server: usize, ask: &Ask) -> Result<&HttpClient> {
        let known = self.0.all.get(server).ok_or_else(|| Error::invalid("no such server of Eureka"))?;
        Ok(if ask.list { &known.1 } else { &known.0.http })
    }

    async fn ask_one(
        &self,
        server: usize,
        turn: HttpTurn,
        what: &str,
        ask: &Ask,
        authorization: Option<&HeaderValue>,
        (head, within): (Duration, Duration),
    ) -> Result<HttpAnswer> {
        let http = self.client(server, ask)?;
        let mut request = Request::builder()
            .method(&ask.method)
            .uri(format!("{}{}", self.0.base, ask.path))
            .header(ACCEPT, "application/json");
        if ask.list {
            request = request.header(ACCEPT_ENCODING, "gzip");
        }
        if !ask.body.is_empty() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        if let Some(authorization) = authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        let request = request
            .body(ask.body.clone())
            .map_err(|error| Error::invalid(format!("the path of the {what}")).with_source(error))?;
        let suspicion = Suspicion { servers: self, server, since: Instant::now(), done: false };
        let answer = http.send_in_turn(turn, what, request, head, within).await;
        suspicion.allay();
        answer
            .and_then(|answer| inflated(answer).map_err(|why| self.malformed(what, server, why)))
            .map_err(|error| error.context("Eureka's server"))
    }

    async fn authorization(&self) -> Result<Option<HeaderValue>> {
        let Some(provider) = &self.0.credentials else { return Ok(None) };
        let within = self.0.timeout;
        let known = timeout(within, provider.credentials()).await.unwrap_or_else(|_| {
            Err(Error::new(ErrorKind::Timeout, format!("there are no credentials within {within:.1?}")))
        });
        let known = known.map_err(|error| error.context("Eureka's user"))?;
        let pair = BASE64_STANDARD.encode(format!("{}:{}", known.user(), known.password().expose()));
        let mut value = HeaderValue::from_str(&format!("Basic {pair}"))
            .map_err(|_| Error::invalid("user and password cannot be sent in a header"))?;
        value.set_sensitive(true);
        Ok(Some(value))
    }

    /// The answer, if it is a success.
    pub(crate) fn checked(&self, what: &str, answered: Answered) -> Result<Answered> {
        if answered.answer.status.is_success() {
            return Ok(answered);
        }
        Err(refusal(what, self.name(answered.by), &answered.answer))
    }

    /// An answer that says what was asked for, or by 404 that it is not there. That the server has no applications at all
    /// is an error: that it has is looked up once, and each time where what is not there `was` there.
    pub(crate) async fn found(&self, what: &str, ask: &Ask, was: bool) -> Result<Answered> {
        let answered = self.ask(what, ask).await?;
        if answered.is_absent() {
            let proven = self.known(answered.by).proven;
            // What stands before a server may have lost it meanwhile.
            if was || !proven {
                self.prove(what).await?;
            }
            return Ok(answered);
        }
        self.proven(what, answered)
    }

    fn proven(&self, what: &str, answered: Answered) -> Result<Answered> {
        let answered = self.checked(what, answered)?;
        self.note(answered.by, |state| state.proven = true);
        Ok(answered)
    }

    /// Whether there are applications below the path.
    pub(crate) async fn prove(&self, what: &str) -> Result<()> {
        let answered = self.ask(what, &Ask::new(Method::HEAD, &["apps"]).list()).await?;
        if answered.answer.status.is_success() {
            return self.proven(what, answered).map(drop);
        }
        if !answered.is_absent() {
            // The same with a body, which says why.
            let answered = self.ask(what, &Ask::get(&["apps", "delta"]).list()).await?;
            return self.proven(what, answered).map(drop);
        }
        self.note(answered.by, |state| state.proven = false);
        let text = format!(
            "server {}, {what}: 404: there is no Eureka below the path {:?} of the URL: it is /eureka in most places, and \
             /eureka/v2 with Netflix' own server",
            self.name(answered.by),
            self.0.base
        );
        Err(Error::new(ErrorKind::NotFound, text))
    }

    pub(crate) fn malformed(&self, what: &str, by: usize, why: impl fmt::Display) -> Error {
        let text = format!("server {}, {what}: this is no answer of Eureka: {why}", self.name(by));
        Error::new(ErrorKind::Malformed, text)
    }
}

/// Whoever drops a request that has waited for long takes the server for out of order: its next request goes elsewhere.
struct Suspicion<'a> {
    servers: &'a Servers,
    server: usize,
    since: Instant,
    done: bool,
}

impl Suspicion<'_> {
    fn allay(mut self) {
        self.done = true;
    }
}

impl Drop for Suspicion<'_> {
    fn drop(&mut self) {
        if !self.done && self.since.elapsed() > SUSPECT {
            self.servers.note(self.server, |state| state.failed_at = Some(Instant::now()));
        }
    }
}
