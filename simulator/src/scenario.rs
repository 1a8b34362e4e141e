//! [`Scenario`]: how many servers and clients there are, what they do, and what goes wrong.

use std::time::Duration;

/// Servers, clients, load and troubles.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Scenario {
    /// How many servers there are. Each works on four calls at a time, and takes 10 ms for one on average.
    pub servers: usize,
    /// How many clients, each with a balancer of its own.
    pub clients: usize,
    /// How long it lasts.
    pub lasts: Duration,
    /// What all clients together ask for, as a share of what all servers can do when they are well.
    pub load: f64,
    /// What goes wrong.
    pub troubles: Vec<(usize, Trouble)>,
    /// Whether somebody else's work wanders over the servers.
    pub antagonist: Option<Antagonist>,
}

/// What is wrong with a server.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum Trouble {
    /// It takes so many times as long as the others, always.
    Slow(f64),
    /// It answers every call at once with an error, from one moment to another.
    Fails(Duration, Duration),
    /// It does nothing at all, from one moment to another, as a process that was stopped.
    Paused(Duration, Duration),
}

/// Work of others that wanders: a share of the servers is slower for a while, then another share.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Antagonist {
    /// How long it stays on the same servers.
    pub stays: Duration,
    /// Which share of the servers it is on.
    pub share: f64,
    /// How many times as long a call takes there.
    pub slower: f64,
}

const SECOND: Duration = Duration::from_secs(1);

/// Which server of [`Scenario::troubled`] fails.
pub(crate) const FAILING: usize = 3;

impl Scenario {
    /// Twenty servers at 60 % load for a minute. Three are three times slower than the others, one does nothing from second 10 to
    /// second 15, and one answers every call with an error at once from second 20 to second 40.
    #[must_use]
    pub fn troubled(clients: usize) -> Self {
        let slow = (0..FAILING).map(|server| (server, Trouble::Slow(3.0)));
        let others = [
            (FAILING, Trouble::Fails(20 * SECOND, 40 * SECOND)),
            (FAILING + 1, Trouble::Paused(10 * SECOND, 15 * SECOND)),
        ];
        Self {
            servers: 20,
            clients,
            lasts: 60 * SECOND,
            load: 0.6,
            troubles: slow.chain(others).collect(),
            antagonist: None,
        }
    }

    /// A hundred servers and a hundred clients at 70 % load for 20 s. One server in five is twice as slow, another fifth every
    /// two seconds.
    #[must_use]
    pub fn wandering() -> Self {
        Self {
            servers: 100,
            clients: 100,
            lasts: 20 * SECOND,
            load: 0.7,
            troubles: Vec::new(),
            antagonist: Some(Antagonist { stays: 2 * SECOND, share: 0.2, slower: 2.0 }),
        }
    }

    /// From when to when a server answers with errors.
    pub(crate) fn failing(&self, server: usize) -> Option<(Duration, Duration)> {
        self.troubles.iter().find_map(|(of, trouble)| match trouble {
            Trouble::Fails(from, to) if *of == server => Some((*from, *to)),
            _ => None,
        })
    }

    /// From when to when a server does nothing.
    pub(crate) fn pause(&self, server: usize) -> Option<(Duration, Duration)> {
        self.troubles.iter().find_map(|(of, trouble)| match trouble {
            Trouble::Paused(from, to) if *of == server => Some((*from, *to)),
            _ => None,
        })
    }

    /// How many times as long a server always takes.
    pub(crate) fn slowness(&self, server: usize) -> f64 {
        let slow = self.troubles.iter().filter_map(|(of, trouble)| match trouble {
            Trouble::Slow(times) if *of == server => Some(*times),
            _ => None,
        });
        slow.product()
    }
}
