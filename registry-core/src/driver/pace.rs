//! [`Pace`]: spreads the claims of one process, so that a thousand registrations that were lost together do not
//! return together.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

#[derive(Debug)]
pub(crate) struct Pace {
    every: Duration,
    next: Mutex<Option<Instant>>,
}

impl Pace {
    pub(crate) fn new(per_second: u32) -> Self {
        Self { every: Duration::from_secs(1) / per_second.max(1), next: Mutex::new(None) }
    }

    /// Waits for its turn. Cancel-safe; a turn that is not used is lost, which only slows the others down.
    pub(crate) async fn turn(&self) {
        let at = {
            let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
            let at = next.map_or_else(Instant::now, |next| next.max(Instant::now()));
            *next = Some(at + self.every);
            at
        };
        tokio::time::sleep_until(at).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_thousand_take_ten_seconds() {
        let pace = Pace::new(100);
        let start = Instant::now();
        for _ in 0..1000 {
            pace.turn().await;
        }
        let took = start.elapsed();
        assert!(took >= Duration::from_millis(9_900) && took <= Duration::from_secs(12), "{took:?}");
    }
}
