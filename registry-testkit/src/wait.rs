//! Waiting for a condition with a deadline, instead of sleeping and hoping.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use callsign_core::{Error, InstanceWatch, Registration, Snapshot, Status};
use tokio::time::{Instant, sleep, timeout};

/// Waits until `holds`, and returns how long it took.
///
/// # Panics
/// It does not within `within`.
pub async fn eventually(within: Duration, what: &str, mut holds: impl AsyncFnMut() -> bool) -> Duration {
    let start = Instant::now();
    while !holds().await {
        assert!(start.elapsed() < within, "not within {within:?}: {what}");
        sleep(Duration::from_millis(10)).await;
    }
    start.elapsed()
}

/// Waits for a snapshot for which `holds`, and returns it.
///
/// # Panics
/// There is none within `within`, or the watch ends; the message shows the last snapshot.
pub async fn until(
    watch: &mut InstanceWatch,
    within: Duration,
    what: &str,
    mut holds: impl FnMut(&Snapshot) -> bool,
) -> Arc<Snapshot> {
    let found = timeout(within, async {
        // What has been seen already may do.
        let mut snapshot = watch.snapshot();
        while !holds(&snapshot) {
            snapshot = watch.changed().await?;
        }
        Ok::<_, Error>(snapshot)
    });
    match found.await {
        Ok(Ok(snapshot)) => snapshot,
        Ok(Err(error)) => panic!("the watch ended before this: {what}: {}", error.chain()),
        Err(_) => panic!("not within {within:?}: {what}; last seen: {:?}", watch.snapshot()),
    }
}

/// Waits for a status for which `holds`, and returns it.
///
/// # Panics
/// There is none within `within`; the message shows the last one.
pub async fn until_status(
    registration: &mut Registration,
    within: Duration,
    what: &str,
    holds: impl Fn(&Status) -> bool,
) -> Status {
    let found = timeout(within, async {
        let mut status = registration.status();
        while !holds(&status) {
            status = registration.status_changed().await;
        }
        status
    });
    match found.await {
        Ok(status) => status,
        Err(_) => panic!("not within {within:?}: {what}; last status: {:?}", registration.status()),
    }
}

/// The value of what must succeed.
///
/// # Panics
/// It did not; the message has the error with all of its causes.
pub fn ok<T>(result: callsign_core::Result<T>, what: impl Debug) -> T {
    result.unwrap_or_else(|error| panic!("{what:?}: {}", error.chain()))
}
