//! Go kit in Eureka, which reads and writes XML.

use callsign::Registry;
use callsign_testkit::eureka::Eureka;
use callsign_testkit::peers::Peer;
use callsign_testkit::server::Server;
use callsign_testkit::wait::ok;

use crate::meet::Meeting;

async fn eureka() -> Server<Eureka> {
    let mut eureka = Eureka::server().unwrap();
    eureka.start().await.unwrap();
    eureka
}

fn meeting(eureka: &Server<Eureka>, drain: &str) -> Meeting {
    let addr = eureka.addr();
    let url = format!("eureka://{addr}/eureka?poll=100ms&drain={drain}");
    Meeting { peer: Peer::GoKitEureka, addr, url }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn go_kit() {
    let eureka = eureka().await;
    // With a key that is no name in XML, and a value that XML has no place for.
    let register = async |registry: &Registry, instance: callsign::Instance| {
        let instance = ok(instance.with_metadata("<&> \u{1F980}", "\u{1}"), "metadata");
        ok(registry.register(instance).await, "register")
    };
    meeting(&eureka, "100ms").side_by_side(register).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn programs_and_go_kit() {
    let eureka = eureka().await;
    // Its client calls whoever is listed, up or not, for a second after it has looked.
    meeting(&eureka, "2s").programs().await;
}
