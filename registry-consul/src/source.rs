//! [`ConsulSource`]: follows one service by blocking queries of the health endpoint.

use std::collections::HashMap;
use std::collections::hash_map::Entry as MapEntry;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use callsign_core::{
    Error, ErrorKind, HttpAnswer, Instance, InstanceId, PendingRequest, Removal, Result, ServiceName, Source,
    Update,
};
use tokio::time::{Instant, sleep_until};
use tracing::{debug, warn};

use crate::agent::{Agent, Path};
use crate::answer::{Answer, Said};
use crate::doubt::Doubt;
use crate::query::{Query, Scope, index_of};
use crate::wire::is_older;

/// Queries that return at once come so often at the most, but for [`BURST`] of them.
const PAUSE: Duration = Duration::from_millis(100);
const BURST: u32 = 2;
/// For each moment that it takes to read and compare an answer, this many pass until the next query.
const SHARE: u32 = 2;

#[derive(Debug)]
pub(crate) struct ConsulSource {
    query: Arc<Query>,
    doubt: Doubt,
    /// What waits for a change: as long as it may be answered it has its connection, whoever knows of the change first.
    waiting: PendingRequest,
    /// Of the last answer; `None` before the first.
    index: Option<u64>,
    /// That from which it went back just now.
    known: Option<u64>,
    /// The last answer, and what it listed.
    answer: Answer,
    listed: HashMap<InstanceId, Listed>,
    /// Entries that cannot be understood, and why, so that each is logged once.
    bad: HashMap<String, String>,
    /// Queries that may still be made at once, and when that was so.
    burst: u32,
    next_at: Instant,
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
            query: Arc::new(Query::new(agent, service, scope)),
            doubt: Doubt::new(check, rng),
            waiting: PendingRequest::default(),
            index: None,
            known: None,
            answer: Answer::default(),
            listed: HashMap::new(),
            bad: HashMap::new(),
            burst: BURST,
            next_at: Instant::now(),
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

    /// What the last answer lists; what cannot be understood is left out and counted.
    fn read(&mut self) -> HashMap<InstanceId, Listed> {
        let (mut all, mut bad) = (HashMap::with_capacity(self.listed.len()), HashMap::new());
        for (n, said) in self.answer.said().enumerate() {
            let instances = match &said.instances {
                Ok(instances) => instances,
                Err(why) => {
                    let name = said.name.as_deref().map_or_else(|| format!("number {n}"), str::to_owned);
                    bad.insert(name, why.clone());
                    continue;
                }
            };
            for instance in instances {
                let mark = said.mark.clone();
                let listed = Listed { instance: Arc::clone(instance), mark, created: said.created };
                match all.entry(instance.id().clone()) {
                    MapEntry::Vacant(entry) => drop(entry.insert(listed)),
                    MapEntry::Occupied(mut entry) => entry.get_mut().meets(listed),
                }
            }
        }
        for (entry, why) in &bad {
            if self.bad.get(entry) != Some(why) {
                warn!(service = %self.query.service, entry, why, "an entry in Consul cannot be understood and is left out");
            }
        }
        self.bad = bad;
        all
    }

    /// Takes an answer in; `None` if it says nothing new.
    fn take(&mut self, answer: &HttpAnswer) -> Result<Option<Update>> {
        let (before, index) = (self.index, index_of(answer));
        if before == Some(index) {
            return Ok(None);
        }
        if before.is_some_and(|before| index < before) {
            // A restarted or restored Consul counts anew, and waiting for the old index could take for ever; or the
            // server that the agent follows is behind, and what it told us is old. The leader knows.
            debug!(service = %self.query.service, index, before, "Consul's index went back");
            self.known = before;
            self.index = Some(0);
            self.waiting = PendingRequest::default();
            return Ok(None);
        }
        let known = self.known.take();
        if let Some(known) = known.filter(|known| index < *known) {
            return Err(self.lost(&format!("its index went from {known} back to {index}")));
        }
        let skipped = self.bad.len();
        let (service, taking) = (&self.query.service, &self.query.scope.taking);
        self.answer
            .follow(answer.body.clone(), |text| Said::of(service, taking, text))
            .map_err(|error| self.query.agent.malformed(&self.query.what, error))?;
        if before.is_none() {
            self.listed.clear();
        }
        let all = self.read();
        self.index = Some(index.max(1));
        let new = all.iter().filter(|(id, now)| self.listed.get(*id).is_none_or(|before| !before.shows(now)));
        let put: Vec<_> = new.map(|(_, now)| Instance::clone(&now.instance)).collect();
        let gone: Vec<_> = self.listed.keys().filter(|id| !all.contains_key(*id)).cloned().collect();
        // Agents may have told a restored Consul so much that its index is above the old one when we hear of it.
        let since = known.or(before).unwrap_or_default();
        let mut kept = all.iter().filter(|(id, _)| self.listed.contains_key(*id)).peekable();
        if !gone.is_empty() && kept.peek().is_some() && kept.all(|(_, now)| now.created > since) {
            return Err(self.lost(&format!("whatever it lists of what it did was made anew after {since}")));
        }
        self.listed = all;
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

    /// What is not there may come back by and by, as after an outage.
    fn lost(&self, how: &str) -> Error {
        let (agent, what) = (self.query.agent.name(), &self.query.what);
        let text = format!("agent {agent}, {what}: Consul was restored or has lost its data: {how}");
        Error::new(ErrorKind::Unavailable, text)
    }

    async fn answer(&mut self) -> Result<HttpAnswer> {
        let Self { query, doubt, answer, waiting, .. } = self;
        let answer = match self.index {
            Some(index) if index > 0 && !doubt.is_overdue() => {
                let (asking, bytes) = (Arc::clone(query), answer.bytes());
                tokio::select! {
                    biased;
                    answer = waiting.send(async move { asking.change(index, bytes).await }) => answer?,
                    answer = doubt.proves(query, index) => answer?,
                }
            }
            _ => doubt.list(query).await?,
        };
        doubt.good();
        if query.agent.shuts_out(&answer) {
            // Or there is nothing: then something else can be seen.
            let services = query.agent.get(&query.what, Path::new(&["catalog", "services"])).await?;
            if query.agent.shuts_out(&services) {
                return Err(query.agent.shut_out(&query.what));
            }
        }
        Ok(answer)
    }
}

/// An instance, and the mark of the entry that it is taken from.
#[derive(Debug)]
struct Listed {
    instance: Arc<Instance>,
    mark: Option<Arc<str>>,
    /// The index at which the catalog got it.
    created: u64,
}

impl Listed {
    /// Takes the place of this one unless it is older: an instance that moved to another node leaves its old entry
    /// behind for a while.
    fn meets(&mut self, other: Self) {
        if other.mark.as_deref().zip(self.mark.as_deref()).is_some_and(|(other, mark)| is_older(other, mark))
        {
            return;
        }
        self.instance = other.instance;
        self.created = other.created;
        self.mark = other.mark.or(self.mark.take());
    }

    fn shows(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.instance, &other.instance) || self.instance == other.instance
    }
}

#[async_trait]
impl Source for ConsulSource {
    async fn next(&mut self) -> Result<Update> {
        loop {
            sleep_until(self.next_at).await;
            let answer = match self.answer().await {
                Ok(answer) => answer,
                Err(error) => {
                    self.doubt.failed();
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
        self.known = None;
        self.waiting = PendingRequest::default();
    }

    fn skipped(&self) -> usize {
        self.bad.len()
    }
}
