//! [`Pace`]: spreads the claims of one process, so that a thousand registrations that were lost together do not
//! return together.

use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::{Instant, sleep_until};

#[derive(Debug)]
pub(crate) struct Pace {
    every: Duration,
    /// When the next claim may be made. Held by whoever's turn is next, so that one who gives up costs nobody a turn.
    next: Mutex<Option<Instant>>,
}

impl Pace {
    pub(crate) fn new(per_second: u32) -> Self {
        Self { every: Duration::from_secs(1) / per_second.max(1), next: Mutex::new(None) }
    }

    /// Waits for its turn, first come, first served. Cancel-safe.
    pub(crate) async fn turn(&self) {
        let mut next = self.next.lock().await;
        if let Some(at) = *next {
            sleep_until(at).await;
        }
        *next = Some(Instant::now() + self.every);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

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

    /// Two thousand ask, and a thousand of them give up: who asks then must not wait for their turns.
    #[tokio::test(start_paused = true)]
    async fn whoever_gives_up_costs_no_turn() {
        let pace = Arc::new(Pace::new(100));
        let mut all = tokio::task::JoinSet::new();
        for _ in 0..2000 {
            let pace = Arc::clone(&pace);
            all.spawn(
                async move { tokio::time::timeout(Duration::from_secs(10), pace.turn()).await.is_ok() },
            );
        }
        let had = all.join_all().await.into_iter().filter(|had| *had).count();
        assert!((700..=1001).contains(&had), "{had}");
        let start = Instant::now();
        pace.turn().await;
        assert!(start.elapsed() <= Duration::from_millis(20), "{:?}", start.elapsed());
    }
}
