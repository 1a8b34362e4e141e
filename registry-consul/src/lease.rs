//! [`ConsulLease`]: one service of an agent, alive for as long as its TTL check is passed.
//!
//! Consul has no compare-and-set for services, so that every change reads, compares and writes. The mark among the
//! metadata says whose an entry is. The check is called by the mark too, so that nobody keeps another's entry alive.

use std::time::Duration;

use async_trait::async_trait;
use callsign_core::{
    Claim, Error, ErrorKind, Instance, Kept, Lease, Loss, PendingRequest, Result, State, Terms,
};
use serde::Serialize;
use tokio::time::{Instant, sleep};
use tracing::{debug, warn};

use crate::agent::{Agent, Path};
use crate::check::{Check, Definition, definitions};
use crate::error::{SHOWN, is_unknown};
use crate::own::{Found, Own};
use crate::wire::{AGAIN, Format, Health, Registration, encode, new_incarnation, service_id};

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

#[derive(Debug)]
pub(crate) struct ConsulLease {
    own: Own,
    format: Format,
    check: Check,
    ttl: Duration,
    /// Whether the check warns, so that nobody calls who leaves.
    warns: bool,
    /// When Consul heard of us last.
    heard: Option<Instant>,
    /// What was to be written last, while it is not known whether it is.
    pending: PendingRequest,
    /// A write was not answered, and may still come to be.
    unsure: bool,
    /// How often the entry had to be written although the agent had it so already.
    again: u32,
    /// The agent says that it cannot reach the instance, which was logged.
    unreached: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Told {
    #[serde(flatten)]
    registration: Registration,
    checks: Vec<Definition>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Beat<'a> {
    status: &'a str,
    output: &'a str,
}

impl ConsulLease {
    pub(crate) fn new(
        agent: Agent,
        format: Format,
        check: Check,
        instance: &Instance,
        ttl: Duration,
    ) -> Self {
        let own = Own {
            agent,
            service: instance.service().to_string(),
            id: service_id(instance.service(), instance.id()),
            what: format!("registration of {}/{}", instance.service(), instance.id()),
            mark: None,
        };
        Self {
            own,
            format,
            check,
            ttl,
            warns: false,
            heard: None,
            pending: PendingRequest::default(),
            unsure: false,
            again: 0,
            unreached: false,
        }
    }

    /// What the agent is to have.
    fn wanted(&self, instance: &Instance) -> Result<Registration> {
        let mut wanted = encode(self.format, instance, self.own.mark())?;
        if self.again > 0 {
            wanted.meta.insert(AGAIN.to_owned(), self.again.to_string());
        }
        Ok(wanted)
    }

    fn status(&self) -> &'static str {
        if self.warns { "warning" } else { "passing" }
    }

    /// What only the agent knows.
    fn note(&mut self, found: &Found) {
        let failing =
            found.checks.iter().find(|check| check.mark().is_none() && check.health() == Health::Critical);
        if let Some(check) = failing.filter(|_| !self.unreached) {
            let said: String = check.output.chars().take(SHOWN).collect();
            warn!(
                id = self.own.id,
                check = check.id,
                said,
                "registered, and not listed: a check of Consul fails"
            );
        }
        self.unreached = failing.is_some();
    }

    /// Waits until it is known what became of a write that was broken off.
    async fn settle(&mut self) {
        if let Some(answer) = self.pending.settle().await {
            self.unsure = answer.is_err();
        }
    }

    async fn tell(&mut self, instance: &Instance) -> Result<()> {
        let registration = self.wanted(instance)?;
        self.warns = instance.state() != State::Up;
        // Not critical until the first beat, which is how Consul begins by itself.
        let checks =
            definitions(&self.check, instance, &self.own.check_id(), self.status(), self.ttl, self.again);
        let told = Told { registration, checks };
        let path = Path::new(&["agent", "service", "register"]).with("replace-existing-checks", "true");
        let (agent, what, began) = (self.own.agent.clone(), self.own.what.clone(), Instant::now());
        self.unsure = true;
        let answer = self.pending.send(async move { agent.put(&what, path, &told).await }).await?;
        self.unsure = false;
        self.own.agent.checked(&self.own.what, answer)?;
        // A check that there was keeps its state, whatever the registration says of it.
        if self.heard.replace(began).is_some() && self.beat().await? == Kept::Lost {
            let text = format!("{}: its check is gone already", self.own.what);
            return Err(Error::new(ErrorKind::Unavailable, text));
        }
        Ok(())
    }

    async fn beat(&mut self) -> Result<Kept> {
        let began = Instant::now();
        let path = Path::new(&["agent", "check", "update", &self.own.check_id()]);
        let answer =
            self.own.agent.put(&self.own.what, path, &Beat { status: self.status(), output: "" }).await?;
        if is_unknown(&answer) {
            return Ok(Kept::Lost);
        }
        self.own.agent.checked(&self.own.what, answer)?;
        self.heard = Some(began);
        Ok(Kept::Kept)
    }

    /// Waits until the catalog has it no more, as agents tell it a moment later: who ends then is not called any more. An
    /// agent that cannot tell it does so when it can.
    async fn disappears(&self) {
        for look in LOOKS {
            match self.own.checks_in_catalog().await {
                Ok(Some(checks)) if checks.iter().any(|check| self.own.is_our_beat(check)) => {
                    sleep(look).await;
                }
                _ => return,
            }
        }
    }

    /// Whether the catalog has it, after a while: an agent takes what the catalog then refuses, and does not say so.
    async fn arrives(&mut self) -> Result<bool> {
        for look in LOOKS {
            sleep(look).await;
            let Some(checks) = self.own.checks_in_catalog().await? else {
                debug!(
                    id = self.own.id,
                    "the catalog may not be read, so that the registration is not confirmed"
                );
                return Ok(true);
            };
            if checks.iter().any(|check| self.own.is_our_beat(check) && check.health() != Health::Critical) {
                return Ok(true);
            }
            if self.heard.is_none_or(|heard| heard.elapsed() > self.ttl / 3)
                && self.beat().await? == Kept::Lost
            {
                break;
            }
        }
        Ok(false)
    }
}

#[async_trait]
impl Lease for ConsulLease {
    async fn claim(&mut self, how: Claim, instance: &Instance) -> Result<Option<Terms>> {
        self.settle().await;
        // One that was broken off is ours all the same.
        if self.own.mark.is_none() {
            self.own.mark = Some(new_incarnation());
        }
        if how == Claim::Again {
            let found = self.own.found().await?;
            if self.own.judge(found.as_ref()) == Kept::Superseded {
                return Ok(None);
            }
            // What it has already it tells the catalog of once a minute, also if that has lost it.
            let wanted = self.wanted(instance)?;
            if found.is_some_and(|found| self.own.is_ours(&found.service) && found.service.is(&wanted)) {
                self.again = self.again.wrapping_add(1);
            }
            if let Some(checks) = self.own.checks_in_catalog().await?
                && self.own.has_successor(&checks).await?
            {
                return Ok(None);
            }
        }
        let waits = self.heard.is_some();
        self.tell(instance).await?;
        if self.arrives().await? {
            return Ok(Some(Terms { ttl: Some(self.ttl) }));
        }
        // An agent that could not tell the catalog tries again some 15 s later, and one that could takes it for told,
        // also if the catalog was restored at that moment. What is new it tells at once.
        if waits {
            self.again = self.again.wrapping_add(1);
            self.tell(instance).await?;
            if self.arrives().await? {
                return Ok(Some(Terms { ttl: Some(self.ttl) }));
            }
        }
        let text = format!(
            "{}: agent {} took it and the catalog does not have it: the agent's log says why",
            self.own.what,
            self.own.agent.name()
        );
        Err(Error::new(ErrorKind::Unavailable, text))
    }

    async fn renew(&mut self) -> Result<Kept> {
        self.settle().await;
        // A beat would bring back what has expired, and others may have taken notice.
        if self.heard.is_none_or(|heard| heard.elapsed() > self.ttl) {
            return Ok(Kept::Lost);
        }
        self.beat().await
    }

    async fn write(&mut self, instance: &Instance) -> Result<Kept> {
        self.settle().await;
        let kept = self.own.judge(self.own.found().await?.as_ref());
        if kept == Kept::Kept {
            self.tell(instance).await?;
        }
        Ok(kept)
    }

    async fn verify(&mut self, instance: &Instance) -> Result<Kept> {
        self.settle().await;
        let found = self.own.found().await?;
        let kept = self.own.judge(found.as_ref());
        if kept != Kept::Kept {
            return Ok(kept);
        }
        let wanted = self.wanted(instance)?;
        let Some(found) = found.filter(|found| found.service.is(&wanted)) else { return Ok(Kept::Lost) };
        self.note(&found);
        let Some(checks) = self.own.checks_in_catalog().await? else { return Ok(Kept::Kept) };
        if self.own.has_successor(&checks).await? {
            return Ok(Kept::Superseded);
        }
        Ok(if checks.iter().any(|check| self.own.is_our_beat(check)) { Kept::Kept } else { Kept::Lost })
    }

    async fn lost(&mut self) -> Loss {
        // A query that waits holds a connection, of which an agent allows two hundred to a machine, and the next
        // beat tells as well.
        std::future::pending().await
    }

    async fn release(&mut self) -> Result<()> {
        self.settle().await;
        if self.own.mark.is_none() {
            return Ok(());
        }
        let looks = if self.unsure { 3 } else { 1 };
        for look in 0..looks {
            if look > 0 {
                sleep(Duration::from_millis(100)).await;
            }
            match self.own.found().await? {
                Some(found) if self.own.is_ours(&found.service) => {
                    let path = Path::new(&["agent", "service", "deregister", &self.own.id]);
                    let answer = self.own.agent.put(&self.own.what, path, &()).await?;
                    if answer.status.as_u16() != 404 {
                        self.own.agent.checked(&self.own.what, answer)?;
                    }
                    self.disappears().await;
                    break;
                }
                _ => {}
            }
        }
        self.unsure = false;
        Ok(())
    }
}
