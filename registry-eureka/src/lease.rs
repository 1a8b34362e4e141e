//! [`EurekaLease`]: one instance in Eureka, alive for as long as it is renewed.
//!
//! Eureka has no compare-and-set, so that every change reads, compares and writes, and so does every renewal: one that
//! did not look would keep another's entry alive. The mark among the metadata says whose an entry is.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use callsign_core::{
    Claim, Error, ErrorKind, HttpAnswer, Instance, Kept, Lease, Loss, PendingRequest, Result, State, Terms,
};
use http::Method;
use tokio::time::sleep;
use tracing::info;

use crate::ask::Ask;
use crate::own::Own;
use crate::servers::Servers;
use crate::wire::{Entry, Format, Status, encode, instance_id, new_incarnation};

/// How often it is looked whether a write that was not answered came to be after all.
const LOOKS: u32 = 3;
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// And whether another server has heard of the entry, as it does within so many.
const BEHIND: u32 = 8;

#[derive(Debug)]
pub(crate) struct EurekaLease {
    own: Own,
    format: Format,
    /// What Eureka is told: it believes each renewal for twice as long.
    lease: Duration,
    /// When what was to be written last was changed, in milliseconds; servers keep what is newer.
    dirty: i64,
    /// The same of what was written, and its status: of what is newer than that a server knows nothing, and renews nothing.
    written: (i64, Status),
    was_up: bool,
    /// Which server had the entry last.
    had_by: Option<usize>,
    /// A newer owner was seen, whose entry no server is to lose that has not heard of it yet.
    superseded: bool,
    /// What was to be written last, while it is not known whether it is.
    pending: PendingRequest,
    /// A write was not answered, and may still come to be.
    unsure: bool,
    overridden: Status,
}

/// What a server has under the id.
struct Looked {
    kept: Kept,
    found: Option<Entry>,
    by: usize,
}

impl EurekaLease {
    pub(crate) fn new(servers: Servers, format: Format, instance: &Instance, ttl: Duration) -> Self {
        let own = Own {
            servers,
            app: instance.service().as_str().to_ascii_uppercase(),
            key: instance_id(instance.id()),
            what: format!("registration of {}/{}", instance.service(), instance.id()),
            mark: None,
        };
        Self {
            own,
            format,
            lease: Duration::from_secs((ttl.as_secs() / 2).max(1)),
            dirty: 0,
            written: (0, Status::Unknown),
            was_up: false,
            had_by: None,
            superseded: false,
            pending: PendingRequest::default(),
            unsure: false,
            overridden: Status::Unknown,
        }
    }

    /// How long an entry outlives a renewal: Eureka adds the time that it is told twice.
    fn ttl(&self) -> Duration {
        self.lease * 2
    }

    /// Waits until it is known what became of a write that was broken off.
    async fn settle(&mut self) {
        if let Some(answer) = self.pending.settle().await {
            self.unsure = answer.is_err();
        }
    }

    /// Writes what cannot be taken back by dropping the call.
    async fn send(&mut self, ask: Ask) -> Result<HttpAnswer> {
        let (servers, what) = (self.own.servers.clone(), self.own.what.clone());
        self.unsure = true;
        let sent = async move {
            let answered = servers.ask(&what, &ask).await?;
            // Whatever it is, it was answered.
            if answered.is_absent() {
                return Ok(answered.answer);
            }
            servers.checked(&what, answered).map(|answered| answered.answer)
        };
        let answer = self.pending.send(sent).await;
        self.unsure = answer.as_ref().is_err_and(Error::is_temporary);
        answer
    }

    /// Writes the entry, newer than what was `found`.
    async fn tell(&mut self, instance: &Instance, found: Option<&Entry>) -> Result<()> {
        let told = encode(self.format, instance, self.own.mark(), self.was_up)?;
        self.superseded = false;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now = i64::try_from(now.as_millis()).unwrap_or(i64::MAX);
        let before = self.dirty.max(found.map_or(0, |found| found.dirty));
        self.dirty = now.max(before.saturating_add(1));
        let ask = Ask::new(Method::POST, &["apps", &self.own.app]);
        let ask = ask.body(told.json(self.lease, self.ttl() / 3, self.dirty));
        let answer = self.send(ask).await?;
        if answer.status.as_u16() == 404 {
            // Which says why.
            self.own.servers.prove(&self.own.what).await?;
            let text = format!("{}: 404: Eureka takes no registrations", self.own.what);
            return Err(Error::new(ErrorKind::Unsupported, text));
        }
        self.written = (self.dirty, told.status);
        self.was_up |= instance.state() == State::Up;
        // A lease that was never renewed is half as long.
        if self.beat().await? == Kept::Lost {
            let text = format!("{}: it is gone already", self.own.what);
            return Err(Error::new(ErrorKind::Unavailable, text));
        }
        Ok(())
    }

    async fn beat(&mut self) -> Result<Kept> {
        let (dirty, status) = self.written;
        let ask = self.own.ask(Method::PUT).with("status", status.as_str());
        let ask = ask.with("lastDirtyTimestamp", &dirty.to_string());
        let answered = self.own.servers.ask(&self.own.what, &ask).await?;
        if answered.is_absent() {
            return Ok(Kept::Lost);
        }
        let answered = self.own.servers.checked(&self.own.what, answered)?;
        self.had_by = Some(answered.by);
        Ok(Kept::Kept)
    }

    /// What is there, and what that makes of ours.
    async fn look(&mut self) -> Result<Looked> {
        let (found, by) = self.own.found().await?;
        let kept = self.own.judge(found.as_ref());
        self.superseded |= kept == Kept::Superseded;
        if kept == Kept::Kept
            && let Some(entry) = &found
            && entry.overridden != self.overridden
        {
            self.overridden = entry.overridden;
            info!(
                id = self.own.key,
                status = entry.status.as_str(),
                override_ = entry.overridden.as_str(),
                "an operator has changed what Eureka says of this instance"
            );
        }
        Ok(Looked { kept, found, by })
    }
}

#[async_trait]
impl Lease for EurekaLease {
    async fn claim(&mut self, how: Claim, instance: &Instance) -> Result<Option<Terms>> {
        self.settle().await;
        let Looked { kept, found, .. } = self.look().await?;
        if how == Claim::Again && kept == Kept::Superseded {
            return Ok(None);
        }
        // One that was broken off is ours all the same, unless somebody is to be taken over from.
        if self.own.mark.is_none() || kept == Kept::Superseded {
            self.own.mark = Some(new_incarnation(found.as_ref().and_then(Entry::incarnation)));
        }
        self.tell(instance, found.as_ref()).await?;
        Ok(Some(Terms { ttl: Some(self.ttl()) }))
    }

    async fn renew(&mut self) -> Result<Kept> {
        self.settle().await;
        match self.look().await?.kept {
            Kept::Kept => self.beat().await,
            kept => Ok(kept),
        }
    }

    async fn write(&mut self, instance: &Instance) -> Result<Kept> {
        self.settle().await;
        let Looked { kept, found, .. } = self.look().await?;
        if kept == Kept::Kept {
            self.tell(instance, found.as_ref()).await?;
        }
        Ok(kept)
    }

    async fn verify(&mut self, instance: &Instance) -> Result<Kept> {
        self.settle().await;
        let Looked { kept, found, .. } = self.look().await?;
        let told = encode(self.format, instance, self.own.mark(), self.was_up)?;
        Ok(match (kept, found) {
            (Kept::Kept, Some(found)) if !found.is(&told) => Kept::Lost,
            (kept, _) => kept,
        })
    }

    async fn lost(&mut self) -> Loss {
        // Eureka tells of nothing by itself; the next renewal does.
        std::future::pending().await
    }

    async fn release(&mut self) -> Result<()> {
        self.settle().await;
        if self.own.mark.is_none() {
            return Ok(());
        }
        let mut looks = 0;
        while !self.superseded {
            let Looked { kept, found, by } = self.look().await?;
            looks += 1;
            // Another server than that which had it may not have heard of it yet.
            let behind = self.had_by.is_some_and(|had_by| had_by != by);
            let least = if self.unsure { LOOKS } else { 1 };
            let enough = looks >= if behind { BEHIND } else { least };
            // What a predecessor left was taken over, and is to go as ours is.
            let left = enough && self.had_by.is_some() && found.is_some();
            if kept == Kept::Kept || (kept == Kept::Lost && left) {
                self.send(self.own.ask(Method::DELETE)).await?;
                break;
            }
            if enough {
                break;
            }
            sleep(LOOK_AGAIN).await;
        }
        self.unsure = false;
        Ok(())
    }
}
