//! [`ConsulLease`]: one service of an agent, alive for as long as its TTL check is passed.
//!
//! Consul has no compare-and-set for services, so that every change reads, compares and writes. The mark among the
//! metadata says whose an entry is. The check is called by the mark too, so that nobody keeps another's entry alive.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use callsign_core::{Claim, Error, ErrorKind, Instance, Kept, Lease, Loss, Result, State, Terms};
use http::Method;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep};
use tracing::{debug, warn};

use crate::agent::{Agent, Path, Turn};
use crate::check::{Check, Definition, definitions};
use crate::error::{SHOWN, is_unknown, refusal};
use crate::wire::{
    AGAIN, Check as Checked, Entry, Format, Health, Registration, Service, beat_id, beats, encode, is_older,
    new_incarnation, service_id, worst,
};

/// When to look whether the catalog has what the agent was told: agents tell it a moment later.
const LOOKS: [Duration; 7] = [
    Duration::from_millis(5),
    Duration::from_millis(20),
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(300),
    Duration::from_millis(500),
    Duration::from_millis(800),
];

/// So many more looks, one a second, where the first ones were in vain before: less than a claim may take.
const PATIENCE: usize = 2;

#[derive(Debug)]
pub(crate) struct ConsulLease {
    agent: Agent,
    format: Format,
    check: Check,
    ttl: Duration,
    service: String,
    id: String,
    what: String,
    /// Whose entry it is; from the first claim on.
    mark: Option<String>,
    /// Whether the check warns, so that nobody calls who leaves.
    warns: bool,
    /// When Consul heard of us last.
    heard: Option<Instant>,
    /// A write was broken off, and may still come to be.
    unsure: bool,
    /// How often the entry had to be written although the agent had it so already.
    again: u32,
    /// The agent says that it cannot reach the instance, which was logged.
    unreached: bool,
}

/// What the agent has under the id.
struct Found {
    service: Service,
    checks: Vec<Checked>,
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

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Told<'a> {
    #[serde(flatten)]
    registration: &'a Registration,
    checks: Vec<Definition>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Beat<'a> {
    status: &'a str,
    output: &'a str,
}

/// As the agent's health endpoint answers.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Aggregated {
    service: Service,
    #[serde(default)]
    checks: Option<Vec<Checked>>,
}

impl ConsulLease {
    pub(crate) fn new(
        agent: Agent,
        format: Format,
        check: Check,
        instance: &Instance,
        ttl: Duration,
    ) -> Self {
        let id = service_id(instance.service(), instance.id());
        Self {
            agent,
            format,
            check,
            ttl,
            service: instance.service().to_string(),
            what: format!("registration of {}/{}", instance.service(), instance.id()),
            id,
            mark: None,
            warns: false,
            heard: None,
            unsure: false,
            again: 0,
            unreached: false,
        }
    }

    /// What the agent is to have.
    fn wanted(&self, instance: &Instance) -> Result<Registration> {
        let mut wanted = encode(self.format, instance, self.mark())?;
        if self.again > 0 {
            wanted.meta.insert(AGAIN.to_owned(), self.again.to_string());
        }
        Ok(wanted)
    }

    fn mark(&self) -> &str {
        self.mark.as_deref().unwrap_or_default()
    }

    fn check_id(&self) -> String {
        beat_id(self.mark())
    }

    fn status(&self) -> &'static str {
        if self.warns { "warning" } else { "passing" }
    }

    /// What the agent has under the id.
    async fn found(&self) -> Result<Option<Found>> {
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
    async fn checks_in_catalog(&self) -> Result<Option<Vec<Checked>>> {
        self.in_catalog("checks", "ServiceID").await
    }

    /// Whether a later registration has the id on another node, and that node is not lost.
    async fn has_successor(&self, checks: &[Checked]) -> Result<bool> {
        let is_later = |mark: &str| is_older(self.mark(), mark);
        if !checks.iter().filter_map(Checked::mark).any(is_later) {
            return Ok(false);
        }
        let entries = self.in_catalog::<Entry>("service", "Service.ID").await?.unwrap_or_default();
        Ok(entries.iter().any(|entry| entry.lives() && entry.service.incarnation().is_some_and(is_later)))
    }

    fn is_our_beat(&self, check: &Checked) -> bool {
        self.mark.is_some() && check.mark() == self.mark.as_deref()
    }

    fn is_ours(&self, service: &Service) -> bool {
        self.mark.is_some() && service.incarnation() == self.mark.as_deref()
    }

    /// What became of our entry, by what the agent has.
    fn judge(&self, found: Option<&Found>) -> Kept {
        match found {
            None => Kept::Lost,
            // Whose time is over owns nothing.
            Some(found) if !found.lives() => Kept::Lost,
            Some(found) if self.is_ours(&found.service) => Kept::Kept,
            Some(_) => Kept::Superseded,
        }
    }

    /// What only the agent knows.
    fn note(&mut self, found: &Found) {
        let failing =
            found.checks.iter().find(|check| check.mark().is_none() && check.health() == Health::Critical);
        if let Some(check) = failing.filter(|_| !self.unreached) {
            let said: String = check.output.chars().take(SHOWN).collect();
            warn!(
                id = self.id,
                check = check.id,
                said,
                "registered, and not listed: a check of Consul fails"
            );
        }
        self.unreached = failing.is_some();
    }

    async fn tell(&mut self, instance: &Instance) -> Result<()> {
        let registration = self.wanted(instance)?;
        self.warns = instance.state() != State::Up;
        // Not critical until the first beat, which is how Consul begins by itself.
        let checks = definitions(&self.check, instance, &self.check_id(), self.status(), self.ttl);
        let told = Told { registration: &registration, checks };
        let path = Path::new(&["agent", "service", "register"]).with("replace-existing-checks", "true");
        self.unsure = true;
        let began = Instant::now();
        let answer = self.agent.put(&self.what, path, &told).await?;
        self.agent.checked(&self.what, answer)?;
        self.unsure = false;
        // A check that there was keeps its state, whatever the registration says of it.
        if self.heard.replace(began).is_some() && self.beat().await? == Kept::Lost {
            let text = format!("{}: its check is gone already", self.what);
            return Err(Error::new(ErrorKind::Unavailable, text));
        }
        Ok(())
    }

    async fn beat(&mut self) -> Result<Kept> {
        let began = Instant::now();
        let path = Path::new(&["agent", "check", "update", &self.check_id()]);
        let answer = self.agent.put(&self.what, path, &Beat { status: self.status(), output: "" }).await?;
        if is_unknown(&answer) {
            return Ok(Kept::Lost);
        }
        self.agent.checked(&self.what, answer)?;
        self.heard = Some(began);
        Ok(Kept::Kept)
    }

    /// An agent takes what the catalog then refuses, and does not say so. One that could not tell the catalog for
    /// another reason tries again some 15 s later: whoever was told so once `waits` longer, and lives meanwhile.
    async fn confirm(&mut self, waits: bool) -> Result<()> {
        let patience = if waits { PATIENCE } else { 0 };
        for look in LOOKS.into_iter().chain(std::iter::repeat_n(Duration::from_secs(1), patience)) {
            sleep(look).await;
            let Some(checks) = self.checks_in_catalog().await? else {
                debug!(
                    id = self.id,
                    "the catalog may not be read, so that the registration is not confirmed"
                );
                return Ok(());
            };
            if checks.iter().any(|check| self.is_our_beat(check) && check.health() != Health::Critical) {
                return Ok(());
            }
            if self.heard.is_none_or(|heard| heard.elapsed() > self.ttl / 3)
                && self.beat().await? == Kept::Lost
            {
                break;
            }
        }
        let text = format!(
            "{}: agent {} took it and the catalog does not have it: the agent's log says why",
            self.what,
            self.agent.name()
        );
        Err(Error::new(ErrorKind::Unavailable, text))
    }
}

#[async_trait]
impl Lease for ConsulLease {
    async fn claim(&mut self, how: Claim, instance: &Instance) -> Result<Option<Terms>> {
        // One that was broken off is ours all the same.
        if self.mark.is_none() {
            self.mark = Some(new_incarnation());
        }
        if how == Claim::Again {
            let found = self.found().await?;
            if self.judge(found.as_ref()) == Kept::Superseded {
                return Ok(None);
            }
            // What it has already it tells the catalog of once a minute, also if that has lost it.
            let wanted = self.wanted(instance)?;
            if found.is_some_and(|found| self.is_ours(&found.service) && found.service.is(&wanted)) {
                self.again = self.again.wrapping_add(1);
            }
            if let Some(checks) = self.checks_in_catalog().await?
                && self.has_successor(&checks).await?
            {
                return Ok(None);
            }
        }
        let waits = self.heard.is_some();
        self.tell(instance).await?;
        self.confirm(waits).await?;
        Ok(Some(Terms { ttl: Some(self.ttl) }))
    }

    async fn renew(&mut self) -> Result<Kept> {
        // A beat would bring back what has expired, and others may have taken notice.
        if self.heard.is_none_or(|heard| heard.elapsed() > self.ttl) {
            return Ok(Kept::Lost);
        }
        self.beat().await
    }

    async fn write(&mut self, instance: &Instance) -> Result<Kept> {
        let kept = self.judge(self.found().await?.as_ref());
        if kept == Kept::Kept {
            self.tell(instance).await?;
        }
        Ok(kept)
    }

    async fn verify(&mut self, instance: &Instance) -> Result<Kept> {
        let found = self.found().await?;
        let kept = self.judge(found.as_ref());
        if kept != Kept::Kept {
            return Ok(kept);
        }
        let wanted = self.wanted(instance)?;
        let Some(found) = found.filter(|found| found.service.is(&wanted)) else { return Ok(Kept::Lost) };
        self.note(&found);
        let Some(checks) = self.checks_in_catalog().await? else { return Ok(Kept::Kept) };
        if self.has_successor(&checks).await? {
            return Ok(Kept::Superseded);
        }
        Ok(if checks.iter().any(|check| self.is_our_beat(check)) { Kept::Kept } else { Kept::Lost })
    }

    async fn lost(&mut self) -> Loss {
        // A query that waits holds a connection, of which an agent allows two hundred to a machine, and the next
        // beat tells as well.
        std::future::pending().await
    }

    async fn release(&mut self) -> Result<()> {
        if self.mark.is_none() {
            return Ok(());
        }
        let looks = if self.unsure { 3 } else { 1 };
        for look in 0..looks {
            if look > 0 {
                sleep(Duration::from_millis(100)).await;
            }
            match self.found().await? {
                Some(found) if self.is_ours(&found.service) => {
                    let path = Path::new(&["agent", "service", "deregister", &self.id]);
                    let answer = self.agent.put(&self.what, path, &()).await?;
                    if answer.status.as_u16() != 404 {
                        self.agent.checked(&self.what, answer)?;
                    }
                    break;
                }
                _ => {}
            }
        }
        self.unsure = false;
        Ok(())
    }
}
