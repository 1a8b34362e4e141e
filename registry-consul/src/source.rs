//! [`ConsulSource`]: follows one service by blocking queries of the health endpoint.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use callsign_core::{HttpAnswer, Instance, InstanceId, Removal, Result, ServiceName, Source, Update};
use http::Method;
use serde_json::value::RawValue;
use tokio::time::{Instant, sleep_until};
use tracing::{debug, warn};

use crate::agent::{Agent, Path, is_streamed};
use crate::wire::{Entry, Taking, decode, is_older};

/// How long a query waits for a change. An agent that hangs is found out a moment later.
const WAIT: Duration = Duration::from_secs(10);
/// The same where the agent has the answer itself, so that asking costs nobody else anything: its servers may lose
/// their leader, or each other, without a word.
const WAIT_STREAMED: Duration = Duration::from_secs(5);
/// Consul adds up to a sixteenth of the wait at random; the rest is for the way.
const LATE: Duration = Duration::from_secs(3);
/// Queries that return at once come so often at the most, but for [`BURST`] of them.
const PAUSE: Duration = Duration::from_millis(100);
const BURST: u32 = 2;
/// The most that passes until a list is read without waiting, but for the spread by a fifth and the wait before.
const CHECK: Duration = Duration::from_secs(20);
/// For each moment that it takes to read and compare an answer, this many pass until the next query.
const SHARE: u32 = 2;

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
pub(crate) struct ConsulSource {
    agent: Agent,
    service: ServiceName,
    scope: Arc<Scope>,
    what: String,
    /// Of the last answer; `None` before the first.
    index: Option<u64>,
    /// What the last answer listed.
    listed: BTreeMap<InstanceId, Instance>,
    /// Entries that cannot be understood, and why, so that each is logged once.
    bad: HashMap<String, String>,
    /// Whether the last query that waited was answered by the agent itself; so it is where it can.
    streamed: bool,
    /// Queries that may still be made at once, and when that was so.
    burst: u32,
    next_at: Instant,
    /// How often to ask without waiting for a change, and when next: of what waits, Consul asks for rights only as it
    /// begins.
    every: Duration,
    check_at: Instant,
    rng: fastrand::Rng,
}

impl ConsulSource {
    /// `check` is how often to ask whether we may still read.
    pub(crate) fn new(
        agent: Agent,
        service: &ServiceName,
        scope: Arc<Scope>,
        check: Duration,
        rng: fastrand::Rng,
    ) -> Self {
        Self {
            agent,
            what: format!("list of {service}"),
            service: service.clone(),
            scope,
            index: None,
            listed: BTreeMap::new(),
            bad: HashMap::new(),
            streamed: true,
            burst: BURST,
            next_at: Instant::now(),
            every: check.min(CHECK),
            check_at: Instant::now(),
            rng,
        }
    }

    /// Asks at once, or for what is another than at an index.
    async fn ask(&self, index: Option<u64>) -> Result<HttpAnswer> {
        let mut path = Path::new(&["health", "service", self.service.as_str()]);
        for tag in &self.scope.tags {
            path = path.with("tag", tag);
        }
        if let Some(filter) = &self.scope.filter {
            path = path.with("filter", filter);
        }
        if let Some(near) = &self.scope.near {
            path = path.with("near", near);
        }
        path = match self.scope.consistency {
            Consistency::Default => path,
            Consistency::Consistent => path.with("consistent", "true"),
            Consistency::Stale => path.with("stale", "true"),
            Consistency::Cached => path.with("cached", "true"),
        };
        let mut within = None;
        if let Some(index) = index {
            let wait = if self.streamed { WAIT_STREAMED } else { WAIT };
            path = path.with("index", &index.to_string()).with("wait", &format!("{}s", wait.as_secs()));
            within = Some(wait + LATE);
        }
        let answer = self.agent.ask(&self.what, Method::GET, path, Bytes::new(), within).await?;
        match self.scope.consistency {
            Consistency::Stale | Consistency::Cached => self.agent.recent(&self.what, answer),
            _ => self.agent.complete(&self.what, answer),
        }
    }

    /// So that a service which changes all the time does not keep us and Consul busy: what changed meanwhile is in the
    /// next answer.
    fn pace(&mut self, began: Instant) {
        let now = Instant::now();
        let pause = PAUSE.max((now - began) * SHARE);
        if now >= self.next_at + pause {
            self.burst = BURST;
        }
        if self.burst > 0 {
            self.burst -= 1;
            self.next_at = now;
        } else {
            self.next_at = now + pause;
        }
    }

    /// What an answer lists; what cannot be understood is left out and counted. One entry after the other: ten thousand
    /// of them take their room.
    fn read(&mut self, answer: &HttpAnswer) -> Result<Listed> {
        let entries: Option<Vec<&RawValue>> = self.agent.parsed(&self.what, answer)?;
        let (mut read, mut bad) = (Listed::default(), HashMap::new());
        let mut marks: HashMap<InstanceId, String> = HashMap::new();
        for (n, entry) in entries.unwrap_or_default().into_iter().enumerate() {
            let entry: Entry = match serde_json::from_str(entry.get()) {
                Ok(entry) => entry,
                Err(error) => {
                    bad.insert(format!("number {n}"), error.to_string());
                    continue;
                }
            };
            let instances = match decode(&self.service, &entry, &self.scope.taking) {
                Ok(instances) => instances,
                Err(why) => {
                    bad.insert(format!("{} on {}", entry.service.id, entry.node()), why);
                    continue;
                }
            };
            for instance in instances {
                let id = instance.id().clone();
                if let Some(mark) = entry.service.incarnation() {
                    // An instance that moved to another node leaves its old entry behind for a while.
                    if marks.get(&id).is_some_and(|other| is_older(mark, other)) {
                        continue;
                    }
                    marks.insert(id.clone(), mark.to_owned());
                }
                if self.listed.get(&id) != Some(&instance) {
                    read.changed.insert(id.clone(), instance);
                } else {
                    read.changed.remove(&id);
                }
                read.all.insert(id);
            }
        }
        for (entry, why) in &bad {
            if self.bad.get(entry) != Some(why) {
                warn!(service = %self.service, entry, why, "an entry in Consul cannot be understood and is left out");
            }
        }
        self.bad = bad;
        Ok(read)
    }

    /// Takes an answer in; `None` if it says nothing new.
    fn take(&mut self, answer: &HttpAnswer) -> Result<Option<Update>> {
        let index = answer.headers.get("x-consul-index").and_then(|index| index.to_str().ok()?.parse().ok());
        let (before, index) = (self.index, index.unwrap_or(0));
        if before == Some(index) {
            return Ok(None);
        }
        if before.is_some_and(|before| index < before) {
            // Of a Consul that was restored, or of a server that has been left behind: which of them, a list tells.
            debug!(service = %self.service, index, before, "Consul's index went back");
            self.relist();
            return Ok(None);
        }
        let skipped = self.bad.len();
        if before.is_none() {
            self.listed.clear();
        }
        let Listed { all, changed } = self.read(answer)?;
        self.index = Some(index.max(1));
        let gone: Vec<_> = self.listed.keys().filter(|id| !all.contains(*id)).cloned().collect();
        gone.iter().for_each(|id| drop(self.listed.remove(id)));
        let put: Vec<_> = changed.values().cloned().collect();
        self.listed.extend(changed);
        if before.is_none() {
            return Ok(Some(Update::Full(put)));
        }
        if put.is_empty() && gone.is_empty() && skipped == self.bad.len() {
            return Ok(None);
        }
        // That an entry is critical or not there any more is nobody's word that it leaves.
        let gone = gone.into_iter().map(|id| (id, Removal::Expired)).collect();
        Ok(Some(Update::Delta { put, gone }))
    }

    async fn answer(&mut self) -> Result<HttpAnswer> {
        let checks = Instant::now() >= self.check_at;
        let index = if checks { None } else { self.index };
        let answer = self.ask(index).await?;
        if index.is_some() {
            self.streamed = is_streamed(&answer);
        }
        if is_streamed(&answer) {
            let suffices = matches!(self.scope.consistency, Consistency::Stale | Consistency::Cached);
            self.agent.vouch(&self.what, suffices).await?;
        }
        if checks {
            self.check_at = Instant::now() + self.every.mul_f64(0.8 + 0.4 * self.rng.f64());
        }
        if self.agent.shuts_out(&answer) {
            // Or there is nothing: then something else can be seen.
            let services = self.agent.get(&self.what, Path::new(&["catalog", "services"])).await?;
            if self.agent.shuts_out(&services) {
                return Err(self.agent.shut_out(&self.what));
            }
        }
        Ok(answer)
    }
}

/// What an answer lists.
#[derive(Debug, Default)]
struct Listed {
    all: HashSet<InstanceId>,
    /// What is new, or other than before.
    changed: BTreeMap<InstanceId, Instance>,
}

#[async_trait]
impl Source for ConsulSource {
    async fn next(&mut self) -> Result<Update> {
        loop {
            sleep_until(self.next_at).await;
            let answer = match self.answer().await {
                Ok(answer) => answer,
                Err(error) => {
                    self.relist();
                    return Err(error);
                }
            };
            let began = Instant::now();
            let taken = self.take(&answer);
            if taken.is_err() {
                self.relist();
            }
            self.pace(began);
            if let Some(update) = taken? {
                return Ok(update);
            }
        }
    }

    fn relist(&mut self) {
        self.index = None;
    }

    fn skipped(&self) -> usize {
        self.bad.len()
    }
}
