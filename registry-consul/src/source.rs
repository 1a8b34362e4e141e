//! [`ConsulSource`]: follows one service by blocking queries of the health endpoint.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use callsign_core::{HttpAnswer, Instance, InstanceId, Removal, Result, ServiceName, Source, Update};
use serde_json::value::RawValue;
use tokio::time::{Instant, sleep_until};
use tracing::{debug, warn};

use crate::agent::{Agent, Path};
use crate::doubt::Doubt;
use crate::query::{Query, Scope, index_of};
use crate::wire::{Entry, decode, is_older};

/// Queries that return at once come so often at the most, but for [`BURST`] of them.
const PAUSE: Duration = Duration::from_millis(100);
const BURST: u32 = 2;
/// For each moment that it takes to read and compare an answer, this many pass until the next query.
const SHARE: u32 = 2;

#[derive(Debug)]
pub(crate) struct ConsulSource {
    query: Query,
    doubt: Doubt,
    /// Of the last answer; `None` before the first.
    index: Option<u64>,
    /// What the last answer listed.
    listed: BTreeMap<InstanceId, Instance>,
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
            query: Query::new(agent, service, scope),
            doubt: Doubt::new(check, rng),
            index: None,
            listed: BTreeMap::new(),
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

    /// What an answer lists; what cannot be understood is left out and counted. One entry after the other: ten thousand
    /// of them take their room.
    fn read(&mut self, answer: &HttpAnswer) -> Result<Listed> {
        let entries: Option<Vec<&RawValue>> = self.query.agent.parsed(&self.query.what, answer)?;
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
            let instances = match decode(&self.query.service, &entry, &self.query.scope.taking) {
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
                warn!(service = %self.query.service, entry, why, "an entry in Consul cannot be understood and is left out");
            }
        }
        self.bad = bad;
        Ok(read)
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
            self.index = Some(0);
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
        let Self { query, doubt, .. } = self;
        let answer = match self.index {
            Some(index) if index > 0 && !doubt.is_overdue() => tokio::select! {
                biased;
                answer = query.change(index) => answer?,
                answer = doubt.proves(query, index) => answer?,
            },
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
