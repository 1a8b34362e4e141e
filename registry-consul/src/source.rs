//! [`ConsulSource`]: follows one service by blocking queries of the health endpoint.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use callsign_core::{HttpAnswer, Instance, InstanceId, Result, ServiceName, Source, Update};
use http::Method;
use serde_json::value::RawValue;
use tokio::time::{Instant, sleep_until};
use tracing::{debug, warn};

use crate::agent::{Agent, Path};
use crate::wire::{Entry, Taking, decode, is_older};

/// How long a query waits for a change. An agent that hangs is found out a moment later.
const WAIT: Duration = Duration::from_secs(10);
/// Consul adds up to a sixteenth of the wait at random; the rest is for the way.
const LATE: Duration = Duration::from_secs(3);
/// Queries that return at once come so often at the most, but for [`BURST`] of them.
const PAUSE: Duration = Duration::from_millis(100);
const BURST: u32 = 2;
/// Of our own time, what is read and compared takes at most one part in so many.
const SHARE: u32 = 5;

/// How the catalog is read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Consistency {
    /// By the leader, which may have lost its office a moment ago.
    #[default]
    Default,
    /// By a leader that asks its peers first.
    Consistent,
    /// By any server, also one that has lost its leader.
    Stale,
}

impl Consistency {
    pub(crate) const ALL: [(&'static str, Self); 3] =
        [("default", Self::Default), ("consistent", Self::Consistent), ("stale", Self::Stale)];
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
    /// Queries that may still be made at once, and when that was so.
    burst: u32,
    next_at: Instant,
}

impl ConsulSource {
    pub(crate) fn new(agent: Agent, service: &ServiceName, scope: Arc<Scope>) -> Self {
        Self {
            agent,
            what: format!("list of {service}"),
            service: service.clone(),
            scope,
            index: None,
            listed: BTreeMap::new(),
            bad: HashMap::new(),
            burst: BURST,
            next_at: Instant::now(),
        }
    }

    async fn ask(&self) -> Result<HttpAnswer> {
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
        };
        let mut within = self.agent.timeout();
        if let Some(index) = self.index {
            path = path.with("index", &index.to_string()).with("wait", &format!("{}s", WAIT.as_secs()));
            within = WAIT + LATE;
        }
        let answer = self.agent.ask(&self.what, Method::GET, path, Bytes::new(), within).await?;
        if self.scope.consistency == Consistency::Stale {
            return self.agent.checked(&self.what, answer);
        }
        self.agent.complete(&self.what, answer)
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

    /// What an answer lists; what cannot be understood is left out and counted.
    fn read(&mut self, answer: &HttpAnswer) -> Result<BTreeMap<InstanceId, Instance>> {
        let mut bad = HashMap::new();
        let entries = match serde_json::from_slice::<Option<Vec<Entry>>>(&answer.body) {
            Ok(entries) => entries.unwrap_or_default(),
            Err(_) => self.one_by_one(answer, &mut bad)?,
        };
        let mut listed = BTreeMap::new();
        let mut marks: HashMap<InstanceId, String> = HashMap::new();
        for entry in &entries {
            let instances = match decode(&self.service, entry, &self.scope.taking) {
                Ok(instances) => instances,
                Err(why) => {
                    bad.insert(format!("{} on {}", entry.service.id, entry.node()), why);
                    continue;
                }
            };
            let mark = entry.service.incarnation().unwrap_or_default();
            for instance in instances {
                // An instance that moved to another node leaves its old entry behind for a while.
                if marks.get(instance.id()).is_some_and(|other| is_older(mark, other)) {
                    continue;
                }
                marks.insert(instance.id().clone(), mark.to_owned());
                listed.insert(instance.id().clone(), instance);
            }
        }
        for (entry, why) in &bad {
            if self.bad.get(entry) != Some(why) {
                warn!(service = %self.service, entry, why, "an entry in Consul cannot be understood and is left out");
            }
        }
        self.bad = bad;
        Ok(listed)
    }

    fn one_by_one(&self, answer: &HttpAnswer, bad: &mut HashMap<String, String>) -> Result<Vec<Entry>> {
        let all: Vec<Box<RawValue>> = self.agent.parsed(&self.what, answer)?;
        let mut entries = Vec::new();
        for (n, one) in all.into_iter().enumerate() {
            match serde_json::from_str(one.get()) {
                Ok(entry) => entries.push(entry),
                Err(error) => drop(bad.insert(format!("number {n}"), error.to_string())),
            }
        }
        Ok(entries)
    }

    /// Takes an answer in; `None` if it says nothing new.
    fn take(&mut self, answer: &HttpAnswer) -> Result<Option<Update>> {
        let index = answer.headers.get("x-consul-index").and_then(|index| index.to_str().ok()?.parse().ok());
        let (before, index) = (self.index, index.unwrap_or(0));
        if before == Some(index) {
            return Ok(None);
        }
        let skipped = self.bad.len();
        let listed = self.read(answer)?;
        self.index = Some(match before {
            // A restarted or restored Consul counts anew, and waiting for the old index could take for ever.
            Some(before) if index < before => {
                debug!(service = %self.service, index, before, "Consul's index went back");
                0
            }
            _ => index.max(1),
        });
        if before.is_some() && listed == self.listed && skipped == self.bad.len() {
            return Ok(None);
        }
        self.listed = listed;
        Ok(Some(Update::Full(self.listed.values().cloned().collect())))
    }
}

#[async_trait]
impl Source for ConsulSource {
    async fn next(&mut self) -> Result<Update> {
        loop {
            sleep_until(self.next_at).await;
            let answer = match self.ask().await {
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
