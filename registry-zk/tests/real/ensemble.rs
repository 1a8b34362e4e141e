//! Three servers, of which one is killed or frozen.

use std::time::Duration;

use callsign_core::{Instance, InstanceId, InstanceWatch, Registration, Registry};
use callsign_testkit::proxy::Proxy;
use callsign_testkit::record::Recorder;
use callsign_testkit::server::Server;
use callsign_testkit::wait::{eventually, ok, until};
use callsign_testkit::zookeeper::{Role, ZooKeeper};

use crate::{SOON, open};

/// The most that a change may take to be seen after a member was killed, and after one was frozen.
const KILLED: Duration = Duration::from_secs(5);
const FROZEN: Duration = Duration::from_secs(10);
const OWN: &str = "/services/book/10.0.0.1:80";

struct Scene {
    servers: [Server<ZooKeeper>; 3],
    links: Vec<Proxy>,
    owner: i64,
    watch: InstanceWatch,
    held: Registration,
    registry: Registry,
}

impl Scene {
    async fn set() -> Self {
        Self::with("ttl=4s").await
    }

    async fn with(query: &str) -> Self {
        let servers = ZooKeeper::ensemble::<3>().await.unwrap();
        let mut links = Vec::new();
        for server in &servers {
            links.push(Proxy::start(server.addr()).await.unwrap());
        }
        let hosts: Vec<_> = links.iter().map(|link| link.addr().to_string()).collect();
        let registry = open(&format!("zk://{}/services?{query}", hosts.join(","))).unwrap();
        let held = ok(registry.register(Instance::new("book", "10.0.0.1:80").unwrap()).await, "register");
        let mut watch = registry.watch(&"book".parse().unwrap());
        until(&mut watch, SOON, "seen", |s| s.len() == 1).await;
        let owner = ZooKeeper::raw(&servers[0]).get(OWN).await.unwrap().unwrap().owner;
        Self { servers, links, owner, watch, held, registry }
    }

    /// The server that the registry is connected to.
    fn connected(&self) -> usize {
        self.links.iter().position(|link| link.open() > 0).expect("it is connected")
    }

    async fn leader(&self) -> usize {
        for (n, server) in self.servers.iter().enumerate() {
            if ZooKeeper::raw(server).role().await.is_ok_and(|role| role == Some(Role::Leads)) {
                return n;
            }
        }
        panic!("nobody leads");
    }

    /// A change that is written to another server than `gone` is seen within `within`, in the same session.
    async fn goes_on_without(&mut self, gone: usize, n: u16, within: Duration) {
        let raw = ZooKeeper::raw(&self.servers[(gone + 1) % 3]);
        let id = InstanceId::new(&format!("10.0.0.2:{n}")).unwrap();
        let path = format!("/services/book/{id}");
        let start = tokio::time::Instant::now();
        // Not while they elect a leader.
        eventually(within, "a quorum", async || raw.put(&path, id.as_str().as_bytes()).await.is_ok()).await;
        let left = within.saturating_sub(start.elapsed());
        until(&mut self.watch, left, "the change is seen", |s| s.get(&id).is_some()).await;
        until(&mut self.watch, SOON, "fresh", |s| s.freshness().is_fresh()).await;
        let node = raw.get(OWN).await.unwrap().expect("the own node is there");
        assert_eq!(node.owner, self.owner, "nothing had to be registered again");
    }

    async fn end(self) {
        ok(self.held.deregister().await, "deregister");
        ok(self.registry.close(SOON).await, "close");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_are_killed_the_connected_one_and_the_leader() {
    let mut scene = Scene::set().await;
    let recorder = Recorder::start(scene.watch.clone());
    for round in 0..4 {
        let gone = if round % 2 == 0 { scene.connected() } else { scene.leader().await };
        scene.servers[gone].kill();
        scene.goes_on_without(gone, round + 1, KILLED).await;
        scene.servers[gone].start().await.unwrap();
    }
    recorder.check_never_missing(&[scene.held.id()]);
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_connected_member_is_frozen() {
    let mut scene = Scene::set().await;
    let recorder = Recorder::start(scene.watch.clone());
    let gone = scene.connected();
    scene.servers[gone].pause().unwrap();
    scene.goes_on_without(gone, 1, FROZEN).await;
    scene.servers[gone].resume().unwrap();
    recorder.check_never_missing(&[scene.held.id()]);
    scene.end().await;
}

/// Whoever asks for a session takes it from its client, which then needs another slow connection.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_returns_slowly_is_let_return() {
    const ROUNDS: u32 = 3;
    let scene = Scene::with("ttl=10s&drain=0s").await;
    let mut held = Vec::new();
    for n in 1..=4 {
        let instance = Instance::new("book", format!("10.0.0.1:{n}")).unwrap();
        held.push(ok(scene.registry.register(instance).await, "register"));
    }
    let accepted = || scene.links.iter().map(Proxy::accepted).sum::<u64>();
    let before = accepted();
    // Who is back needs two answers before it gets the first of its own: more than a second, which is doubted once.
    scene.links.iter().for_each(|link| link.latency(Duration::from_millis(350)));
    for round in 0..ROUNDS {
        scene.links.iter().for_each(Proxy::reset);
        for held in &held {
            let changed = Instance::clone(&held.instance()).with_weight(round + 2);
            ok(held.update(changed).await, "update");
        }
    }
    let accepted = accepted() - before;
    scene.links.iter().for_each(Proxy::heal);
    assert!(accepted <= u64::from(ROUNDS) + 3, "{accepted} connections for {ROUNDS} that were reset");
    let node = ZooKeeper::raw(&scene.servers[0]).get(OWN).await.unwrap().expect("the own node is there");
    assert_eq!(node.owner, scene.owner, "nothing had to be registered again");
    drop(held);
    scene.end().await;
}
