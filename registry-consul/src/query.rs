//! [`Query`]: what is asked about one service, by whoever follows it.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use callsign_core::{ErrorKind, HttpAnswer, PendingRequest, Result, ServiceName};
use http::Method;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep};

use crate::agent::{Agent, Path, Turn};
use crate::wire::Taking;

/// How long a query waits for a change. An agent that hangs is found out a moment later.
const WAIT: Duration = Duration::from_secs(10);
/// Consul adds up to a sixteenth of the wait at random; the rest is for the way.
const LATE: Duration = Duration::from_secs(3);
/// A list that takes longer may be waiting for a leader.
const HELD: Duration = Duration::from_millis(300);
/// A tag that nothing has: what is asked with it costs servers little, and has the index of all the service.
const NOTHING: &str = "callsign-nothing";

/// How the catalog is read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Consistency {
    /// By the leader, which may have lost its office a moment ago.
    #[default]
    Default,
    /// By a leader that asks its peers first.
    Consistent,
    /// By any server, also one that has lost its leader, unless that is some ten seconds ago.
    Stale,
    /// By what the agent itself has, which it keeps up with one query for all of its clients: the least work for
    /// Consul's servers. As old as with [`Stale`](Self::Stale) at the most; that a right was taken away can show late.
    Cached,
}

impl Consistency {
    pub(crate) const ALL: [(&'static str, Self); 4] = [
        ("default", Self::Default),
        ("consistent", Self::Consistent),
        ("stale", Self::Stale),
        ("cached", Self::Cached),
    ];

    /// Whether what is old is enough.
    pub(crate) fn suffices(self) -> bool {
        matches!(self, Self::Stale | Self::Cached)
    }
}

/// What of a service is watched.
#[derive(Debug, Clone, Default)]
pub(crate) struct Scope {
    pub(crate) taking: Taking,
    pub(crate) consistency: Consistency,
    pub(crate) tags: Vec<String>,
    pub(crate) filter: Option<String>,
    pub(crate) near: Option<String>,
}

#[derive(Debug)]
pub(crate) struct Query {
    pub(crate) agent: Agent,
    pub(crate) service: ServiceName,
    pub(crate) scope: Arc<Scope>,
    pub(crate) what: String,
    /// What was looked for beside a list that was answered first: it is not dropped, or it would take its connection with it.
    beside: Mutex<PendingRequest>,
}

impl Query {
    pub(crate) fn new(agent: Agent, service: &ServiceName, scope: Arc<Scope>) -> Self {
        let what = format!("list of {service}");
        Self { agent, what, service: service.clone(), scope, beside: Mutex::default() }
    }

    /// Asks servers what there is now; until `until` again and again while the agent answers that they cannot tell.
    ///
    /// While there is no leader they wait for one, and look for it at ever longer intervals: whoever asks again once
    /// there is one is answered seconds before.
    pub(crate) async fn list(&self, until: Option<Instant>) -> Result<HttpAnswer> {
        let ask = || self.ask(self.path(), Turn::List);
        let (mut list, mut leaderless) = (pin!(ask()), false);
        loop {
            tokio::select! {
                biased;
                answer = &mut list => match self.judged(answer?) {
                    Err(error) if error.kind() == ErrorKind::Unavailable && until > Some(Instant::now()) => {
                        sleep(HELD.mul_f64(fastrand::f64())).await;
                        list.set(ask());
                        continue;
                    }
                    judged => return judged,
                },
                () = sleep(HELD) => {}
            }
            // Nobody else lists.
            let mut beside = self.beside.lock().await;
            let looked = tokio::select! {
                biased;
                answer = &mut list => return self.judged(answer?),
                looked = beside.send(self.look()) => looked,
            };
            // No answer says nothing, and a list may just be long.
            let Ok(looked) = looked else { continue };
            let is_led = self.is_led(&looked).is_ok();
            if is_led && leaderless {
                list.set(ask());
            }
            leaderless = !is_led;
        }
    }

    /// Asks for what is another than at an index, or as it is after a while. The answer will have some `bytes`.
    pub(crate) async fn change(&self, index: u64, bytes: usize) -> Result<HttpAnswer> {
        let path =
            self.path().with("index", &index.to_string()).with("wait", &format!("{}s", WAIT.as_secs()));
        self.judged(self.ask(path, Turn::Wait(WAIT + LATE, bytes)).await?)
    }

    /// Asks the agent's server, whichever it is, for no more than the index of the service.
    pub(crate) fn look(&self) -> impl Future<Output = Result<HttpAnswer>> + Send + use<> {
        let path = self.bare().with("tag", NOTHING).with("stale", "true");
        let (agent, what) = (self.agent.clone(), self.what.clone());
        async move { agent.get(&what, path).await }
    }

    /// Whether what [`look`](Self::look) found is of a server that has a leader, as far as that is asked for.
    pub(crate) fn is_led(&self, looked: &HttpAnswer) -> Result<()> {
        self.agent.is_led(&self.what, looked, self.scope.consistency.suffices())
    }

    fn bare(&self) -> Path {
        Path::new(&["health", "service", self.service.as_str()])
    }

    fn path(&self) -> Path {
        let mut path = self.bare();
        for tag in &self.scope.tags {
            path = path.with("tag", tag);
        }
        if let Some(filter) = &self.scope.filter {
            path = path.with("filter", filter);
        }
        if let Some(near) = &self.scope.near {
            path = path.with("near", near);
        }
        match self.scope.consistency {
            Consistency::Default => path,
            Consistency::Consistent => path.with("consistent", "true"),
            Consistency::Stale => path.with("stale", "true"),
            Consistency::Cached => path.with("cached", "true"),
        }
    }

    async fn ask(&self, path: Path, turn: Turn) -> Result<HttpAnswer> {
        self.agent.ask(&self.what, Method::GET, path, Bytes::new(), turn).await
    }

    fn judged(&self, answer: HttpAnswer) -> Result<HttpAnswer> {
        self.agent.complete(&self.what, answer, self.scope.consistency.suffices())
    }
}

/// Of which state of the catalog an answer is.
pub(crate) fn index_of(answer: &HttpAnswer) -> u64 {
    let index = answer.headers.get("x-consul-index").and_then(|index| index.to_str().ok()?.parse().ok());
    index.unwrap_or(0)
}
