//! [`Pace`]: spreads the claims of one process, so that a thousand registrations that were lost together do not
//! return together.
//!
//! A registry that does not answer for a while, as when it has only just started, would find all that was asked meanwhile
//! waiting, and be asked for all of it at once. So no more are on their way than may begin in a second: whatever it does,
//! twice that is the most that it is given in any second.

use std::time::Duration;

use tokio::sync::{Mutex, Semaphore, SemaphorePermit};
use tokio::time::{Instant, sleep_until};

#[derive(Debug)]
pub(crate) struct Pace {
    every: Duration,
    /// When the next claim may be made. Held by whoever's turn is next, so that one who gives up costs nobody a turn.
    next: Mutex<Option<Instant>>,
    /// For how many more there is room on the way.
    room: Semaphore,
}

/// Leave to make one claim. While it is held the claim is on its way.
#[derive(Debug)]
pub(crate) struct Turn<'a>(
    #[expect(dead_code, reason = "held, and given back when it is dropped")] Option<SemaphorePermit<'a>>,
);

impl Pace {
    pub(crate) fn new(per_second: u32) -> Self {
        let per_second = per_second.max(1);
        let room = usize::try_from(per_second).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
        Self {
            every: Duration::from_secs(1) / per_second,
            next: Mutex::new(None),
            room: Semaphore::new(room),
        }
    }

    /// Waits for its turn, first come, first served. Cancel-safe.
    pub(crate) async fn turn(&self) -> Turn<'_> {
        // An error: it is closed, which nobody does.
        let room = self.room.acquire().await.ok();
        let mut next = self.next.lock().await;
        if let Some(at) = *next {
            sleep_until(at).await;
        }
        *next = Some(Instant::now() + self.every);
        Turn(room)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::time::sleep;

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

    /// A server that is silent for its first three seconds, and then answers all at once.
    #[tokio::test(start_paused = true)]
    async fn a_server_that_was_silent_is_given_no_more_than_twice_as_much_in_a_second() {
        let (pace, taken) = (Arc::new(Pace::new(100)), Arc::new(AtomicUsize::new(0)));
        let wakes = Instant::now() + Duration::from_secs(3);
        let mut all = tokio::task::JoinSet::new();
        for _ in 0..1000 {
            let (pace, taken) = (Arc::clone(&pace), Arc::clone(&taken));
            all.spawn(async move {
                let _turn = pace.turn().await;
                sleep_until(wakes).await;
                taken.fetch_add(1, Ordering::Relaxed);
            });
        }
        let (mut before, mut most) = (0, 0);
        while before < 1000 {
            sleep(Duration::from_secs(1)).await;
            let now = taken.load(Ordering::Relaxed);
            (before, most) = (now, most.max(now - before));
        }
        assert!((101..=200).contains(&most), "{most} in a second");
        assert!(wakes.elapsed() <= Duration::from_secs(10), "{:?}", wakes.elapsed());
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
