//! [`Fixture`]: a registry to test, with everything that can be done to it, and [`Caps`]: what may be expected of it.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::net::SocketAddr;
use std::time::Duration;

use async_trait::async_trait;
use callsign_core::{Error, ErrorKind, Instance, InstanceId, Registry, Result, ServiceName};

use crate::proxy::Proxy;

/// A set of conformance cases that a fixture runs whole, or says why it cannot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Group {
    /// Following a service.
    Watching,
    /// Publishing, leaving, and following what others publish.
    Registering,
    /// Entries that expire, and that their registry forgets.
    Leasing,
    /// Entries written, read and deleted by others than callsign.
    Raw,
    /// A server that is killed, paused and wiped, and a link that is cut.
    Outage,
}

/// What a second claim of an id does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SecondClaim {
    /// It takes the id over, and the first owner knows within this time.
    TakesOver(Duration),
    /// It is an error, since the owner is provably alive.
    Conflict,
}

/// What may be expected of a fixture's registry: which groups of cases apply, and within which bounds.
#[derive(Debug, Clone)]
pub struct Caps {
    /// The groups that do not apply.
    pub lacks: Vec<Group>,
    /// What a second claim of an id does.
    pub second_claim: SecondClaim,
    /// The most time from a write to its being seen, on a busy machine.
    pub visible: Duration,
    /// The shortest TTL that the registry grants; `None` where an entry lives as long as its owner.
    pub ttl: Option<Duration>,
    /// The most time from the end of a TTL to that of its entry, where the server has just been started.
    pub expires: Duration,
    /// Whether all entries of an open registry live by one session, which its client renews for all of them, whatever
    /// their leases are asked: what ends it ends them all, and dead is who is cut off.
    pub one_session: bool,
    /// The most time until an entry that was removed behind its owner's back is back.
    pub restored: Duration,
    /// The most time until a killed server is noticed.
    pub detects_kill: Duration,
    /// The most time until a server that answers nothing is noticed.
    pub detects_silence: Duration,
    /// The most time from the first answer of a server to everything being as it should.
    pub recovers: Duration,
    /// The most time from the first answer of a server to the return of an own entry, and of all that follow it.
    pub back: Duration,
    /// The most time, but for one in a hundred, from a change to its being seen, of a hundred changes a second among
    /// ten thousand instances.
    pub follows: Duration,
    /// How many sorts of malformed entries there are at least; 0 where an entry cannot be malformed.
    pub malformed: usize,
    /// Whether a published instance tells that it drains.
    pub stores_state: bool,
    /// The most bytes of metadata that an instance may have.
    pub metadata: usize,
    /// How many seeds the seeded cases run.
    pub seeds: u64,
}

impl Default for Caps {
    /// A registry inside the process, which keeps its promises at once.
    fn default() -> Self {
        Self {
            lacks: Vec::new(),
            second_claim: SecondClaim::Conflict,
            visible: Duration::from_secs(3),
            ttl: None,
            expires: Duration::from_secs(2),
            one_session: false,
            restored: Duration::from_secs(3),
            detects_kill: Duration::from_secs(2),
            detects_silence: Duration::from_secs(15),
            recovers: Duration::from_secs(6),
            back: Duration::from_secs(6),
            follows: Duration::from_secs(1),
            malformed: 5,
            stores_state: true,
            metadata: Instance::MAX_METADATA,
            seeds: 20,
        }
    }
}

/// Settings that a case wants other than by default: the keys that every registry URL knows.
#[derive(Debug, Clone, Copy, Default)]
pub struct Tuning {
    /// See [`Settings::ttl`](callsign_core::Settings::ttl).
    pub ttl: Option<Duration>,
    /// See [`Settings::grace`](callsign_core::Settings::grace).
    pub grace: Option<Duration>,
    /// See [`Settings::drain`](callsign_core::Settings::drain).
    pub drain: Option<Duration>,
    /// See [`Settings::verify`](callsign_core::Settings::verify).
    pub verify: Option<Duration>,
}

impl Tuning {
    /// As a registry URL says it, without the question mark.
    #[must_use]
    pub fn query(&self) -> String {
        let pairs =
            [("ttl", self.ttl), ("grace", self.grace), ("drain", self.drain), ("verify", self.verify)];
        let pairs: Vec<_> = pairs
            .iter()
            .filter_map(|(key, value)| Some(format!("{key}={}ms", (*value)?.as_millis())))
            .collect();
        pairs.join("&")
    }
}

/// Appends a query to a URL that may have one.
#[must_use]
pub fn with_query(url: &str, query: &str) -> String {
    match (query.is_empty(), url.contains('?')) {
        (true, _) => url.to_owned(),
        (false, true) => format!("{url}&{query}"),
        (false, false) => format!("{url}?{query}"),
    }
}

/// What opens a registry URL: `callsign::open`, or the `open` of one backend.
pub type Open = fn(&str) -> Result<Registry>;

fn inapplicable<T>(what: &str) -> Result<T> {
    Err(Error::new(ErrorKind::Unsupported, format!("this fixture cannot {what}")))
}

/// A registry to test. Each fixture is a registry of its own, in which nothing is registered at first.
///
/// # Contract
/// Of the methods below, those of a group that [`Caps::lacks`] names keep their default and fail with
/// [`Unsupported`](ErrorKind::Unsupported); all others are written.
#[async_trait]
pub trait Fixture: Debug + Send + Sync + 'static {
    /// What may be expected.
    fn caps(&self) -> Caps;

    /// Opens the registry anew, with handles, connections and tasks of its own, as another process would.
    ///
    /// # Errors
    /// It cannot be opened.
    fn open(&self, tuning: &Tuning) -> Result<Registry>;

    /// How many entries a service has: read by other means than callsign, where the registry has a store that
    /// others can read.
    ///
    /// # Errors
    /// It cannot be read.
    async fn count(&self, service: &ServiceName) -> Result<usize> {
        let mut watch = self.open(&Tuning::default())?.watch(service);
        Ok(watch.ready().await?.len())
    }

    /// Raw: publishes an entry as somebody else would, with no lease.
    ///
    /// # Errors
    /// It cannot be written.
    async fn inject(&self, _service: &ServiceName, _id: &InstanceId, _address: &str) -> Result<()> {
        inapplicable("publish entries as somebody else")
    }

    /// Raw: publishes all sorts of entries that nobody can understand, and returns how many.
    ///
    /// # Errors
    /// They cannot be written.
    async fn inject_malformed(&self, _service: &ServiceName) -> Result<usize> {
        inapplicable("publish malformed entries")
    }

    /// Raw: deletes an entry, whoever owns it.
    ///
    /// # Errors
    /// It is not there, or cannot be deleted.
    async fn delete(&self, _service: &ServiceName, _id: &InstanceId) -> Result<()> {
        inapplicable("delete entries as somebody else")
    }

    /// Leasing: makes the registry forget the lease of an entry.
    ///
    /// # Errors
    /// It is not there, or has no lease.
    async fn revoke(&self, _service: &ServiceName, _id: &InstanceId) -> Result<()> {
        inapplicable("revoke leases")
    }

    /// Outage: starts the server and waits until it answers.
    ///
    /// # Errors
    /// It does not start.
    async fn start(&self) -> Result<()> {
        inapplicable("be started")
    }

    /// Outage: kills the server; its data stays.
    ///
    /// # Errors
    /// It has no server.
    async fn kill(&self) -> Result<()> {
        inapplicable("be killed")
    }

    /// Outage: freezes the server.
    ///
    /// # Errors
    /// It does not run.
    async fn pause(&self) -> Result<()> {
        inapplicable("be paused")
    }

    /// Outage: lets the server go on.
    ///
    /// # Errors
    /// It does not run.
    async fn resume(&self) -> Result<()> {
        inapplicable("be resumed")
    }

    /// Outage: kills the server and takes its data away.
    ///
    /// # Errors
    /// It has no server.
    async fn wipe(&self) -> Result<()> {
        inapplicable("be wiped")
    }

    /// Outage: the link between all that [`open`](Self::open) opens and the server.
    ///
    /// # Errors
    /// There is none.
    fn link(&self) -> Result<&Proxy> {
        inapplicable("cut its link")
    }
}

/// A fixture whose server is reached over links, for the rows of the fault matrix.
#[async_trait]
pub trait Served: Fixture + Sized {
    /// Starts a server.
    ///
    /// # Panics
    /// It cannot be found or started.
    async fn start_with(open: Open) -> Self;

    /// The registry's URL, through a link.
    fn url_via(&self, addr: SocketAddr) -> String;

    /// Another link to the same server.
    ///
    /// # Panics
    /// No port can be listened on.
    async fn another_link(&self) -> Proxy;

    /// Opens the registry through a link.
    ///
    /// # Errors
    /// It cannot be opened.
    fn open_via(&self, link: &Proxy, tuning: &Tuning) -> Result<Registry>;

    /// The entries of a service, each with what is another once it was registered anew.
    ///
    /// # Errors
    /// They cannot be read.
    async fn written(&self, service: &ServiceName) -> Result<BTreeSet<(String, String)>>;

    /// Writes entries as others would who have many: number `n` has an address of its own and the metadata `at`.
    ///
    /// # Errors
    /// They cannot be written.
    async fn write_many(&self, service: &ServiceName, numbers: &[usize], at: u64) -> Result<()>;

    /// How many entries of a service whoever is talked to has taken, even if it passes them on later.
    ///
    /// # Errors
    /// They cannot be counted.
    async fn taken(&self, service: &ServiceName) -> Result<usize> {
        self.count(service).await
    }

    /// Deletes all entries of a service, and returns how many there were.
    ///
    /// # Errors
    /// They cannot be deleted.
    async fn delete_all(&self, service: &ServiceName) -> Result<usize>;
}

/// A registry that a URL names and that needs no server.
#[derive(Debug)]
pub struct UrlFixture {
    url: String,
    open: Open,
    caps: Caps,
    // Keeps what belongs to the URL alive.
    _keep: Box<dyn Keep>,
}

/// What a fixture keeps until it ends.
pub trait Keep: Debug + Send + Sync + 'static {}
impl<T: Debug + Send + Sync + 'static> Keep for T {}

impl UrlFixture {
    /// The registry that `url` names; `keep` is dropped with the fixture.
    pub fn new(url: impl Into<String>, open: Open, caps: Caps, keep: impl Keep) -> Self {
        Self { url: url.into(), open, caps, _keep: Box::new(keep) }
    }

    /// A `memory:` registry of its own.
    ///
    /// # Panics
    /// It cannot be opened.
    #[must_use]
    pub fn memory(open: Open) -> Self {
        let url = format!("memory:fixture-{:016x}", fastrand::u64(..));
        let lacks = vec![Group::Leasing, Group::Raw, Group::Outage];
        // The store lives as long as somebody has it open.
        let keep = open(&url).expect("a memory: registry opens");
        Self::new(url, open, Caps { lacks, ..Caps::default() }, keep)
    }

    /// A `static:` registry with two instances of `listed`.
    #[must_use]
    pub fn fixed(open: Open) -> Self {
        let lacks = vec![Group::Registering, Group::Leasing, Group::Raw, Group::Outage];
        Self::new("static:listed=10.0.0.1:1,[::1]:2", open, Caps { lacks, ..Caps::default() }, ())
    }
}

#[async_trait]
impl Fixture for UrlFixture {
    fn caps(&self) -> Caps {
        self.caps.clone()
    }

    fn open(&self, tuning: &Tuning) -> Result<Registry> {
        // A fixed list has nothing to tune.
        let query =
            if self.caps.lacks.contains(&Group::Registering) { String::new() } else { tuning.query() };
        (self.open)(&with_query(&self.url, &query))
    }
}
