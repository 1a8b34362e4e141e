//! [`Away`]: whether a session that is not connected is to be asked for.
//!
//! Who asks for a session takes it from its client: where another server has let that one in meanwhile, it loses its
//! connection at its next write. Where answers take long it would never get further, if it were asked for each time.

use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::time::Instant;
use zookeeper_client::{Client, StateWatcher};

use crate::session::PROBE;

/// The longest that a client is waited for.
const LONGEST: Duration = Duration::from_secs(8);

/// A client that was not connected when it was looked at last.
pub(crate) struct Away {
    session: i64,
    /// Tells whether it was back since.
    states: StateWatcher,
    /// Since when it is away, or when it was last asked for.
    since: Instant,
    asked: bool,
    /// How long it may take to return.
    patience: Duration,
}

impl Away {
    fn new(client: &Client, patience: Duration) -> Self {
        let (session, states) = (client.session_id().0, client.state_watcher());
        Self { session, states, since: Instant::now(), asked: false, patience }
    }

    /// Whether the session of a client that is not connected is to be asked for now.
    pub(crate) fn is_to_be_asked_for(known: &mut Option<Self>, client: &Client) -> bool {
        let Some(away) = known.as_mut().filter(|away| away.session == client.session_id().0) else {
            *known = Some(Self::new(client, PROBE));
            return false;
        };
        if away.was_back() {
            // It was asked for too early, and had been about to return.
            let patience = if away.asked { LONGEST.min(away.patience * 2) } else { away.patience };
            *away = Self::new(client, patience);
            return false;
        }
        if away.since.elapsed() < away.patience {
            return false;
        }
        (away.since, away.asked) = (Instant::now(), true);
        true
    }

    fn was_back(&mut self) -> bool {
        let mut context = Context::from_waker(Waker::noop());
        matches!(pin!(self.states.changed()).poll(&mut context), Poll::Ready(_))
    }
}
