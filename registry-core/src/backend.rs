//! What the author of a backend writes: a [`Protocol`] that makes a [`Source`] for each watched service and a
//! [`Lease`] for each registration.
//!
//! A backend holds protocol knowledge only: how a set is read, how an entry is written. When to ask again, how
//! long to wait, what to keep in an outage, when to register anew and how to leave are decided once for all
//! backends, by the two drivers. A backend spawns no task, and its only loops are those that wait for the next
//! change inside one call: a registry that can only be asked is polled inside [`Source::next`] and
//! [`Lease::lost`], with a `sleep` between.
//!
//! The traits are object-safe by way of the crate `async-trait`: put its `#[async_trait]` on each impl.
//!
//! # Work that blocks
//! A client library that blocks, and file I/O, go through `tokio::task::spawn_blocking`. Mind what that means for
//! calls that are dropped half way: the blocking work goes on. It must see that it is no longer wanted before it
//! writes, or a claim that was broken off would publish after the release. A counter that every call raises, and
//! that the work compares under its lock, is enough.

use std::fmt::Debug;
use std::time::Duration;

use async_trait::async_trait;

use crate::error::Result;
use crate::model::{Instance, InstanceId, ServiceName};
use crate::report::Report;
use crate::settings::Settings;

/// A registry's protocol: the one entry point of a backend. [`Registry::new`](crate::Registry::new) makes a
/// registry of it.
///
/// # Contract
/// - No method blocks; constructors do no I/O.
/// - Every async method is bounded in time by itself, by [`Settings::request_timeout`] or less for each
///   exchange with the server. The drivers cut off what takes far longer, as a last resort.
/// - Only what a watch would list counts for `services` and `remove`: not what has expired and was not swept.
/// - A panic in a source ends its watch, which is marked stale with that reason; a panic in a lease ends its
///   registration.
#[async_trait]
pub trait Protocol: Debug + Send + Sync + 'static {
    /// Reads one service.
    type Source: Source;
    /// Keeps one registration.
    type Lease: Lease;

    /// A source for a service. Does no I/O.
    fn source(&self, service: &ServiceName) -> Self::Source;

    /// A lease for an instance, which publishes nothing yet. Does no I/O.
    fn lease(&self, instance: &Instance) -> Self::Lease;

    /// The settings both drivers keep to for this registry.
    fn settings(&self) -> &Settings;

    /// The names under which anything is registered, sorted.
    async fn services(&self) -> Result<Vec<ServiceName>>;

    /// Removes an entry, whoever owns it. `NotFound` if there is none.
    async fn remove(&self, service: &ServiceName, id: &InstanceId) -> Result<()>;

    /// Tries to reach, read and write the registry, and says what was refused. Leaves nothing behind.
    async fn check(&self) -> Report;
}

/// What a [`Source`] read.
#[derive(Debug, Clone, PartialEq)]
pub enum Update {
    /// Everything that is registered; what is not in it has [expired](Removal::Expired). Duplicate ids: the last
    /// one counts.
    Full(Vec<Instance>),
    /// What has changed since the last update: `gone` first, then `put`, so that an id in both is listed. Empty
    /// if only [`Source::skipped`] has changed.
    Delta {
        /// New instances, and those whose content has changed.
        put: Vec<Instance>,
        /// Those that are gone, and how they went.
        gone: Vec<(InstanceId, Removal)>,
    },
}

/// How an instance left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removal {
    /// By its own word, or it is known to be dead: removed at once. Only where the registry itself says so; that
    /// an entry is not there any more says nothing, for so it looks after a wipe.
    Announced,
    /// Without a word: it may be a crash, and it may be a fault of the registry. Subject to the mass-removal
    /// guard, unless the instance was [`Draining`](crate::State::Draining) or down before, as whoever leaves in
    /// order was. When in doubt, this.
    Expired,
}

/// Reads one service.
///
/// # Contract
/// - The first call of [`next`](Self::next) lists the registry at once and returns [`Update::Full`], so does
///   the first after [`relist`](Self::relist) and the first after an `Err`. Every other call waits for a
///   change. "Nothing is registered" is `Ok`, and empty.
/// - A `Full` is complete or it is an `Err`: a partial list is never returned.
/// - Where the registry may have lost entries that are alive, as after a wipe or when it has forgotten a session, an `Err`
///   comes before the list: within `grace` after an outage the driver believes no loss, and what a source lists anew
///   without a word is no outage.
/// - An entry that cannot be understood is skipped, counted and logged once; it never fails the list.
/// - `next` is cancel-safe: the driver drops it at any await, to stop, or to call `relist` and then `next`. A
///   change seen by a dropped call must be in what the next one returns.
/// - Each exchange with the server is bounded in time; only the wait for a change is not. A connection that
///   died silently must still be found out, within seconds.
#[async_trait]
pub trait Source: Debug + Send + 'static {
    /// The next update; see the trait's contract.
    async fn next(&mut self) -> Result<Update>;

    /// Makes the next call of [`next`](Self::next) list from scratch.
    fn relist(&mut self);

    /// How many entries are at present left out because they cannot be understood.
    fn skipped(&self) -> usize {
        0
    }
}

/// How an id is claimed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// The first claim of a registration: takes the id over, whoever held it. Only where the owner is provably
    /// alive is it an error instead, [`Conflict`](crate::ErrorKind::Conflict).
    Take,
    /// A later claim by the same registration: creates the entry if it is absent, overwrites it if it is ours.
    Again,
}

/// Whether a lease is still ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// Ours, and in place.
    Kept,
    /// Gone: to be claimed again.
    Lost,
    /// Another owner has claimed the id since: this one never writes again.
    Superseded,
}

impl Kept {
    /// The loss that it tells of, if it does.
    #[must_use]
    pub fn loss(self) -> Option<Loss> {
        match self {
            Self::Kept => None,
            Self::Lost => Some(Loss::Lost),
            Self::Superseded => Some(Loss::Superseded),
        }
    }
}

/// What a registry says of its own accord of an entry that is not ours any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Loss {
    /// It is gone: to be claimed again.
    Lost,
    /// Another owner has claimed the id.
    Superseded,
}

/// What a successful claim came with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// How long the entry outlives the last renewal, as the server granted it; where a client library renews a session
    /// for all that is registered under it, the last sign of life of that. `None`: it lives as long as the process, and
    /// is not renewed.
    pub ttl: Option<Duration>,
}

/// Keeps one entry of the registry.
///
/// # Contract
/// - `claim` comes first, `release` last, if need be after a claim that failed, and before the lease is dropped
///   unless its runtime ends. Between them calls come in any order; `lost` only while the entry is claimed, and
///   again after a loss and a new claim.
/// - Calls never overlap. Any call may be dropped at any await, after which the next one may be any other:
///   what had been written is then unknown, and `claim(Again)` and `release` must be right all the same.
/// - `Err` means "not known": the driver asks again. A permanent kind of error
///   ([`Error::is_permanent`](crate::Error::is_permanent)) also fails whoever waits in `register` or `update`, and
///   what was refused as [`Invalid`](crate::ErrorKind::Invalid) or [`Unsupported`](crate::ErrorKind::Unsupported) is
///   not written again. Only [`Kept::Lost`] is a loss, only [`Kept::Superseded`] ends the registration.
/// - The driver bounds `renew`, `write` and `verify` by a third of the TTL, so that the next renewal is in time.
/// - Nothing is ever removed or overwritten that a newer owner has claimed, but by `claim(Take)`. An owner that
///   came and went unseen between two looks is no newer owner.
/// - What each call makes of the entry it finds, where `ours` is alive and bound to this lease:
///
/// | | absent or expired | ours | ours, other content | another's |
/// |---|---|---|---|---|
/// | `claim(Take)` | creates | overwrites | overwrites | overwrites, or `Err(Conflict)` |
/// | `claim(Again)` | creates | overwrites | overwrites | `Ok(None)` |
/// | `renew` | `Lost` | `Kept` | `Kept` | `Superseded`, or `Lost` |
/// | `write` | `Lost`, writes nothing | overwrites, `Kept` | overwrites, `Kept` | `Superseded`, or `Lost`; writes nothing |
/// | `verify` | `Lost` | `Kept` | `Lost` | `Superseded`, or `Lost` |
/// | `lost` | resolves `Lost` | waits | waits | resolves `Superseded`, or `Lost` |
/// | `release` | `Ok` | removes | removes | `Ok`, leaves it |
///
/// - Where `Lost` is said of another's entry, `claim(Again)` is what finds out whose it is. A `renew` that renews a lease
///   without looking at the entry says `Kept` of whatever has become of it; then `lost` or `verify` must tell.
/// - Where one session holds what many leases have published, as in ZooKeeper, and whoever has it renews it, a `renew`
///   asks nothing of the server: `Kept` while the session is connected, `Lost` once it has ended, and an `Err` between,
///   so that the driver can tell that the entry is not confirmed. A session that lives on keeps what a `release` could
///   not remove, for ever: a lease that is dropped with its entry in place must see that whoever uses the session next
///   removes it.
/// - An entry under the id that cannot be understood, or that has no owner, is another's.
/// - An instance that is not [`Up`](crate::State::Up), in a format that holds no state: the entry is withdrawn
///   and the lease kept, and a later write of an instance that is up brings it back.
#[async_trait]
pub trait Lease: Debug + Send + 'static {
    /// Publishes `instance` under this lease. `Ok(None)`: another owner has the id (never for `Take`).
    async fn claim(&mut self, how: Claim, instance: &Instance) -> Result<Option<Terms>>;

    /// Renews the TTL.
    async fn renew(&mut self) -> Result<Kept>;

    /// Replaces the entry's content, in place: it is never absent between.
    async fn write(&mut self, instance: &Instance) -> Result<Kept>;

    /// Reads the entry back, and says `Lost` if it is gone or is not `instance`.
    async fn verify(&mut self, instance: &Instance) -> Result<Kept>;

    /// Resolves when the registry says of its own accord that the entry is lost; never, where it cannot.
    /// Cancel-safe. A failure to listen is retried inside, without spinning.
    async fn lost(&mut self) -> Loss;

    /// Withdraws the entry if it is ours, and ends the lease. Idempotent.
    async fn release(&mut self) -> Result<()>;
}
