//! [`Settings`]: what both drivers keep to, the same for every registry, each with the reason for its default.

use std::time::Duration;

use crate::error::{Error, Result};
use crate::url::Query;

/// Times and rates of a registry's two drivers. A backend starts from [`Settings::default`], changes what its
/// registry needs otherwise, and lets the URL's keys `ttl`, `grace`, `drain` and `verify` have the last word.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Settings {
    /// How long an entry outlives its last renewal: the time until a crash is seen. URL key `ttl`; 10 s.
    pub ttl: Duration,
    /// How long an unannounced loss of more than half of a service is held back. URL key `grace`; 30 s. Zero
    /// switches the guard off, where a removal is proof of death.
    pub grace: Duration,
    /// How long a leaving instance keeps serving after it said so. URL key `drain`; 2 s.
    pub drain: Duration,
    /// How often an own entry is read back, spread by a fifth. URL key `verify`; 30 s.
    pub verify: Duration,
    /// How often a watched service is listed anew although nothing failed, spread by a fifth; 5 min.
    pub relist: Duration,
    /// The most that one exchange with the server may take; 5 s.
    pub request_timeout: Duration,
    /// How long `register` waits for the first publish; 10 s.
    pub register_timeout: Duration,
    /// The least time between two publishes of one watch; 100 ms. The first change goes out at once.
    pub publish_interval: Duration,
    /// How many claims a second all registrations of this registry make together, and how many of them may be without an
    /// answer at a time; 100.
    pub claims_per_second: u32,
    /// The first and the largest pause between attempts, each taken at random between zero and its value;
    /// 100 ms and 5 s.
    pub backoff: (Duration, Duration),
    /// Fixes the random numbers, for tests.
    pub seed: Option<u64>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            ttl: Duration::from_secs(10),
            grace: Duration::from_secs(30),
            drain: Duration::from_secs(2),
            verify: Duration::from_secs(30),
            relist: Duration::from_secs(300),
            request_timeout: Duration::from_secs(5),
            register_timeout: Duration::from_secs(10),
            publish_interval: Duration::from_millis(100),
            claims_per_second: 100,
            backoff: (Duration::from_millis(100), Duration::from_secs(5)),
            seed: None,
        }
    }
}

impl Settings {
    /// These settings with what a URL says otherwise: `ttl` from 1 s, `verify` from 100 ms, `grace` and `drain`
    /// from zero, each up to a day. To be called before [`Query::finish`], which refuses what nobody took.
    ///
    /// # Errors
    /// [`Invalid`](crate::ErrorKind::Invalid): a value that is no duration, or outside its bounds.
    pub fn with_query(mut self, query: &mut Query) -> Result<Self> {
        for (key, slot, least) in [
            ("ttl", &mut self.ttl, Duration::from_secs(1)),
            ("grace", &mut self.grace, Duration::ZERO),
            ("drain", &mut self.drain, Duration::ZERO),
            ("verify", &mut self.verify, Duration::from_millis(100)),
        ] {
            if let Some(value) = query.duration(key)? {
                let most = Duration::from_secs(24 * 3600);
                if value < least || value > most {
                    return Err(Error::invalid(format!(
                        "registry URL has {key}={}: {key} is {} to {}",
                        humantime::format_duration(value),
                        humantime::format_duration(least),
                        humantime::format_duration(most)
                    )));
                }
                *slot = value;
            }
        }
        Ok(self)
    }

    pub(crate) fn rng(&self) -> fastrand::Rng {
        self.seed.map_or_else(fastrand::Rng::new, fastrand::Rng::with_seed)
    }
}
