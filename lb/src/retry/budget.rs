//! [`Budget`]: how many calls may be made again, of all that are made.

use std::fmt::{self, Debug};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// How many attempts may be repeats, so that a service which fails for all is not called many times over by all: a share
/// of the calls, and some a second beside, as Finagle's and linkerd's budgets have it.
///
/// What is not used is kept for a while and fades: after [`window`](Self::window) without calls nothing is left but what
/// those seconds bring by themselves. Clones have one account between them. It takes no lock.
///
/// ```
/// use std::time::Duration;
///
/// use callsign_lb::Budget;
///
/// let one_in_ten = Budget::default().share(0.1).per_second(1).window(Duration::from_secs(5));
/// ```
#[derive(Clone)]
pub struct Budget {
    share: f32,
    per_second: f32,
    window: Duration,
    opened: Instant,
    account: Arc<AtomicU64>,
}

/// What there is, and the moment of which that is true, in milliseconds since the account was opened. One word, so that they are one.
#[derive(Debug, Clone, Copy)]
struct Balance {
    credit: f32,
    at: u32,
}

impl Balance {
    fn to_bits(self) -> u64 {
        u64::from(self.credit.to_bits()) << 32 | u64::from(self.at)
    }

    #[allow(clippy::cast_possible_truncation, reason = "the halves of a word")]
    fn from_bits(bits: u64) -> Self {
        Self { credit: f32::from_bits((bits >> 32) as u32), at: bits as u32 }
    }
}

impl Default for Budget {
    /// A fifth of the calls, and ten a second beside, kept for 10 s.
    fn default() -> Self {
        Self {
            share: 0.2,
            per_second: 10.0,
            window: Duration::from_secs(10),
            opened: Instant::now(),
            account: Arc::default(),
        }
        .full()
    }
}

impl Budget {
    /// How many repeats there may be for each call, from 0 to 1000; 0.2.
    #[must_use]
    pub fn share(self, of_calls: f32) -> Self {
        let share = if of_calls.is_nan() { 0.0 } else { of_calls.clamp(0.0, 1000.0) };
        Self { share, ..self }.full()
    }

    /// How many repeats a second there may be beside, however few calls are made; 10.
    #[must_use]
    pub fn per_second(self, repeats: u16) -> Self {
        Self { per_second: f32::from(repeats), ..self }.full()
    }

    /// For how long it is kept what is not used, 1 s at least; 10 s.
    #[must_use]
    pub fn window(self, time: Duration) -> Self {
        // Before the milliseconds of the account wrap around.
        Self { window: time.clamp(Duration::from_secs(1), Duration::from_secs(86_400)), ..self }.full()
    }

    /// An account of its own, with all that time alone brings.
    fn full(self) -> Self {
        let balance = Balance { credit: self.most_unused(), at: 0 };
        Self { opened: Instant::now(), account: Arc::new(AtomicU64::new(balance.to_bits())), ..self }
    }

    #[allow(clippy::cast_possible_truncation, reason = "wrapping around is meant; only differences count")]
    fn now(&self) -> u32 {
        self.opened.elapsed().as_millis() as u32
    }

    fn most_unused(&self) -> f32 {
        self.per_second * self.window.as_secs_f32()
    }

    /// What there is at this moment: each part of it fades with the window, towards what time alone brings.
    fn at(&self, balance: Balance, now: u32) -> Balance {
        let passed = now.wrapping_sub(balance.at);
        // Somebody else was later.
        if passed == 0 || passed > u32::MAX / 2 {
            return balance;
        }
        let kept = (-(passed as f32 / 1000.0) / self.window.as_secs_f32()).exp();
        let rest = self.most_unused();
        Balance { credit: rest + (balance.credit - rest) * kept, at: now }
    }

    fn change(&self, by: f32) -> bool {
        let now = self.now();
        self.account
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |bits| {
                let balance = self.at(Balance::from_bits(bits), now);
                let credit = balance.credit + by;
                (by > 0.0 || credit >= 0.0).then(|| Balance { credit, ..balance }.to_bits())
            })
            .is_ok()
    }

    /// A call is made.
    pub(super) fn deposit(&self) {
        if self.share > 0.0 {
            self.change(self.share);
        }
    }

    /// Whether it may be made again, which is paid for.
    pub(super) fn withdraw(&self) -> bool {
        self.change(-1.0)
    }
}

impl Debug for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let left = self.at(Balance::from_bits(self.account.load(Ordering::Relaxed)), self.now());
        f.debug_struct("Budget")
            .field("share", &self.share)
            .field("per_second", &self.per_second)
            .field("window", &self.window)
            .field("left", &left.credit)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    fn repeats(budget: &Budget) -> u32 {
        let mut repeats = 0;
        while budget.withdraw() {
            repeats += 1;
        }
        repeats
    }

    /// Rust peers 13: a share of 0.6 is one of 0.6, over a minute of calls all of which would be made again.
    #[tokio::test(start_paused = true)]
    async fn no_more_than_the_share_is_issued() {
        for (share, per_second) in [(0.6, 0), (0.2, 10), (0.0, 0), (1.0, 0)] {
            let budget = Budget::default().share(share).per_second(per_second);
            let before = repeats(&budget);
            assert_eq!(before, u32::from(per_second) * 10);
            let (mut calls, mut again) = (0, 0);
            for _ in 0..60_000 {
                advance(Duration::from_millis(1)).await;
                budget.deposit();
                calls += 1;
                again += repeats(&budget);
            }
            let allowed = calls as f32 * share + f32::from(per_second) * 60.0;
            assert!(
                again as f32 <= allowed + 1.0 && again as f32 >= allowed * 0.99 - 1.0,
                "{again} of {allowed}"
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_not_used_fades() {
        let budget = Budget::default().per_second(0);
        for _ in 0..10_000 {
            budget.deposit();
        }
        advance(Duration::from_secs(10)).await;
        let left = repeats(&budget);
        assert!((730..=740).contains(&left), "of 2,000 after a window: {left}");
        advance(Duration::from_secs(1000)).await;
        assert_eq!(repeats(&budget), 0);
        let budget = Budget::default().per_second(3);
        repeats(&budget);
        advance(Duration::from_secs(1000)).await;
        assert!((29..=30).contains(&repeats(&budget)));
    }

    #[tokio::test(start_paused = true)]
    async fn clones_have_one_account_and_odd_settings_are_none() {
        let budget = Budget::default();
        let other = budget.clone();
        assert_eq!((repeats(&budget), repeats(&other)), (100, 0));
        for share in [f32::NAN, -1.0, f32::NEG_INFINITY] {
            let none = Budget::default().per_second(0).share(share).window(Duration::ZERO);
            none.deposit();
            assert_eq!(repeats(&none), 0);
        }
        let much = Budget::default().share(f32::INFINITY).window(Duration::MAX);
        much.deposit();
        assert!(much.withdraw());
        assert!(format!("{much:?}").contains("left: "));
    }

    #[test]
    fn threads_lose_nothing() {
        let budget = Budget::default().per_second(0).share(1.0).window(Duration::from_secs(86_400));
        let issued = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..1000 {
                        budget.deposit();
                        issued.fetch_add(u64::from(budget.withdraw()), Ordering::Relaxed);
                    }
                });
            }
        });
        let issued = issued.into_inner() + u64::from(repeats(&budget));
        // Some of it may have faded.
        assert!((3_990..=4_000).contains(&issued), "{issued}");
    }
}
