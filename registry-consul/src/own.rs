//! [`Own`]: our entry, as its agent and the catalog have it.

use bytes::Bytes;
use callsign_core::{ErrorKind, Kept, Result};
use http::Method;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::agent::{Agent, Path, Turn};
use crate::error::refusal;
use crate::wire::{Check, Entry, Health, Service, beat_id, beats, is_older, worst};

#[derive(Debug)]
pub(crate) struct Own {
    pub(crate) agent: Agent,
    pub(crate) service: String,
    pub(crate) id: String,
    pub(crate) what: String,
    /// Whose entry it is; from the first claim on.
    pub(crate) mark: Option<String>,
}

/// What the agent has under the id.
pub(crate) struct Found {
    pub(crate) service: Service,
    pub(crate) checks: Vec<Check>,
}

impl Found {
    /// Whether its owner lives, as far as can be known.
    fn lives(&self) -> bool {
        match self.service.incarnation() {
            Some(_) => beats(&self.service, &self.checks),
            None => worst(&self.checks) != Health::Critical,
        }
    }
}

/// As the agent's health endpoint answers.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Aggregated {
    service: Service,
    #[serde(default)]
    checks: Option<Vec<Check>>,
}

impl Own {
    pub(crate) fn mark(&self) -> &str {
        self.mark.as_deref().unwrap_or_default()
    }

    pub(crate) fn check_id(&self) -> String {
        beat_id(self.mark())
    }

    /// What the agent has under the id.
    pub(crate) async fn found(&self) -> Result<Option<Found>> {
        let path = Path::new(&["agent", "health", "service", "id", &self.id]).with("format", "json");
        let answer = self.agent.ask(&self.what, Method::GET, path, Bytes::new(), Turn::Now).await?;
        match answer.status.as_u16() {
            404 => Ok(None),
            // The status of the answer is that of the service.
            200 | 429 | 503 => {
                let Ok(found) = self.agent.parsed::<Aggregated>(&self.what, &answer) else {
                    return Err(refusal(&self.what, self.agent.name(), &answer));
                };
                Ok(Some(Found { service: found.service, checks: found.checks.unwrap_or_default() }))
            }
            _ => Err(refusal(&self.what, self.agent.name(), &answer)),
        }
    }

    /// What the catalog has under the id, of all nodes; `None` if we may not read it.
    async fn in_catalog<T: DeserializeOwned>(&self, endpoint: &str, field: &str) -> Result<Option<Vec<T>>> {
        // In Consul's language of filters a string has the escapes of Go's.
        let filter = format!("{field} == {}", serde_json::Value::from(self.id.as_str()));
        let path = Path::new(&["health", endpoint, &self.service]).with("filter", &filter);
        let answer = self.agent.get(&self.what, path).await;
        let answer = answer.and_then(|answer| self.agent.complete(&self.what, answer, false));
        match answer {
            Err(error) if error.kind() == ErrorKind::PermissionDenied => Ok(None),
            answer => {
                let entries: Option<Vec<T>> = self.agent.parsed(&self.what, &answer?)?;
                Ok(Some(entries.unwrap_or_default()))
            }
        }
    }

    /// The checks alone, which say whose the entries are: for a service of a thousand instances a tenth of the work.
    pub(crate) async fn checks_in_catalog(&self) -> Result<Option<Vec<Check>>> {
        self.in_catalog("checks", "ServiceID").await
    }

    /// Whether a later registration has the id on another node, and that node is not lost.
    pub(crate) async fn has_successor(&self, checks: &[Check]) -> Result<bool> {
        let is_later = |mark: &str| is_older(self.mark(), mark);
        if !checks.iter().filter_map(Check::mark).any(is_later) {
            return Ok(false);
        }
        let entries = self.in_catalog::<Entry>("service", "Service.ID").await?.unwrap_or_default();
        Ok(entries.iter().any(|entry| entry.lives() && entry.service.incarnation().is_some_and(is_later)))
    }

    pub(crate) fn is_our_beat(&self, check: &Check) -> bool {
        self.mark.is_some() && check.mark() == self.mark.as_deref()
    }

    pub(crate) fn is_ours(&self, service: &Service) -> bool {
        self.mark.is_some() && service.incarnation() == self.mark.as_deref()
    }

    /// What became of our entry, by what the agent has.
    pub(crate) fn judge(&self, found: Option<&Found>) -> Kept {
        match found {
            None => Kept::Lost,
            // Whose time is over owns nothing.
            Some(found) if !found.lives() => Kept::Lost,
            Some(found) if self.is_ours(&found.service) => Kept::Kept,
            // A write of an earlier registration that came late, as that of one which ended meanwhile: whoever is the
            // last has the id.
            Some(found) if found.service.incarnation().is_some_and(|mark| is_older(mark, self.mark())) => {
                Kept::Lost
            }
            Some(_) => Kept::Superseded,
        }
    }
}
