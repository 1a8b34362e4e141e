//! The contract of [`Source`] and [`Lease`] itself, without the drivers, which would put much of it right.

use std::collections::BTreeMap;
use std::time::Duration;

use callsign_core::testing::{lease, source};
use callsign_core::{
    Claim, ErrorKind, Instance, InstanceId, Kept, Lease, Loss, Removal, Result, ServiceName, Source, Update,
};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::watch::SOON;
use super::{instance, open, service};
use crate::fixture::{Fixture, SecondClaim};
use crate::wait::{eventually, ok};

/// Long enough to see that something does not happen.
const QUIET: Duration = Duration::from_millis(150);

async fn take(lease: &mut dyn Lease, content: &Instance) {
    assert!(ok(lease.claim(Claim::Take, content).await, "claim(Take)").is_some());
}

fn loss_or<T: PartialEq + std::fmt::Debug>(found: &T, allowed: &[T], what: &str) {
    assert!(allowed.contains(found), "{what} said {found:?}, and may say {allowed:?}");
}

/// Waits until etcd, Consul or whoever it is has told, if it tells at all.
async fn told(lease: &mut dyn Lease, within: Duration) -> Option<Loss> {
    timeout(within, lease.lost()).await.ok()
}

/// Keeps an entry alive, for ever.
async fn keep(lease: &mut dyn Lease, ttl: Option<Duration>) -> Option<Loss> {
    let Some(ttl) = ttl else { return std::future::pending().await };
    loop {
        sleep(ttl / 4).await;
        assert_eq!(ok(lease.renew().await, "renew of who is kept"), Kept::Kept);
    }
}

/// The columns "ours" and "absent" of the table of [`Lease`].
pub async fn what_is_ours_and_what_is_absent(fixture: &impl Fixture) {
    let (registry, service) = (open(fixture), service());
    let content = |weight| instance(&service, 1).with_weight(weight);
    let id = content(1).id().clone();
    let mut ours = lease(&registry, &content(1));
    take(&mut *ours, &content(1)).await;
    assert_eq!(fixture.count(&service).await.unwrap(), 1);
    assert_eq!(ok(ours.renew().await, "renew"), Kept::Kept);
    assert_eq!(ok(ours.verify(&content(1)).await, "verify"), Kept::Kept);
    assert_eq!(told(&mut *ours, QUIET).await, None, "nothing is lost");
    assert_eq!(ok(ours.write(&content(2)).await, "write"), Kept::Kept);
    assert_eq!(ok(ours.verify(&content(2)).await, "verify"), Kept::Kept);
    assert_eq!(ok(ours.verify(&content(1)).await, "verify of other content"), Kept::Lost);
    assert!(ok(ours.claim(Claim::Again, &content(3)).await, "claim(Again)").is_some());
    assert_eq!(ok(ours.verify(&content(3)).await, "verify"), Kept::Kept);
    assert!(ok(ours.claim(Claim::Take, &content(4)).await, "claim(Take)").is_some());
    assert_eq!(ok(ours.verify(&content(4)).await, "verify"), Kept::Kept);
    assert_eq!(fixture.count(&service).await.unwrap(), 1);

    ok(registry.remove(&service, &id).await, "remove");
    assert_eq!(fixture.count(&service).await.unwrap(), 0);
    assert_eq!(ok(ours.verify(&content(4)).await, "verify"), Kept::Lost);
    assert_eq!(ok(ours.write(&content(5)).await, "write"), Kept::Lost);
    assert_eq!(fixture.count(&service).await.unwrap(), 0, "write of an absent entry writes nothing");
    loss_or(&ok(ours.renew().await, "renew"), &[Kept::Lost, Kept::Kept], "renew");
    loss_or(&told(&mut *ours, fixture.caps().restored).await, &[Some(Loss::Lost), None], "lost");
    assert!(ok(ours.claim(Claim::Again, &content(6)).await, "claim(Again)").is_some());
    assert_eq!(fixture.count(&service).await.unwrap(), 1);

    for what in ["release", "release again"] {
        ok(ours.release().await, what);
        assert_eq!(fixture.count(&service).await.unwrap(), 0);
    }
    let mut never = lease(&registry, &content(1));
    ok(never.release().await, "release of what was never claimed");
}

/// The column "another's".
pub async fn what_is_anothers_is_left_alone(fixture: &impl Fixture) {
    let (here, there, service) = (open(fixture), open(fixture), service());
    let content = |weight| instance(&service, 1).with_weight(weight);
    let (mut ours, mut theirs) = (lease(&here, &content(1)), lease(&there, &content(2)));
    take(&mut *ours, &content(1)).await;
    if fixture.caps().second_claim == SecondClaim::Conflict {
        let refused = theirs.claim(Claim::Take, &content(2)).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Conflict, "{}", refused.chain());
        ok(theirs.release().await, "release after a claim that failed");
        assert_eq!(ok(ours.verify(&content(1)).await, "verify"), Kept::Kept);
        ok(ours.release().await, "release");
        theirs = lease(&there, &content(2));
    }
    take(&mut *theirs, &content(2)).await;
    let gone = [Kept::Lost, Kept::Superseded];
    let renewed = [Kept::Lost, Kept::Superseded, Kept::Kept];
    for round in 0..2 {
        loss_or(&ok(ours.renew().await, "renew"), &renewed, "renew");
        loss_or(&ok(ours.write(&content(9)).await, "write"), &gone, "write");
        loss_or(&ok(ours.verify(&content(1)).await, "verify"), &gone, "verify");
        assert!(ok(ours.claim(Claim::Again, &content(9)).await, "claim(Again)").is_none(), "round {round}");
        let lost = tokio::select! {
            lost = told(&mut *ours, fixture.caps().restored) => lost,
            never = keep(&mut *theirs, fixture.caps().ttl) => never,
        };
        loss_or(&lost, &[Some(Loss::Lost), Some(Loss::Superseded), None], "lost");
        ok(ours.release().await, "release");
        assert_eq!(fixture.count(&service).await.unwrap(), 1);
        assert_eq!(ok(theirs.verify(&content(2)).await, "their verify"), Kept::Kept);
    }
    ok(theirs.release().await, "release");
}

/// A call that was dropped half way does nothing that outlives the release, and disturbs no later one. Many at a time,
/// so that what was begun gets in each other's way.
pub async fn dropped_calls_come_to_nothing(fixture: &impl Fixture) {
    let registry = open(fixture);
    for round in 0..fixture.caps().seeds {
        let service = service();
        let mut leases = JoinSet::new();
        for n in 0..24 {
            let (content, seed) = (instance(&service, n), round * 100 + u64::from(n));
            let lease = lease(&registry, &content);
            leases.spawn(drop_calls(lease, content, seed));
        }
        leases.join_all().await;
        assert_eq!(fixture.count(&service).await.unwrap(), 0, "round {round}");
        sleep(Duration::from_millis(20)).await;
        assert_eq!(fixture.count(&service).await.unwrap(), 0, "round {round}: what was dropped came late");
    }
}

async fn drop_calls(mut ours: Box<dyn Lease>, content: Instance, seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    let content = |weight| content.clone().with_weight(weight);
    // Often none at all: the call is polled once, and the next one races with what it has begun.
    let mut pause = || Duration::from_micros(random.u64(0..3000).saturating_sub(1500));
    let _ = timeout(pause(), ours.claim(Claim::Take, &content(1))).await;
    if seed.is_multiple_of(2) {
        assert!(ok(ours.claim(Claim::Again, &content(2)).await, "claim(Again)").is_some(), "seed {seed}");
        let _ = timeout(pause(), ours.write(&content(3))).await;
        let _ = timeout(pause(), ours.renew()).await;
        let _ = timeout(pause(), ours.verify(&content(3))).await;
        assert_eq!(ok(ours.write(&content(4)).await, "write"), Kept::Kept, "seed {seed}");
        // A write that was dropped must not come after one that was not.
        sleep(Duration::from_millis(5)).await;
        assert_eq!(ok(ours.verify(&content(4)).await, "verify"), Kept::Kept, "seed {seed}");
        let _ = timeout(pause(), ours.write(&content(5))).await;
    }
    ok(ours.release().await, "release");
}

/// An owner that stops renewing is dead: to itself, to others, and in the lists. That it is gone is no announcement.
pub async fn what_is_not_renewed_expires(fixture: &impl Fixture) {
    let ttl = fixture.caps().ttl.expect("a registry of leases has a TTL");
    let (here, there, service) = (open(fixture), open(fixture), service());
    let content = instance(&service, 1);
    let mut ours = lease(&here, &content);
    let terms = ok(ours.claim(Claim::Take, &content).await, "claim").expect("Take is never refused");
    let granted = terms.ttl.expect("an entry that expires has a TTL");
    assert!(granted >= ttl && granted <= ttl * 2, "asked for {ttl:?}, told {granted:?}");
    let mut follows = Followed::new(source(&there, &service));
    follows.until(SOON, |set| set.len() == 1).await;
    // Where the client renews for its leases, only a link that is cut keeps it from doing so.
    let cut = fixture.caps().one_session.then(|| fixture.link().unwrap());
    cut.inspect(|link| link.blackhole());
    let gone = async || fixture.count(&service).await.unwrap() == 0;
    eventually(granted + fixture.caps().expires, "it has expired", gone).await;
    if let Some(link) = cut {
        link.heal();
        follows.resumes(fixture.caps().recovers).await;
        let lost = async || ours.renew().await.is_ok_and(|kept| kept == Kept::Lost);
        eventually(fixture.caps().recovers, "its owner knows", lost).await;
    }
    follows.until(SOON, BTreeMap::is_empty).await;
    assert_eq!(follows.announced, 0, "a crash is no announcement");
    assert!(!ok(there.services().await, "services").contains(&service));
    let removed = there.remove(&service, content.id()).await.unwrap_err();
    assert_eq!(removed.kind(), ErrorKind::NotFound, "{}", removed.chain());
    assert_eq!(ok(ours.renew().await, "renew"), Kept::Lost);
    assert_eq!(ok(ours.verify(&content).await, "verify"), Kept::Lost);
    assert_eq!(ok(ours.write(&content).await, "write"), Kept::Lost);
    assert_eq!(fixture.count(&service).await.unwrap(), 0);
    assert!(ok(ours.claim(Claim::Again, &content).await, "claim(Again)").is_some());
    follows.until(SOON, |set| set.len() == 1).await;
    ok(ours.release().await, "release");
}

/// What a source has told, as one set.
struct Followed {
    source: Box<dyn Source>,
    set: BTreeMap<InstanceId, Instance>,
    announced: usize,
}

impl Followed {
    fn new(source: Box<dyn Source>) -> Self {
        Self { source, set: BTreeMap::new(), announced: 0 }
    }

    async fn next(&mut self) -> Result<bool> {
        let update = self.source.next().await?;
        let full = matches!(update, Update::Full(_));
        self.take_in(update);
        Ok(full)
    }

    fn take_in(&mut self, update: Update) {
        let put = match update {
            Update::Full(all) => {
                self.set.clear();
                all
            }
            Update::Delta { put, gone } => {
                for (id, how) in gone {
                    self.announced += usize::from(how == Removal::Announced);
                    self.set.remove(&id);
                }
                put
            }
        };
        self.set.extend(put.into_iter().map(|instance| (instance.id().clone(), instance)));
    }

    async fn until(&mut self, within: Duration, holds: impl Fn(&BTreeMap<InstanceId, Instance>) -> bool) {
        let told = async {
            while !holds(&self.set) {
                ok(self.next().await, "next");
            }
        };
        let done = timeout(within, told).await.is_ok();
        assert!(done, "not within {within:?}; told so far: {:?}", self.set);
    }

    /// Waits until a list is told, whatever errors come before it.
    async fn resumes(&mut self, within: Duration) {
        let told = async { while !self.next().await.is_ok_and(|full| full) {} };
        assert!(timeout(within, told).await.is_ok(), "nothing is listed within {within:?}");
    }
}

/// Registers some, changes them and lets them go, and returns what is there in the end.
async fn churn(
    fixture: &impl Fixture,
    service: &ServiceName,
    seed: u64,
) -> (Vec<Box<dyn Lease>>, BTreeMap<InstanceId, Instance>) {
    let registry = open(fixture);
    let mut random = fastrand::Rng::with_seed(seed);
    let mut held: BTreeMap<u16, Box<dyn Lease>> = BTreeMap::new();
    let mut set = BTreeMap::new();
    for step in 1..40 {
        let n = random.u16(0..6);
        let content = instance(service, n).with_weight(step);
        match (held.remove(&n), random.u8(0..4)) {
            (None, _) => {
                let mut lease = lease(&registry, &content);
                take(&mut *lease, &content).await;
                held.insert(n, lease);
                set.insert(content.id().clone(), content);
            }
            (Some(mut lease), 0) => {
                ok(lease.release().await, "release");
                set.remove(content.id());
            }
            (Some(mut lease), _) => {
                assert_eq!(ok(lease.write(&content).await, "write"), Kept::Kept);
                held.insert(n, lease);
                set.insert(content.id().clone(), content);
            }
        }
        sleep(Duration::from_millis(random.u64(0..4))).await;
    }
    (held.into_values().collect(), set)
}

/// The first answer is a whole list, and so is the first after `relist`, at once and complete.
pub async fn lists_first_and_when_told_to(fixture: &impl Fixture) {
    let (registry, service) = (open(fixture), service());
    let mut follows = Followed::new(source(&registry, &service));
    assert!(ok(timeout(SOON, follows.next()).await.expect("no list"), "next"), "the first is Full");
    assert!(follows.set.is_empty());
    assert!(timeout(QUIET, follows.next()).await.is_err(), "the second waits for a change");
    let (mut held, set) = churn(fixture, &service, 1).await;
    follows.until(SOON, |told| *told == set).await;
    for _ in 0..3 {
        follows.source.relist();
        // Whatever was known before must come from the list alone.
        follows.set.clear();
        let start = Instant::now();
        assert!(ok(timeout(SOON, follows.next()).await.expect("no list"), "next"), "after relist comes Full");
        assert!(start.elapsed() < fixture.caps().visible, "a list comes at once: {:?}", start.elapsed());
        assert_eq!(follows.set, set);
    }
    for lease in &mut held {
        ok(lease.release().await, "release");
    }
    follows.until(SOON, BTreeMap::is_empty).await;
}

/// A `next` that is dropped at any moment loses nothing.
pub async fn next_loses_nothing_when_dropped(fixture: &impl Fixture) {
    let registry = open(fixture);
    for seed in 0..fixture.caps().seeds {
        let (service, mut random) = (service(), fastrand::Rng::with_seed(seed));
        let mut follows = Followed::new(source(&registry, &service));
        let (mut held, set) = {
            let mut churning = std::pin::pin!(churn(fixture, &service, seed));
            loop {
                tokio::select! {
                    biased;
                    done = &mut churning => break done,
                    told = timeout(Duration::from_micros(random.u64(0..2500)), follows.source.next()) => {
                        if let Ok(told) = told {
                            follows.take_in(ok(told, "next"));
                        }
                        if random.u8(0..10) == 0 {
                            follows.source.relist();
                        }
                    }
                }
            }
        };
        follows.until(SOON, |told| *told == set).await;
        for lease in &mut held {
            ok(lease.release().await, "release");
        }
        follows.until(SOON, BTreeMap::is_empty).await;
    }
}

/// After an error the next answer is a whole list, whatever happened meanwhile.
pub async fn lists_after_an_error(fixture: &impl Fixture) {
    let (registry, service) = (open(fixture), service());
    let id = |n: u16| InstanceId::new(&format!("127.0.0.1:{}", 20_000 + n)).unwrap();
    fixture.inject(&service, &id(1), id(1).as_str()).await.unwrap();
    let mut follows = Followed::new(source(&registry, &service));
    follows.until(SOON, |set| set.len() == 1).await;
    for round in 2..4 {
        fixture.link().unwrap().cut();
        let start = Instant::now();
        while follows.next().await.is_ok() {
            assert!(start.elapsed() < fixture.caps().detects_silence, "no error from a link that is cut");
        }
        fixture.inject(&service, &id(round), id(round).as_str()).await.unwrap();
        fixture.link().unwrap().heal();
        follows.set.clear();
        let full = loop {
            match timeout(fixture.caps().detects_silence, follows.next()).await.expect("next hangs") {
                Ok(full) => break full,
                Err(_) => sleep(Duration::from_millis(20)).await,
            }
        };
        assert!(full, "after an error comes Full");
        assert_eq!(follows.set.len(), usize::from(round));
    }
}

/// Those of the cases that only leases can be put to.
pub mod expiry {
    pub use super::what_is_not_renewed_expires;
}

/// Those that take a link that can be cut.
pub mod recovery {
    pub use super::lists_after_an_error;
}
