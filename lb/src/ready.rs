//! [`ReadySet`]: what can be picked now, or why nothing can.

use std::fmt::{self, Debug};

use callsign_core::{Error, ServiceName};

use crate::error::{DialErrors, PickError};
use crate::slots::Slots;

/// The endpoints that can be picked, immutable, sorted by instance id.
///
/// It has the instances of the best tier that has a ready one, and those only:
/// 1. up and confirmed by the registry;
/// 2. up, and only held because the registry lost many at once;
/// 3. draining;
/// 4. of weight 0.
///
/// Instances that are down are in none.
pub struct ReadySet<E> {
    service: ServiceName,
    slots: Slots<E>,
    lack: Lack,
}

/// Why a ready set is empty.
#[derive(Debug, Clone)]
pub(crate) enum Lack {
    Pending(Option<Error>),
    Connecting(usize, Option<Error>),
    Empty(usize, Option<Error>),
    Unreachable(DialErrors),
    Closed,
}

impl<E> ReadySet<E> {
    pub(crate) fn new(service: ServiceName, slots: Slots<E>, lack: Lack) -> Self {
        Self { service, slots, lack }
    }

    pub(crate) fn empty(service: ServiceName, lack: Lack) -> Self {
        Self::new(service, Slots::none(), lack)
    }

    /// The service.
    #[must_use]
    pub fn service(&self) -> &ServiceName {
        &self.service
    }

    /// What can be picked.
    #[must_use]
    #[inline]
    pub fn slots(&self) -> &Slots<E> {
        &self.slots
    }

    /// How many can be picked.
    #[must_use]
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether none can be picked.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Why none can be picked; `None` if one can.
    #[must_use]
    pub fn error(&self) -> Option<PickError> {
        self.is_empty().then(|| self.lack())
    }

    /// What to say when nothing in the set could be used. Where the set is not empty, all of it closed a moment
    /// ago, and is being dialled anew.
    pub(crate) fn lack(&self) -> PickError {
        let service = self.service.clone();
        if !self.slots.is_empty() {
            return PickError::NotYet { service, connecting: self.slots.len(), source: None };
        }
        match self.lack.clone() {
            Lack::Pending(source) => PickError::NotYet { service, connecting: 0, source },
            Lack::Connecting(connecting, source) => PickError::NotYet { service, connecting, source },
            Lack::Empty(listed, source) => PickError::Empty { service, listed, source },
            Lack::Unreachable(source) => PickError::Unreachable { service, source },
            Lack::Closed => PickError::Closed { service },
        }
    }

    /// Whether a handle that has this set would do the same with `other`.
    pub(crate) fn same(&self, other: &Self) -> bool {
        if !self.slots.is_empty() || !other.slots.is_empty() {
            return self.slots.same(&other.slots);
        }
        match (&self.lack, &other.lack) {
            (Lack::Pending(a), Lack::Pending(b)) => same_error(a.as_ref(), b.as_ref()),
            (Lack::Connecting(n, a), Lack::Connecting(m, b)) | (Lack::Empty(n, a), Lack::Empty(m, b)) => {
                n == m && same_error(a.as_ref(), b.as_ref())
            }
            (Lack::Closed, Lack::Closed) => true,
            // The errors of later dials are news.
            _ => false,
        }
    }
}

fn same_error(a: Option<&Error>, b: Option<&Error>) -> bool {
    match (a, b) {
        (None, None) => true,
        (Some(a), Some(b)) => a.kind() == b.kind() && a.to_string() == b.to_string(),
        _ => false,
    }
}

impl<E> Debug for ReadySet<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReadySet")
            .field("service", &self.service)
            .field("slots", &self.slots)
            .finish_non_exhaustive()
    }
}
