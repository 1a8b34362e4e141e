//! [`Instancer`] and [`InstanceWatch`]: following the instances of a service.

use std::fmt::{self, Debug};
use std::sync::Arc;

use tokio::sync::watch;

use crate::error::{Error, ErrorKind, Result};
use crate::model::ServiceName;
use crate::registry::SharedWatch;
use crate::snapshot::Snapshot;

/// Finds the instances of services. Go kit's `sd.Instancer`.
///
/// # Contract
/// - `watch` does no I/O itself and never fails: what cannot be read shows in the watch's
///   [`Freshness`](crate::Freshness).
/// - All watches of a service share one source; the last one to be dropped ends it.
pub trait Instancer: Debug + Send + Sync {
    /// Follows a service, whether or not anything is registered under its name yet.
    fn watch(&self, service: &ServiceName) -> InstanceWatch;
}

/// A subscription to a service: always has the latest snapshot, and waits for the next.
///
/// Late subscribers see the present state at once, bursts coalesce, and a slow reader holds nobody up: it
/// misses what is between and sees the latest. Clones are subscriptions of their own.
#[derive(Clone)]
pub struct InstanceWatch {
    snapshots: watch::Receiver<Arc<Snapshot>>,
    // The last clone to go stops the driver.
    shared: Arc<SharedWatch>,
}

impl InstanceWatch {
    pub(crate) fn new(shared: Arc<SharedWatch>) -> Self {
        Self { snapshots: shared.snapshots(), shared }
    }

    /// The service that is followed.
    #[must_use]
    pub fn service(&self) -> ServiceName {
        self.snapshots.borrow().service().clone()
    }

    /// The latest snapshot, without waiting; [`Pending`](crate::Freshness::Pending) and empty at first.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.snapshots.borrow())
    }

    /// The first snapshot that is not [`Pending`](crate::Freshness::Pending), at once if there is one. Waits
    /// for as long as the registry cannot be listed: put a timeout around it, and look at
    /// [`snapshot`](Self::snapshot) for the reason. Cancel-safe.
    ///
    /// # Errors
    /// [`Closed`](ErrorKind::Closed), once the registry has been closed.
    pub async fn ready(&mut self) -> Result<Arc<Snapshot>> {
        let service = self.service();
        match self.snapshots.wait_for(|snapshot| !snapshot.freshness().is_pending()).await {
            Ok(snapshot) => Ok(Arc::clone(&snapshot)),
            Err(_) => Err(closed(&service)),
        }
    }

    /// The next snapshot that this handle has not returned yet, at once if there is one. What came between is
    /// skipped. Cancel-safe.
    ///
    /// # Errors
    /// [`Closed`](ErrorKind::Closed), once the registry has been closed.
    pub async fn changed(&mut self) -> Result<Arc<Snapshot>> {
        match self.snapshots.changed().await {
            Ok(()) => Ok(Arc::clone(&self.snapshots.borrow_and_update())),
            Err(_) => Err(closed(&self.service())),
        }
    }
}

fn closed(service: &ServiceName) -> Error {
    Error::new(ErrorKind::Closed, format!("the registry that {service} was watched in has been closed"))
}

impl Debug for InstanceWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InstanceWatch")
            .field("shared", &self.shared)
            .field("snapshot", &self.snapshot())
            .finish()
    }
}
