//! Go kit and gRPC-Go in etcd.

use std::collections::BTreeSet;

use callsign::{Instance, Registration, Registry};
use callsign_testkit::etcd::Etcd;
use callsign_testkit::peers::Peer;
use callsign_testkit::process::Program;
use callsign_testkit::server::Server;
use callsign_testkit::wait::{ok, until};

use crate::books::{SOON, Served, call, client, server};

async fn etcd() -> Server<Etcd> {
    let mut etcd = Etcd::server().unwrap();
    etcd.start().await.unwrap();
    etcd
}

fn url(etcd: &Server<Etcd>, query: &str) -> String {
    format!("etcd://{}/services?{query}", etcd.addr())
}

/// Waits until it sees exactly these addresses.
async fn sees(follower: &mut Program, addresses: &[&str]) {
    let mut wanted = addresses.to_vec();
    wanted.sort_unstable();
    let seen = async { while follower.said("set ", SOON).await != wanted.join(",") {} };
    assert!(tokio::time::timeout(SOON, seen).await.is_ok(), "it never sees {wanted:?}");
}

/// Who answered so many calls.
async fn answered(caller: &mut Program, calls: usize) -> BTreeSet<String> {
    let mut who = BTreeSet::new();
    for _ in 0..calls {
        who.insert(caller.said("answered ", SOON).await);
    }
    who
}

/// A server of theirs and a server of ours, in their format: both sides find both, call both, and see each leave.
async fn side_by_side(peer: Peer, query: &str, register: impl AsyncFn(&Registry, Instance) -> Registration) {
    let etcd = etcd().await;
    let mut theirs = peer.serve(etcd.addr(), "book").unwrap();
    let their_address = theirs.said("registered ", SOON).await;
    let mut follower = peer.follow(etcd.addr(), "book").unwrap();
    sees(&mut follower, &[&their_address]).await;

    let (registry, ours) = (ok(callsign::open(&url(&etcd, query)), "open"), Served::start().await);
    let our_address = ours.addr.to_string();
    let registration = register(&registry, Instance::new("book", ours.addr).unwrap()).await;
    sees(&mut follower, &[&our_address, &their_address]).await;
    let mut watch = registry.watch(&"book".parse().unwrap());
    until(&mut watch, SOON, "both are found", |s| s.len() == 2 && s.skipped() == 0).await;

    let both = BTreeSet::from([our_address.clone(), their_address.clone()]);
    assert_eq!(call(watch.clone(), 4).await, both);
    let mut caller = peer.call(etcd.addr(), "book", 20).unwrap();
    assert_eq!(answered(&mut caller, 20).await, both);

    // They leave without a word, so that half of the service is gone at once: no more than that, so not held.
    theirs.end_stdin();
    theirs.said("deregistered ", SOON).await;
    let only_ours =
        |s: &callsign::Snapshot| s.iter().all(|listed| listed.address().to_string() == our_address);
    until(&mut watch, SOON, "they are gone", only_ours).await;
    sees(&mut follower, &[&our_address]).await;
    ok(registration.deregister().await, "deregister");
    sees(&mut follower, &[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn go_kit() {
    let register = async |registry: &Registry, instance| ok(registry.register(instance).await, "register");
    side_by_side(Peer::GoKit, "format=gokit&drain=100ms", register).await;
}

/// With metadata on both sides, which older etcd clients for Go could not compare.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn grpc_go() {
    let register = async |registry: &Registry, instance: Instance| {
        let instance = instance.with_metadata("team", "library").and_then(|i| i.with_zone("eu-1")).unwrap();
        let registration = ok(registry.register(instance.clone()).await, "register");
        ok(registration.update(instance.with_weight(3)).await, "update");
        registration
    };
    side_by_side(Peer::Grpc, "drain=100ms", register).await;
}

/// The programs as they are: they call ours, and ours call theirs.
async fn programs(peer: Peer, query: &str) {
    let etcd = etcd().await;
    let url = url(&etcd, query);
    let mut theirs = peer.serve(etcd.addr(), "book").unwrap();
    let their_address = theirs.said("registered ", SOON).await;
    let (mut ours, our_address) = server(&url).await;
    let mut follower = peer.follow(etcd.addr(), "book").unwrap();
    sees(&mut follower, &[&our_address, &their_address]).await;
    let both = BTreeSet::from([our_address, their_address.clone()]);
    assert_eq!(client(&url, 8).await, both);
    let mut caller = peer.call(etcd.addr(), "book", 20).unwrap();
    assert_eq!(answered(&mut caller, 20).await, both);
    assert!(ours.process.stop(SOON).await.unwrap().success());
    sees(&mut follower, &[&their_address]).await;
    theirs.end_stdin();
    theirs.said("deregistered ", SOON).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn programs_and_go_kit() {
    programs(Peer::GoKit, "format=gokit&drain=300ms").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn programs_and_grpc_go() {
    programs(Peer::Grpc, "drain=300ms").await;
}
