//! Safety: whatever happens in whatever order, what a watch shows follows what is registered, by a seeded random
//! schedule against a model.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::pin::pin;
use std::task::{Context, Waker};
use std::time::Duration;

use callsign_core::{InstanceId, InstanceWatch, Registration, Registry, ServiceName, Snapshot};
use tokio::time::sleep;

use super::{full, instance, service};
use crate::fixture::{Fixture, Tuning};
use crate::record::Recorder;
use crate::wait::{eventually, ok, until};

/// Few ids, so that the same one comes and goes often.
const IDS: u16 = 5;
const GRACE: Duration = Duration::from_secs(2);

/// Random registrations, updates and ends.
pub async fn random_changes(fixture: &impl Fixture) {
    let seeds = fixture.caps().seeds * if full() { 10 } else { 1 };
    for seed in 0..seeds {
        schedule(fixture, seed, 60, None).await;
    }
}

/// One fault, and its end.
pub(crate) type Faults = &'static [Fault];

/// What befalls the server or the link for a while.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Fault {
    Kill,
    Pause,
    Wipe,
    Cut,
    Blackhole,
    Reset,
}

/// What the model knows.
#[derive(Debug, Default)]
struct Model {
    held: BTreeMap<u16, Registration>,
    /// The last weights that they were asked to have; the registrations themselves take notice a moment later.
    weights: BTreeMap<u16, u32>,
    /// The weights that each id was ever published with.
    ever: HashMap<InstanceId, HashSet<u32>>,
    weight: u32,
}

impl Model {
    fn content(&mut self, service: &ServiceName, n: u16) -> callsign_core::Instance {
        self.weight += 1;
        self.weights.insert(n, self.weight);
        let content = instance(service, n).with_weight(self.weight);
        self.ever.entry(content.id().clone()).or_default().insert(self.weight);
        content
    }

    /// What is to be listed in the end.
    fn wanted(&self) -> BTreeMap<InstanceId, u32> {
        self.held.iter().map(|(n, held)| (held.id(), self.weights[n])).collect()
    }

    fn check_ever(&self, snapshot: &Snapshot) {
        for listed in snapshot.iter() {
            let known = self.ever.get(listed.id()).is_some_and(|weights| weights.contains(&listed.weight()));
            assert!(known, "never registered: {:?}", listed.instance());
        }
    }
}

fn listed(snapshot: &Snapshot) -> BTreeMap<InstanceId, u32> {
    snapshot
        .iter()
        .filter(|listed| !listed.is_held())
        .map(|listed| (listed.id().clone(), listed.weight()))
        .collect()
}

/// Runs one schedule; with faults, each of them now and then.
pub(crate) async fn schedule(fixture: &impl Fixture, seed: u64, steps: usize, faults: Option<Faults>) {
    let mut random = fastrand::Rng::with_seed(seed);
    let tuning = Tuning {
        drain: Some(Duration::from_millis(20)),
        grace: Some(GRACE),
        verify: Some(Duration::from_secs(1)),
        ttl: fixture.caps().ttl,
    };
    let open = || ok(fixture.open(&tuning), "open");
    let (servers, clients, service) = (open(), open(), service());
    let watch = clients.watch(&service);
    let recorder = Recorder::start(watch.clone());
    let mut model = Model::default();
    for _ in 0..steps {
        if let Some(faults) = faults
            && random.u8(..) < 30
        {
            befall(
                fixture,
                faults[random.usize(..faults.len())],
                &mut random,
                &mut model,
                &servers,
                &service,
            )
            .await;
        }
        change(&mut model, &mut random, &servers, &service);
        sleep(Duration::from_millis(random.u64(0..30))).await;
    }
    settle(fixture, &model, watch, &service, seed).await;
    let history = recorder.history();
    recorder.check_safety();
    for (_, snapshot) in &history {
        model.check_ever(snapshot);
    }
    drop(model);
    let gone = fixture.caps().recovers + fixture.caps().ttl.unwrap_or_default();
    eventually(gone, &format!("seed {seed}: none is left"), async || {
        fixture.count(&service).await.unwrap() == 0
    })
    .await;
}

/// One random change, that does not wait for the registry.
fn change(model: &mut Model, random: &mut fastrand::Rng, servers: &Registry, service: &ServiceName) {
    let n = random.u16(0..IDS);
    match (model.held.remove(&n), random.u8(0..4)) {
        (None, _) => {
            let content = model.content(service, n);
            model.held.insert(n, servers.keep_registered(content));
        }
        (Some(registration), 0..2) => {
            let content = model.content(service, n);
            {
                // Asked once, it has told its driver: the content is kept even if nobody waits for the answer.
                let sent = pin!(registration.update(content));
                let _ = sent.poll(&mut Context::from_waker(Waker::noop()));
            }
            model.held.insert(n, registration);
        }
        (Some(registration), _) => drop(registration),
    }
}

async fn befall(
    fixture: &impl Fixture,
    fault: Fault,
    random: &mut fastrand::Rng,
    model: &mut Model,
    servers: &Registry,
    service: &ServiceName,
) {
    let link = fixture.link().unwrap();
    match fault {
        Fault::Kill => fixture.kill().await.unwrap(),
        Fault::Wipe => fixture.wipe().await.unwrap(),
        Fault::Pause => fixture.pause().await.unwrap(),
        Fault::Cut => link.cut(),
        Fault::Blackhole => link.blackhole(),
        Fault::Reset => link.reset(),
    }
    // Life goes on meanwhile.
    for _ in 0..random.usize(0..4) {
        change(model, random, servers, service);
        sleep(Duration::from_millis(random.u64(0..600))).await;
    }
    match fault {
        Fault::Kill | Fault::Wipe => fixture.start().await.unwrap(),
        Fault::Pause => fixture.resume().await.unwrap(),
        Fault::Cut | Fault::Blackhole | Fault::Reset => link.heal(),
    }
}

/// In the end the watch, the registry and the model agree.
async fn settle(
    fixture: &impl Fixture,
    model: &Model,
    mut watch: InstanceWatch,
    service: &ServiceName,
    seed: u64,
) {
    let (caps, wanted) = (fixture.caps(), model.wanted());
    // What was withdrawn while the registry was away expires.
    let within = caps.recovers + caps.ttl.unwrap_or_default() + GRACE + caps.visible;
    let agreed = |s: &Snapshot| s.freshness().is_fresh() && listed(s) == wanted && s.len() == wanted.len();
    until(&mut watch, within, &format!("seed {seed}: the watch shows {wanted:?}"), agreed).await;
    let what = format!("seed {seed}: the registry has {wanted:?}");
    eventually(within, &what, async || fixture.count(service).await.unwrap() == wanted.len()).await;
    for held in model.held.values() {
        ok(tokio::time::timeout(within, held.registered()).await.expect("not registered"), held.id());
    }
}
