//! The roster on its own: times and snapshots go in by hand.

use std::future::pending;
use std::sync::atomic::{AtomicUsize, Ordering};

use callsign_core::{InstanceWatch, Registration, Registry, RegistryUrl};
use tokio::sync::mpsc;

use super::*;
use crate::factory::{Lifeline, News};
use crate::picked::Measure;

/// A roster under a memory registry, whose snapshots it takes when told to.
struct Scene {
    registry: Registry,
    watch: InstanceWatch,
    roster: Roster<u32>,
    told: mpsc::UnboundedSender<News>,
    _cuts: mpsc::UnboundedReceiver<News>,
    dials: tokio::task::JoinSet<()>,
}

impl Scene {
    fn new(name: &str) -> Self {
        Self::filtered(name, |_| true)
    }

    fn filtered(name: &str, filter: impl Fn(&Instance) -> bool + Send + Sync + 'static) -> Self {
        let url = RegistryUrl::parse(&format!("memory:roster-{name}")).unwrap();
        let registry = callsign_core::memory::open(&url).unwrap();
        let watch = registry.watch(&"book".parse().unwrap());
        let rng = fastrand::Rng::with_seed(1);
        let roster = Roster::new("book".parse().unwrap(), Box::new(filter), BACKOFF, rng);
        let (told, cuts) = mpsc::unbounded_channel();
        Self { registry, watch, roster, told, _cuts: cuts, dials: tokio::task::JoinSet::new() }
    }

    async fn register(&self, instance: Instance) -> Registration {
        self.registry.register(instance).await.unwrap()
    }

    /// Waits until the watch shows what is expected, and takes it in.
    async fn see(&mut self, wanted: impl Fn(&Snapshot) -> bool) {
        loop {
            let snapshot = self.watch.snapshot();
            if wanted(&snapshot) {
                self.roster.apply(&snapshot, Instant::now());
                return;
            }
            self.watch.changed().await.unwrap();
        }
    }

    /// The dials that are due, begun.
    fn begin(&mut self) -> Vec<Job> {
        let mut jobs = Vec::new();
        while let Some(job) = self.roster.next_dial() {
            let dial = self.dials.spawn(pending());
            self.roster.begun(&job.key, dial);
            jobs.push(job);
        }
        jobs
    }

    fn succeed(&mut self, job: &Job, endpoint: u32) -> Lifeline {
        let lifeline = Lifeline::new(job.key.clone(), Arc::clone(&job.stats), self.told.clone(), None);
        let link = Link::new(
            endpoint,
            lifeline.clone(),
            Arc::clone(&job.stats),
            job.serial,
            Arc::clone(&job.instance),
        );
        self.roster.dialled(&job.key, Ok(link), Instant::now());
        lifeline
    }

    fn fail(&mut self, job: &Job) {
        self.roster.dialled(&job.key, Err("refused".into()), Instant::now());
    }

    /// Ready instances, as `port` of each.
    fn ready(&mut self) -> Vec<u16> {
        self.roster.ready_set().slots().iter().map(|slot| slot.instance().address().port()).collect()
    }
}

fn book(port: u16) -> Instance {
    Instance::new("book", format!("10.0.0.1:{port}")).unwrap()
}

/// Tiers: confirmed and up, then draining, then weight 0; down never.
#[tokio::test(start_paused = true)]
async fn the_best_tier_that_has_one_ready_is_the_set() {
    let mut scene = Scene::new("tiers");
    let _registrations = [
        scene.register(book(1)).await,
        scene.register(book(2).with_state(State::Draining)).await,
        scene.register(book(3).with_weight(0)).await,
        scene.register(book(4).with_state(State::Down)).await,
    ];
    scene.see(|snapshot| snapshot.len() == 4).await;
    let jobs = scene.begin();
    assert_eq!(jobs.len(), 3, "what is down is not dialled");
    scene.succeed(&jobs[2], 3);
    assert_eq!(scene.ready(), [3], "weight 0, as there is nothing else");
    scene.succeed(&jobs[1], 2);
    assert_eq!(scene.ready(), [2], "draining, as there is none up");
    scene.succeed(&jobs[0], 1);
    assert_eq!(scene.ready(), [1]);
}

/// PEERS.md, Rust peers 14: all weights 0 is a defined result.
#[tokio::test(start_paused = true)]
async fn all_weights_zero_is_all_alike() {
    let mut scene = Scene::new("weights");
    let _registrations =
        [scene.register(book(1).with_weight(0)).await, scene.register(book(2).with_weight(0)).await];
    scene.see(|snapshot| snapshot.len() == 2).await;
    for job in scene.begin() {
        scene.succeed(&job, 0);
    }
    assert_eq!(scene.ready(), [1, 2]);
}

#[tokio::test(start_paused = true)]
async fn content_may_change_and_address_may_not() {
    let mut scene = Scene::new("changes");
    let registration = scene.register(book(1)).await;
    scene.see(|snapshot| snapshot.len() == 1).await;
    let job = scene.begin().remove(0);
    scene.succeed(&job, 7);
    let stats = Arc::clone(scene.roster.ready_set().slots()[0].stats());

    registration.update(book(1).with_weight(9).with_version("2").unwrap()).await.unwrap();
    scene.see(|snapshot| snapshot.iter().any(|listed| listed.weight() == 9)).await;
    assert!(scene.begin().is_empty(), "the connection stays");
    let set = scene.roster.ready_set();
    assert_eq!(set.slots()[0].instance().weight(), 9);
    assert!(Arc::ptr_eq(set.slots()[0].stats(), &stats), "so do its statistics");

    // The same id at another address.
    drop(registration);
    scene.see(Snapshot::is_empty).await;
    let _moved = scene.register(book(2).with_id("10.0.0.1:1").unwrap()).await;
    scene.see(|snapshot| snapshot.len() == 1).await;
    assert_eq!(scene.begin().len(), 1, "is another endpoint");
    assert!(scene.ready().is_empty());
}

/// Sets share what has not changed, and one that was published stays as it was.
#[tokio::test(start_paused = true)]
async fn a_set_is_never_changed_by_the_next() {
    let mut scene = Scene::new("share");
    let mut registrations = Vec::new();
    for port in 1..=150 {
        registrations.push(scene.register(book(port)).await);
    }
    scene.see(|s| s.len() == 150).await;
    for job in scene.begin() {
        scene.succeed(&job, 0);
    }
    let (first, again) = (scene.roster.ready_set(), scene.roster.ready_set());
    assert!(first.same(&again));
    registrations[40].update(book(41).with_weight(9)).await.unwrap();
    scene.see(|s| s.iter().any(|listed| listed.weight() == 9)).await;
    let second = scene.roster.ready_set();
    assert!(!first.same(&second));
    let heavy = |set: &ReadySet<u32>| set.slots().iter().filter(|slot| slot.instance().weight() == 9).count();
    assert_eq!((heavy(&first), heavy(&second)), (0, 1));
    assert!(first.slots().iter().zip(second.slots().iter()).all(|(a, b)| Arc::ptr_eq(a.stats(), b.stats())));

    // Whoever comes next has the place of the one that left.
    drop(registrations.pop());
    scene.see(|s| s.len() == 149).await;
    let third = scene.roster.ready_set();
    registrations.push(scene.register(book(150)).await);
    scene.see(|s| s.len() == 150).await;
    let job = scene.begin().remove(0);
    scene.succeed(&job, 1);
    let fourth = scene.roster.ready_set();
    assert_eq!([&first, &second, &third, &fourth].map(ReadySet::len), [150, 150, 149, 150]);
    assert!(!third.same(&fourth) && !second.same(&fourth));
    let stats = |set: &ReadySet<u32>| {
        let ports = set.slots().iter().position(|slot| slot.instance().address().port() == 150);
        ports.map(|index| Arc::as_ptr(set.slots()[index].stats()))
    };
    assert!(stats(&third).is_none() && stats(&second) == stats(&first) && stats(&fourth) != stats(&second));
    let ids =
        |set: &ReadySet<u32>| set.slots().iter().map(|slot| slot.instance().id().clone()).collect::<Vec<_>>();
    assert!(ids(&fourth).is_sorted());
}

/// The filter is asked again when an instance is registered with other contents, and then only.
#[tokio::test(start_paused = true)]
async fn the_filter_takes_in_and_lets_go_what_has_changed() {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let mut scene = Scene::filtered("filter", move |instance| {
        count.fetch_add(1, Ordering::Relaxed);
        instance.weight() < 10
    });
    let registrations = [scene.register(book(1)).await, scene.register(book(2).with_weight(50)).await];
    scene.see(|s| s.len() == 2).await;
    for job in scene.begin() {
        scene.succeed(&job, 0);
    }
    assert_eq!(scene.ready(), [1]);
    registrations[0].update(book(1).with_weight(60)).await.unwrap();
    scene.see(|s| s.iter().any(|listed| listed.weight() == 60)).await;
    assert!(scene.ready().is_empty());
    assert!(matches!(scene.roster.ready_set().lack(), crate::PickError::Empty { listed: 2, .. }));
    registrations[1].update(book(2).with_weight(3)).await.unwrap();
    scene.see(|s| s.iter().any(|listed| listed.weight() == 3)).await;
    for job in scene.begin() {
        scene.succeed(&job, 0);
    }
    assert_eq!(scene.ready(), [2]);
    let _third = scene.register(book(3)).await;
    scene.see(|s| s.len() == 3).await;
    assert_eq!(asked.load(Ordering::Relaxed), 5);
}

#[tokio::test(start_paused = true)]
async fn down_keeps_its_connection_and_is_not_picked() {
    let mut scene = Scene::new("down");
    let registration = scene.register(book(1)).await;
    scene.see(|snapshot| snapshot.len() == 1).await;
    let job = scene.begin().remove(0);
    let lifeline = scene.succeed(&job, 7);
    registration.update(book(1).with_state(State::Down)).await.unwrap();
    scene.see(|snapshot| snapshot.iter().any(|listed| listed.state() == State::Down)).await;
    assert!(scene.ready().is_empty());
    assert!(matches!(scene.roster.ready_set().lack(), crate::PickError::Empty { listed: 1, .. }));
    registration.update(book(1)).await.unwrap();
    scene.see(|snapshot| snapshot.iter().any(|listed| listed.state() == State::Up)).await;
    assert_eq!(scene.ready(), [1]);
    assert!(scene.begin().is_empty());

    // Without a connection, it is dialled when it comes up.
    registration.update(book(1).with_state(State::Down)).await.unwrap();
    scene.see(|snapshot| snapshot.iter().any(|listed| listed.state() == State::Down)).await;
    scene.roster.cut(lifeline.key(), Instant::now());
    assert!(scene.begin().is_empty() && scene.roster.next_wake().is_none());
    registration.update(book(1)).await.unwrap();
    scene.see(|snapshot| snapshot.iter().any(|listed| listed.state() == State::Up)).await;
    assert_eq!(scene.begin().len(), 1);
}

/// Too early to tell until each dial has finished; then the dials' errors.
#[tokio::test(start_paused = true)]
async fn the_lack_says_what_is_known() {
    use crate::PickError::{Empty, NotYet, Unreachable};
    let mut scene = Scene::new("lack");
    assert!(matches!(scene.roster.ready_set().lack(), NotYet { connecting: 0, .. }));
    scene.see(|snapshot| !snapshot.freshness().is_pending()).await;
    assert!(matches!(scene.roster.ready_set().lack(), Empty { listed: 0, .. }));
    let _registrations = [scene.register(book(1)).await, scene.register(book(2)).await];
    scene.see(|snapshot| snapshot.len() == 2).await;
    let jobs = scene.begin();
    scene.fail(&jobs[0]);
    assert!(matches!(scene.roster.ready_set().lack(), NotYet { connecting: 1, .. }));
    scene.fail(&jobs[1]);
    let Unreachable { source, .. } = scene.roster.ready_set().lack() else { panic!("both have failed") };
    assert_eq!((source.total(), source.errors().len()), (2, 2));
    // And stay unreachable while they are dialled again.
    tokio::time::advance(Duration::from_secs(1)).await;
    scene.roster.wake(Instant::now());
    assert_eq!(scene.begin().len(), 2);
    assert!(matches!(scene.roster.ready_set().lack(), Unreachable { .. }));
}

/// A server that accepts and hangs up is dialled with growing pauses; one that served well at once.
#[tokio::test(start_paused = true)]
async fn a_cut_endpoint_is_made_anew() {
    let mut scene = Scene::new("cuts");
    let _registration = scene.register(book(1)).await;
    scene.see(|snapshot| snapshot.len() == 1).await;
    let job = scene.begin().remove(0);
    let lifeline = scene.succeed(&job, 1);
    tokio::time::advance(Duration::from_secs(60)).await;
    scene.roster.cut(lifeline.key(), Instant::now());
    assert!(scene.ready().is_empty());
    let mut pauses = Duration::ZERO;
    for _ in 0..20 {
        let job = scene.begin().remove(0);
        let lifeline = scene.succeed(&job, 1);
        assert_eq!(scene.ready(), [1]);
        scene.roster.cut(lifeline.key(), Instant::now());
        scene.roster.cut(lifeline.key(), Instant::now());
        let wake = scene.roster.next_wake().unwrap();
        pauses += wake - Instant::now();
        tokio::time::advance(wake - Instant::now()).await;
        scene.roster.wake(Instant::now());
    }
    assert!(pauses > Duration::from_secs(10), "{pauses:?}");
}

/// What comes in for an earlier endpoint changes nothing about the present one.
#[tokio::test(start_paused = true)]
async fn late_news_is_no_news() {
    let mut scene = Scene::new("late");
    let registration = scene.register(book(1)).await;
    scene.see(|snapshot| snapshot.len() == 1).await;
    let old = scene.begin().remove(0);
    drop(registration);
    scene.see(Snapshot::is_empty).await;
    let _registration = scene.register(book(1)).await;
    scene.see(|snapshot| snapshot.len() == 1).await;
    let new = scene.begin().remove(0);
    let lifeline = scene.succeed(&old, 1);
    assert!(scene.ready().is_empty());
    scene.succeed(&new, 2);
    scene.roster.cut(lifeline.key(), Instant::now());
    assert_eq!(scene.ready(), [1]);
    assert_eq!(*scene.roster.ready_set().slots()[0].begin(Measure::NONE).unwrap(), 2);
}

/// A thousand that cannot be reached do not hold up one that is new, or one whose connection has just closed.
#[tokio::test(start_paused = true)]
async fn what_failed_waits_behind_what_is_fresh() {
    let mut scene = Scene::new("priority");
    let _steady = scene.register(book(1)).await;
    scene.see(|s| s.len() == 1).await;
    let jobs = scene.begin();
    let lifeline = scene.succeed(&jobs[0], 1);
    let mut held = Vec::new();
    for port in 100..200 {
        held.push(scene.register(book(port)).await);
    }
    scene.see(|s| s.len() == 101).await;
    for job in scene.begin() {
        scene.fail(&job);
    }
    // All are due again, and one of each sort comes after them.
    tokio::time::advance(Duration::from_secs(10)).await;
    scene.roster.wake(Instant::now());
    let _new = scene.register(book(2)).await;
    scene.see(|s| s.len() == 102).await;
    scene.roster.cut(lifeline.key(), Instant::now());
    let ports: Vec<_> = scene.begin().iter().map(|job| job.instance.address().port()).collect();
    assert_eq!((ports.len(), &ports[..2]), (102, &[2, 1][..]));
}

/// The registry's end is no reason to say that nobody is left while one is being dialled.
#[tokio::test(start_paused = true)]
async fn what_is_listed_is_dialled_on_after_the_end() {
    let mut scene = Scene::new("end");
    let held = scene.register(book(1)).await;
    scene.see(|s| s.len() == 1).await;
    scene.roster.close();
    assert!(scene.roster.ready_set().error().unwrap().is_not_yet());
    let jobs = scene.begin();
    scene.succeed(&jobs[0], 1);
    assert_eq!(scene.ready(), [1]);
    drop(held);
    scene.see(Snapshot::is_empty).await;
    assert!(matches!(scene.roster.ready_set().error(), Some(crate::PickError::Closed { .. })));
}

/// A connection that is made anew is of the same instance, for a call that avoids that one.
#[tokio::test(start_paused = true)]
async fn a_new_connection_is_no_new_instance() {
    let mut scene = Scene::new("same");
    let _held = scene.register(book(1)).await;
    scene.see(|s| s.len() == 1).await;
    let jobs = scene.begin();
    let lifeline = scene.succeed(&jobs[0], 1);
    let first = scene.roster.ready_set().slots().numbers()[0];
    scene.roster.cut(lifeline.key(), Instant::now());
    tokio::time::advance(Duration::from_secs(10)).await;
    scene.roster.wake(Instant::now());
    let jobs = scene.begin();
    scene.succeed(&jobs[0], 2);
    assert_eq!(scene.roster.ready_set().slots().numbers()[0], first);
}
