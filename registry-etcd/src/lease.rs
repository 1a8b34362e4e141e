//! [`EtcdLease`]: one key, bound to one etcd lease.
//!
//! The id of a lease is chosen here, so that one whose grant was broken off can be used or revoked all the same.
//! A new one is only asked for when etcd says that the last is dead. The lease on the key is what says whose it is.
//! Every change is a transaction that compares the key's revision, so that one which is held up somewhere and comes
//! late changes nothing; and revoking the lease removes the key exactly if it is ours.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use callsign_core::{Claim, Error, ErrorKind, Instance, Kept, Lease, Loss, Result, Terms};
use etcd_client::{
    Compare, CompareOp, KeyValue, LeaseGrantOptions, PutOptions, ResponseHeader, Txn, TxnOp, TxnOpResponse,
};
use tokio::time::Instant;

use crate::claimed::{Claimed, Found};
use crate::error;
use crate::members::{Link, Members, Repeat};
use crate::own::{OwnKey, read};
use crate::renewals::Renewals;
use crate::wire::{Format, encode};

/// The least that etcd grants with its default election timeout.
const LEAST_TTL: Duration = Duration::from_secs(2);
/// How many leases that etcd called dead are remembered until a claim succeeds.
const REMEMBERED: usize = 4;
/// How often a change is tried anew because somebody else's came between, before the driver's pause.
const TRIES: usize = 5;
/// A lease that has this much more left than it can have was renewed meanwhile.
const RENEWED: Duration = Duration::from_millis(1500);

#[derive(Debug)]
pub(crate) struct EtcdLease {
    members: Arc<Members>,
    key: String,
    format: Format,
    /// What is asked of etcd, in whole seconds.
    asked: Duration,
    /// What etcd granted the current lease.
    granted: Duration,
    claimed: Claimed,
    renewals: Renewals,
    own: OwnKey,
    /// An older entry that is in the way: its lease, and when that ends unless somebody renews it.
    in_the_way: Option<(i64, Instant)>,
}

/// What came of a change of the key.
enum Set {
    Done,
    /// What was found in its place may not be changed.
    Refused(Option<Found>),
}

impl EtcdLease {
    pub(crate) fn new(members: Arc<Members>, key: String, format: Format, ttl: Duration) -> Self {
        let asked = Duration::from_secs(ttl.as_secs() + u64::from(ttl.subsec_nanos() > 0)).max(LEAST_TTL);
        Self {
            own: OwnKey::new(Arc::clone(&members), key.clone()),
            renewals: Renewals::new(Arc::clone(&members)),
            members,
            key,
            format,
            asked,
            granted: asked,
            claimed: Claimed::default(),
            in_the_way: None,
        }
    }

    /// A lease to bind the key to: the present one if it is alive, else a new one.
    async fn lease(&mut self) -> Result<i64> {
        if let Some(lease) = self.claimed.lease {
            if self.renew().await? == Kept::Kept {
                return Ok(lease);
            }
            self.called_dead(lease);
        }
        self.grant().await
    }

    fn called_dead(&mut self, lease: i64) {
        self.claimed.called_dead.truncate(REMEMBERED - 1);
        self.claimed.called_dead.insert(0, lease);
        self.claimed.lease = None;
    }

    async fn grant(&mut self) -> Result<i64> {
        let ttl = i64::try_from(self.asked.as_secs()).unwrap_or(i64::MAX);
        loop {
            let lease = fastrand::i64(1..);
            // Noted before it is asked for: it may come to be though we never hear of it.
            self.claimed.lease = Some(lease);
            self.granted = self.asked;
            self.renewals.close();
            let grant = |mut link: Link| async move {
                match link.lease.grant(ttl, Some(LeaseGrantOptions::new().with_id(lease))).await {
                    Err(error) if error::lease_exists(&error) => Ok(None),
                    granted => granted.map(Some),
                }
            };
            let (_, granted) = self.members.ask("grant of a lease", Repeat::Unsent, grant).await?;
            if let Some(granted) = granted {
                self.granted = u64::try_from(granted.ttl()).map_or(self.asked, Duration::from_secs);
                return Ok(lease);
            }
            // Somebody else's, and not ours to revoke.
            self.claimed.lease = None;
        }
    }

    /// Makes the key what it is to be, there with a value or not there, as long as `may` allows to change what is
    /// found. `seen` is what is believed to be there: if it is something else, that is found out.
    async fn set(
        &mut self,
        what: &str,
        lease: i64,
        value: Option<&[u8]>,
        mut seen: Option<Found>,
        may: impl Fn(&Claimed, Option<Found>) -> bool,
    ) -> Result<Set> {
        let key = self.key.as_str();
        let change = match value {
            Some(value) => TxnOp::put(key, value, Some(PutOptions::new().with_lease(lease))),
            None => TxnOp::delete(key, None),
        };
        for _ in 0..TRIES {
            if !may(&self.claimed, seen) {
                return Ok(Set::Refused(seen));
            }
            let as_seen = match seen {
                None => Compare::version(key, CompareOp::Equal, 0),
                Some(found) => Compare::mod_revision(key, CompareOp::Equal, found.revision),
            };
            let txn = Txn::new().when([as_seen]).and_then([change.clone()]).or_else([TxnOp::get(key, None)]);
            let run = |mut link: Link| {
                let txn = txn.clone();
                async move { link.kv.txn(txn).await }
            };
            // Repeating it does no harm: if it was done the first time, it finds that something else is there.
            let (_, done) = self.members.ask(what, Repeat::Safe, run).await?;
            if done.succeeded() {
                return Ok(self.done(done.header().map_or(0, ResponseHeader::revision)));
            }
            let there = match done.op_responses().into_iter().next() {
                Some(TxnOpResponse::Get(got)) => got.kvs().first().cloned(),
                _ => None,
            };
            let is_done = match (&there, value) {
                (Some(kv), Some(value)) => kv.lease() == lease && kv.value() == value,
                (None, None) => true,
                _ => false,
            };
            if is_done {
                let at = done.header().map_or(0, ResponseHeader::revision);
                return Ok(self.done(there.as_ref().map_or(at, KeyValue::mod_revision)));
            }
            seen = there.as_ref().map(Found::of);
        }
        let text = format!("the {what} was overtaken by others' changes {TRIES} times");
        Err(Error::new(ErrorKind::Unavailable, text))
    }

    /// The key is as it is to be, since this revision.
    fn done(&mut self, revision: i64) -> Set {
        self.claimed.written = revision;
        self.own.written(revision);
        Set::Done
    }

    /// Whether an entry from before etcd was restored has an owner that lives: that one renews its lease.
    async fn is_renewed(&mut self, lease: i64) -> Result<bool> {
        let ask = |mut link: Link| async move { link.lease.time_to_live(lease, None).await };
        let (_, left) = self.members.ask("time that a lease has left", Repeat::Safe, ask).await?;
        let ends = Instant::now() + Duration::from_secs(u64::try_from(left.ttl()).unwrap_or(0));
        let before = self.in_the_way.replace((lease, ends));
        Ok(before.is_some_and(|(same, ended)| same == lease && ends > ended + RENEWED))
    }
}

#[async_trait]
impl Lease for EtcdLease {
    async fn claim(&mut self, how: Claim, instance: &Instance) -> Result<Option<Terms>> {
        self.own.close();
        let lease = self.lease().await?;
        let value = encode(self.format, instance);
        self.claimed.withdrawn = value.is_none();
        let may = |claimed: &Claimed, found: Option<Found>| {
            how == Claim::Take || found.is_none_or(|found| claimed.is_ours(found))
        };
        let claimed = self.set("claim of the key", lease, value.as_deref(), None, may).await;
        match claimed {
            Ok(Set::Done) => {
                self.claimed.called_dead.clear();
                self.in_the_way = None;
                Ok(Some(Terms { ttl: Some(self.granted) }))
            }
            Ok(Set::Refused(Some(found))) if self.claimed.is_older(found) => {
                if self.is_renewed(found.lease).await? {
                    return Ok(None);
                }
                let what = "the key is held by an entry from before etcd was restored, and is free once that expires";
                Err(Error::new(ErrorKind::Unavailable, what))
            }
            Ok(Set::Refused(_)) => Ok(None),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                // It expired in between.
                self.called_dead(lease);
                Err(Error::new(ErrorKind::Unavailable, "the new lease did not last").with_source(error))
            }
            Err(error) => Err(error),
        }
    }

    async fn renew(&mut self) -> Result<Kept> {
        match self.claimed.lease {
            Some(lease) => self.renewals.renew(lease, self.granted).await,
            None => Ok(Kept::Lost),
        }
    }

    async fn write(&mut self, instance: &Instance) -> Result<Kept> {
        let Some(lease) = self.claimed.lease else { return Ok(Kept::Lost) };
        let value = encode(self.format, instance);
        // Before it is sent: what the watch of the key then hears is our own doing.
        self.own.unsure();
        let withdrawn = std::mem::replace(&mut self.claimed.withdrawn, value.is_none());
        let seen = (!withdrawn).then_some(Found { lease, revision: self.claimed.written });
        let may =
            move |_: &Claimed, found: Option<Found>| found.map_or(withdrawn, |found| found.lease == lease);
        match self.set("write of the key", lease, value.as_deref(), seen, may).await {
            Ok(Set::Done) => Ok(Kept::Kept),
            Ok(Set::Refused(found)) => Ok(self.claimed.judge(found)),
            // The lease expired under a key that was withdrawn.
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Kept::Lost),
            Err(error) => Err(error),
        }
    }

    async fn verify(&mut self, instance: &Instance) -> Result<Kept> {
        let (found, _) = read(&self.members, &self.key).await?;
        let kept = self.claimed.judge(found.as_ref().map(Found::of));
        let wanted = encode(self.format, instance);
        let as_wanted = found.as_ref().map(KeyValue::value) == wanted.as_deref();
        Ok(if kept == Kept::Kept && !as_wanted { Kept::Lost } else { kept })
    }

    async fn lost(&mut self) -> Loss {
        if self.claimed.lease.is_none() {
            return std::future::pending().await;
        }
        self.own.lost(&self.claimed).await
    }

    async fn release(&mut self) -> Result<()> {
        self.own.close();
        self.renewals.close();
        for lease in self.claimed.lease.into_iter().chain(self.claimed.called_dead.clone()) {
            let revoke = |mut link: Link| async move { link.lease.revoke(lease).await };
            match self.members.ask("revocation of a lease", Repeat::Safe, revoke).await {
                // Expired, or revoked by a call that was broken off.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                // A lease can hold a key that we may not touch; what is left of it expires.
                Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                    let key = self.key.as_str();
                    let delete = Txn::new()
                        .when([Compare::lease(key, CompareOp::Equal, lease)])
                        .and_then([TxnOp::delete(key, None)]);
                    let delete = |mut link: Link| {
                        let delete = delete.clone();
                        async move { link.kv.txn(delete).await }
                    };
                    self.members.ask("removal of the key", Repeat::Safe, delete).await?;
                }
                Err(error) => return Err(error),
                Ok(_) => {}
            }
        }
        self.claimed.lease = None;
        self.claimed.called_dead.clear();
        Ok(())
    }
}
