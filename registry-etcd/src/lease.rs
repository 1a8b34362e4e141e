//! [`EtcdLease`]: one key, bound to one etcd lease.
//!
//! The id of a lease is chosen here, so that one whose grant was broken off can be used or revoked all the same.
//! A new one is only asked for when etcd says that the last is dead. The lease on the key is what says whose it is:
//! every change is a transaction that compares it, and revoking the lease removes the key exactly if it is ours.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use callsign_core::{Claim, ErrorKind, Instance, Kept, Lease, Loss, Result, Terms};
use etcd_client::{
    Compare, CompareOp, LeaseGrantOptions, LeaseKeepAliveStream, LeaseKeeper, PutOptions, ResponseHeader,
    Txn, TxnOp, TxnOpResponse, TxnResponse,
};
use tokio::time::{Instant, timeout_at};
use tracing::debug;

use crate::error;
use crate::members::{Link, Members, Repeat};
use crate::own::{Claimed, OwnKey, read};
use crate::wire::{Format, encode};

/// The least that etcd grants with its default election timeout.
const LEAST_TTL: Duration = Duration::from_secs(2);
/// How many leases that etcd called dead are remembered until a claim succeeds.
const REMEMBERED: usize = 4;
/// A renewal is given up within this part of its period, before the driver gives it up.
const RENEW_SHARE: f64 = 0.95;
/// The driver's least bound of a renewal, by which the first one is kept.
const LEAST_RENEWAL: Duration = Duration::from_millis(500);

/// A stream of renewals, as long as it works.
#[derive(Debug)]
struct Renewals {
    keeper: LeaseKeeper,
    answers: LeaseKeepAliveStream,
    member: usize,
}

/// What a renewal was answered.
enum Answer {
    Alive,
    Dead,
    /// The stream broke.
    None,
}

impl Renewals {
    async fn answer(&mut self) -> Answer {
        if self.keeper.keep_alive().await.is_err() {
            return Answer::None;
        }
        match self.answers.message().await {
            Ok(Some(answer)) if answer.ttl() > 0 => Answer::Alive,
            Ok(Some(_)) => Answer::Dead,
            Ok(None) | Err(_) => Answer::None,
        }
    }
}

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
    renewals: Option<Renewals>,
    own: OwnKey,
}

impl EtcdLease {
    pub(crate) fn new(members: Arc<Members>, key: String, format: Format, ttl: Duration) -> Self {
        let asked = Duration::from_secs(ttl.as_secs() + u64::from(ttl.subsec_nanos() > 0)).max(LEAST_TTL);
        let own = OwnKey::new(Arc::clone(&members), key.clone());
        let claimed = Claimed::default();
        Self { members, key, format, asked, granted: asked, claimed, renewals: None, own }
    }

    /// A lease to bind the key to: the present one if it is alive, else a new one.
    async fn lease(&mut self) -> Result<i64> {
        if let Some(lease) = self.claimed.lease {
            if self.renew().await? == Kept::Kept {
                return Ok(lease);
            }
            self.claimed.called_dead.truncate(REMEMBERED - 1);
            self.claimed.called_dead.insert(0, lease);
            self.claimed.lease = None;
        }
        self.grant().await
    }

    async fn grant(&mut self) -> Result<i64> {
        let ttl = i64::try_from(self.asked.as_secs()).unwrap_or(i64::MAX);
        loop {
            let lease = fastrand::i64(1..);
            // Noted before it is asked for: it may come to be though we never hear of it.
            self.claimed.lease = Some(lease);
            (self.granted, self.renewals) = (self.asked, None);
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

    /// Opens another stream of renewals, whose opening is a renewal too.
    async fn reopen(&mut self, lease: i64, by: Instant) -> Result<Kept> {
        let open = |mut link: Link| async move { link.lease.keep_alive(lease).await };
        let left = by.saturating_duration_since(Instant::now());
        match self.members.ask_within(left, "renewal", Repeat::Safe, open).await {
            Ok((member, (keeper, answers))) => {
                self.renewals = Some(Renewals { keeper, answers, member });
                Ok(Kept::Kept)
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Kept::Lost),
            Err(error) => Err(error),
        }
    }

    /// The operation that makes the key what it is to be: there with a value, or not there.
    fn set(&self, value: Option<&[u8]>, lease: i64) -> TxnOp {
        match value {
            Some(value) => TxnOp::put(self.key.as_str(), value, Some(PutOptions::new().with_lease(lease))),
            None => TxnOp::delete(self.key.as_str(), None),
        }
    }

    fn is_bound_to(&self, lease: i64) -> Compare {
        Compare::lease(self.key.as_str(), CompareOp::Equal, lease)
    }

    fn is_absent(&self) -> Compare {
        Compare::version(self.key.as_str(), CompareOp::Equal, 0)
    }

    /// Does `then` if any of the comparisons holds, else reads the key.
    fn if_any(&self, comparisons: Vec<Compare>, then: &TxnOp) -> Txn {
        let read = TxnOp::get(self.key.as_str(), None);
        comparisons
            .into_iter()
            .rev()
            .fold(None, |otherwise: Option<Txn>, comparison| {
                let otherwise = otherwise.map_or_else(|| read.clone(), TxnOp::txn);
                Some(Txn::new().when([comparison]).and_then([then.clone()]).or_else([otherwise]))
            })
            .unwrap_or_else(|| Txn::new().and_then([read]))
    }

    /// Takes note of a transaction that did what it should, and says whether it did.
    fn note(&mut self, done: &TxnResponse) -> bool {
        let done_it = succeeded(done);
        if done_it {
            self.own.written(done.header().map_or(0, ResponseHeader::revision));
        }
        done_it
    }
}

/// Runs a transaction.
async fn run(members: &Members, what: &str, repeat: Repeat, txn: Txn) -> Result<TxnResponse> {
    let run = |mut link: Link| {
        let txn = txn.clone();
        async move { link.kv.txn(txn).await }
    };
    Ok(members.ask(what, repeat, run).await?.1)
}

/// Whether any branch but the last, which only reads, was taken.
fn succeeded(done: &TxnResponse) -> bool {
    done.succeeded()
        || matches!(done.op_responses().first(), Some(TxnOpResponse::Txn(inner)) if succeeded(inner))
}

/// What the last branch read: the lease of the key, if it is there.
fn lease_read(done: &TxnResponse) -> Option<i64> {
    match done.op_responses().first() {
        Some(TxnOpResponse::Txn(inner)) => lease_read(inner),
        Some(TxnOpResponse::Get(got)) => got.kvs().first().map(etcd_client::KeyValue::lease),
        _ => None,
    }
}

#[async_trait]
impl Lease for EtcdLease {
    async fn claim(&mut self, how: Claim, instance: &Instance) -> Result<Option<Terms>> {
        self.own.close();
        let lease = self.lease().await?;
        let value = encode(self.format, instance);
        let set = self.set(value.as_deref(), lease);
        self.claimed.withdrawn = value.is_none();
        let (repeat, txn) = match how {
            // Another owner's claim may come between two tries, and would be overwritten.
            Claim::Take => (Repeat::Unsent, Txn::new().and_then([set])),
            Claim::Again => {
                let ours =
                    self.claimed.called_dead.iter().chain([&lease]).map(|lease| self.is_bound_to(*lease));
                (Repeat::Safe, self.if_any([self.is_absent()].into_iter().chain(ours).collect(), &set))
            }
        };
        let done = run(&self.members, "claim of the key", repeat, txn).await?;
        if !self.note(&done) {
            return Ok(None);
        }
        self.claimed.called_dead.clear();
        Ok(Some(Terms { ttl: Some(self.granted) }))
    }

    async fn renew(&mut self) -> Result<Kept> {
        let Some(lease) = self.claimed.lease else { return Ok(Kept::Lost) };
        let period = (self.granted / 3).min(self.members.timeout()).max(LEAST_RENEWAL);
        let started = Instant::now();
        let (doubtful, by) = (started + period / 2, started + period.mul_f64(RENEW_SHARE));
        // Put back only when it has answered: an answer that was not waited for would be taken for the next.
        let Some(mut held) = self.renewals.take() else { return self.reopen(lease, by).await };
        let member = held.member;
        let outcome = {
            let mut answer = pin!(held.answer());
            match timeout_at(doubtful, &mut answer).await {
                Ok(answered) => answered,
                Err(_) => {
                    // It may be slow, and it may be dead: from here on another member is asked beside it.
                    self.members.bad(member);
                    let late = async { timeout_at(by, &mut answer).await.unwrap_or(Answer::None) };
                    let mut late = pin!(late);
                    tokio::select! {
                        biased;
                        answered = &mut late => answered,
                        reopened = self.reopen(lease, by) => match reopened {
                            Ok(kept) => return Ok(kept),
                            Err(error) => match late.await {
                                Answer::None => return Err(error),
                                answered => answered,
                            },
                        },
                    }
                }
            }
        };
        match outcome {
            Answer::Alive => {
                self.renewals = Some(held);
                Ok(Kept::Kept)
            }
            Answer::Dead => Ok(Kept::Lost),
            Answer::None => {
                debug!(key = %self.key, "the stream of renewals broke; opening another");
                self.members.bad(member);
                self.reopen(lease, by).await
            }
        }
    }

    async fn write(&mut self, instance: &Instance) -> Result<Kept> {
        let Some(lease) = self.claimed.lease else { return Ok(Kept::Lost) };
        let value = encode(self.format, instance);
        let mut ours = vec![self.is_bound_to(lease)];
        if self.claimed.withdrawn {
            ours.push(self.is_absent());
        }
        // Before it is sent: what the watch of the key then hears is our own doing.
        self.own.unsure();
        self.claimed.withdrawn = value.is_none();
        let txn = self.if_any(ours, &self.set(value.as_deref(), lease));
        match run(&self.members, "write of the key", Repeat::Safe, txn).await {
            Ok(done) if self.note(&done) => Ok(Kept::Kept),
            Ok(done) => Ok(self.claimed.judge(lease_read(&done))),
            // The lease expired under a key that was withdrawn.
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Kept::Lost),
            Err(error) => Err(error),
        }
    }

    async fn verify(&mut self, instance: &Instance) -> Result<Kept> {
        let (found, _) = read(&self.members, &self.key).await?;
        let kept = self.claimed.judge(found.as_ref().map(etcd_client::KeyValue::lease));
        let wanted = encode(self.format, instance);
        let as_wanted = found.as_ref().map(etcd_client::KeyValue::value) == wanted.as_deref();
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
        self.renewals = None;
        for lease in self.claimed.lease.into_iter().chain(self.claimed.called_dead.clone()) {
            let revoke = |mut link: Link| async move { link.lease.revoke(lease).await };
            match self.members.ask("revocation of a lease", Repeat::Safe, revoke).await {
                // Expired, or revoked by a call that was broken off.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                // A lease can hold a key that we may not touch; what is left of it expires.
                Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                    let delete = self.if_any(vec![self.is_bound_to(lease)], &self.set(None, lease));
                    run(&self.members, "removal of the key", Repeat::Safe, delete).await?;
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
