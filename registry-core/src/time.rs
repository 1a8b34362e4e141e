//! Times far ahead: a duration that says "never" must not overflow a clock.

use std::time::Duration;

use tokio::time::Instant;

/// As good as never, and no clock's end.
const FAR: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// So long after a moment, ten years at the most.
pub(crate) fn after(moment: Instant, pause: Duration) -> Instant {
    moment + pause.min(FAR)
}

/// So long from now, ten years at the most.
pub(crate) fn from_now(pause: Duration) -> Instant {
    after(Instant::now(), pause)
}
