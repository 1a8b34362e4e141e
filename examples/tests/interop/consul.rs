//! Go kit and Kratos in Consul.

use callsign::{Instance, Registry};
use callsign_testkit::consul::Consul;
use callsign_testkit::peers::Peer;
use callsign_testkit::server::Server;
use callsign_testkit::wait::{ok, until};

use crate::books::SOON;
use crate::meet::Meeting;

async fn consul() -> Server<Consul> {
    let mut consul = Consul::server().unwrap();
    consul.start().await.unwrap();
    consul
}

fn meeting(consul: &Server<Consul>, peer: Peer, query: &str) -> Meeting {
    Meeting { peer, addr: consul.addr(), url: format!("consul://{}?{query}", consul.addr()) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn go_kit() {
    let consul = consul().await;
    let register = async |registry: &Registry, instance| ok(registry.register(instance).await, "register");
    meeting(&consul, Peer::GoKitConsul, "drain=100ms").side_by_side(register).await;
}

/// In our own format: whoever speaks gRPC is found by Kratos.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kratos() {
    let consul = consul().await;
    let register = async |registry: &Registry, instance: Instance| {
        let instance =
            instance.with_protocol("grpc").and_then(|i| i.with_metadata("team", "library")).unwrap();
        let registration = ok(registry.register(instance.clone()).await, "register");
        ok(registration.update(instance.with_weight(3)).await, "update");
        registration
    };
    meeting(&consul, Peer::Kratos, "drain=100ms").side_by_side(register).await;
}

/// In its own format: what speaks no protocol that anybody has named is found, too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kratos_in_its_format() {
    let consul = consul().await;
    let register = async |registry: &Registry, instance: Instance| {
        ok(registry.register(instance.with_version("2.0").unwrap().with_weight(3)).await, "register")
    };
    meeting(&consul, Peer::Kratos, "format=kratos&drain=100ms").side_by_side(register).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_kratos_says_of_itself_is_read() {
    let consul = consul().await;
    let mut theirs = Peer::Kratos.serve(consul.addr(), "book").unwrap();
    let address = theirs.said("registered ", SOON).await;
    let registry = ok(callsign::open(&format!("consul://{}", consul.addr())), "open");
    let mut watch = registry.watch(&"book".parse().unwrap());
    let found = until(&mut watch, SOON, "it is found", |s| s.len() == 1).await;
    let listed = found.iter().next().unwrap();
    assert_eq!(listed.address().to_string(), address);
    assert_eq!((listed.protocol(), listed.version()), (Some("grpc"), Some("1.2.0")));
    assert_eq!(listed.metadata().get("by").map(AsRef::as_ref), Some("kratos"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn programs_and_go_kit() {
    let consul = consul().await;
    meeting(&consul, Peer::GoKitConsul, "drain=300ms").programs().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn programs_and_kratos() {
    let consul = consul().await;
    meeting(&consul, Peer::Kratos, "drain=300ms").programs().await;
}
