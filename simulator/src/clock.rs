//! [`Clock`]: virtual time, the one that `callsign-lb` reads, and Tokio's, which its tasks sleep by.

use std::cell::Cell;
use std::time::Duration;

use callsign_lb::Tick;

thread_local! {
    static NOW: Cell<Duration> = const { Cell::new(Duration::ZERO) };
}

/// The present moment, for balancers.
pub(crate) fn tick() -> Tick {
    Tick::at(NOW.get())
}

/// Tokio's timers go by milliseconds, so its clock is moved on so often, and not for each event.
const STEP: Duration = Duration::from_millis(1);

/// Virtual time of the runtime on this thread, whose own clock is paused.
#[derive(Debug, Default)]
pub(crate) struct Clock {
    /// How far Tokio's clock has come.
    moved: Duration,
}

impl Clock {
    /// Moves on to a moment, and lets the tasks run whose time has come or who were told something meanwhile.
    pub(crate) async fn advance(&mut self, to: Duration) {
        NOW.set(to);
        let gap = to.saturating_sub(self.moved);
        if gap >= STEP {
            self.moved = to;
            tokio::time::advance(gap).await;
        }
    }
}
