//! Go kit in ZooKeeper.

use callsign::Registry;
use callsign_testkit::peers::Peer;
use callsign_testkit::server::Server;
use callsign_testkit::wait::ok;
use callsign_testkit::zookeeper::ZooKeeper;

use crate::meet::Meeting;

async fn zookeeper() -> Server<ZooKeeper> {
    let mut zookeeper = ZooKeeper::server().unwrap();
    zookeeper.start().await.unwrap();
    zookeeper
}

fn meeting(zookeeper: &Server<ZooKeeper>, drain: &str) -> Meeting {
    let addr = zookeeper.addr();
    let url = format!("zk://{addr}/services?format=gokit&drain={drain}");
    Meeting { peer: Peer::GoKitZooKeeper, addr, url }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn go_kit() {
    let zookeeper = zookeeper().await;
    let register = async |registry: &Registry, instance| ok(registry.register(instance).await, "register");
    meeting(&zookeeper, "100ms").side_by_side(register).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn programs_and_go_kit() {
    let zookeeper = zookeeper().await;
    meeting(&zookeeper, "300ms").programs().await;
}
