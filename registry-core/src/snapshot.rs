//! [`Snapshot`]: everything known of one service at one moment, and how fresh that is.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use std::time::SystemTime;

use rpds::RedBlackTreeMapSync;

use crate::error::Error;
use crate::model::{Instance, InstanceId, ServiceName};

/// How far a snapshot's instances can be trusted to be the registry's present ones.
#[derive(Debug, Clone)]
pub enum Freshness {
    /// The registry has not been listed yet, so that an empty snapshot says nothing. With the reason, once
    /// an attempt has failed.
    Pending {
        /// Why the last attempt failed.
        error: Option<Error>,
    },
    /// As the registry says now.
    Fresh,
    /// The last good set: the registry cannot be read at the moment. An error never removes an instance.
    Stale {
        /// When the registry was first found unreadable.
        since: SystemTime,
        /// Why it could not be read the last time.
        error: Error,
    },
}

impl Freshness {
    /// Whether the registry was never listed.
    #[must_use]
    pub fn is_pending(&self) -> bool {
        matches!(self, Self::Pending { .. })
    }

    /// Whether it is as the registry says now.
    #[must_use]
    pub fn is_fresh(&self) -> bool {
        matches!(self, Self::Fresh)
    }

    /// Whether it is the last good set.
    #[must_use]
    pub fn is_stale(&self) -> bool {
        matches!(self, Self::Stale { .. })
    }

    /// Why the registry cannot be read, if it cannot.
    #[must_use]
    pub fn error(&self) -> Option<&Error> {
        match self {
            Self::Pending { error } => error.as_ref(),
            Self::Fresh => None,
            Self::Stale { error, .. } => Some(error),
        }
    }
}

/// An instance as a snapshot lists it. Dereferences to the [`Instance`].
#[derive(Debug, Clone)]
pub struct Listed {
    instance: Arc<Instance>,
    held: bool,
}

impl Listed {
    pub(crate) fn new(instance: Arc<Instance>, held: bool) -> Self {
        Self { instance, held }
    }

    /// The instance, to keep.
    #[must_use]
    pub fn instance(&self) -> &Arc<Instance> {
        &self.instance
    }

    /// Whether the registry no longer lists it, and only the mass-removal guard keeps it: to be used when no
    /// other instance can be.
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.held
    }
}

impl Deref for Listed {
    type Target = Instance;

    fn deref(&self) -> &Instance {
        &self.instance
    }
}

impl PartialEq for Listed {
    fn eq(&self, other: &Self) -> bool {
        self.held == other.held
            && (Arc::ptr_eq(&self.instance, &other.instance) || self.instance == other.instance)
    }
}

/// The listed instances by id. Persistent, so that one change among 10,000 does not copy the rest.
pub(crate) type Instances = RedBlackTreeMapSync<InstanceId, Listed>;

/// An immutable set of a service's instances, sorted by id, with its revision and freshness.
#[derive(Clone)]
pub struct Snapshot {
    service: ServiceName,
    revision: u64,
    freshness: Freshness,
    instances: Instances,
    skipped: usize,
}

impl Snapshot {
    /// A snapshot of a service that was never listed: what a watch shows first.
    #[must_use]
    pub fn pending(service: ServiceName) -> Self {
        Self {
            service,
            revision: 0,
            freshness: Freshness::Pending { error: None },
            instances: Instances::default(),
            skipped: 0,
        }
    }

    /// The snapshot that follows: one revision on.
    pub(crate) fn next(&self, freshness: Freshness, instances: Instances, skipped: usize) -> Self {
        Self { service: self.service.clone(), revision: self.revision + 1, freshness, instances, skipped }
    }

    /// The service.
    #[must_use]
    pub fn service(&self) -> &ServiceName {
        &self.service
    }

    /// Counts the publishes of this watch, from 0 for the first, pending one; never goes back.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// How fresh it is.
    #[must_use]
    pub fn freshness(&self) -> &Freshness {
        &self.freshness
    }

    /// The instances, sorted by id; those that drain, are down or are held are among them.
    pub fn iter(&self) -> impl Iterator<Item = &Listed> + '_ {
        self.instances.values()
    }

    /// One instance.
    #[must_use]
    pub fn get(&self, id: &InstanceId) -> Option<&Listed> {
        self.instances.get(id)
    }

    /// How many are listed.
    #[must_use]
    pub fn len(&self) -> usize {
        self.instances.size()
    }

    /// Whether none is listed. Says nothing while [`Freshness::Pending`].
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.instances.is_empty()
    }

    /// How many entries of the registry are left out because they cannot be understood.
    #[must_use]
    pub fn skipped(&self) -> usize {
        self.skipped
    }
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshot")
            .field("service", &self.service)
            .field("revision", &self.revision)
            .field("freshness", &self.freshness)
            .field(
                "instances",
                &self.iter().map(|listed| (listed.id(), listed.is_held())).collect::<Vec<_>>(),
            )
            .finish()
    }
}
