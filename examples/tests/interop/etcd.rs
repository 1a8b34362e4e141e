//! Go kit and gRPC-Go in etcd.

use callsign::{Instance, Registry};
use callsign_testkit::etcd::Etcd;
use callsign_testkit::peers::Peer;
use callsign_testkit::server::Server;
use callsign_testkit::wait::ok;

use crate::meet::Meeting;

async fn etcd() -> Server<Etcd> {
    let mut etcd = Etcd::server().unwrap();
    etcd.start().await.unwrap();
    etcd
}

fn meeting(etcd: &Server<Etcd>, peer: Peer, query: &str) -> Meeting {
    Meeting { peer, addr: etcd.addr(), url: format!("etcd://{}/services?{query}", etcd.addr()) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn go_kit() {
    let etcd = etcd().await;
    let register = async |registry: &Registry, instance| ok(registry.register(instance).await, "register");
    meeting(&etcd, Peer::GoKit, "format=gokit&drain=100ms").side_by_side(register).await;
}

/// With metadata on both sides, which older etcd clients for Go could not compare.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn grpc_go() {
    let etcd = etcd().await;
    let register = async |registry: &Registry, instance: Instance| {
        let instance = instance.with_metadata("team", "library").and_then(|i| i.with_zone("eu-1")).unwrap();
        let registration = ok(registry.register(instance.clone()).await, "register");
        ok(registration.update(instance.with_weight(3)).await, "update");
        registration
    };
    meeting(&etcd, Peer::Grpc, "drain=100ms").side_by_side(register).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn programs_and_go_kit() {
    let etcd = etcd().await;
    meeting(&etcd, Peer::GoKit, "format=gokit&drain=300ms").programs().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn programs_and_grpc_go() {
    let etcd = etcd().await;
    meeting(&etcd, Peer::Grpc, "drain=300ms").programs().await;
}
