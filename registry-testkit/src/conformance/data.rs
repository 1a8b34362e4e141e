//! Data: what is registered is found as it was, whatever is in it.

use callsign_core::{Error, ErrorKind, Instance};

use super::{instance, open, service};
use crate::fixture::Fixture;
use crate::wait::{ok, until};

/// Registers `wanted` and checks that it is found exactly so.
async fn round_trip(fixture: &impl Fixture, wanted: Vec<Instance>) {
    let (servers, clients) = (open(fixture), open(fixture));
    let service = wanted[0].service().clone();
    let mut held = Vec::new();
    for instance in &wanted {
        held.push(ok(servers.register(instance.clone()).await, instance.id()));
    }
    // A watch that lists them, and before that one that hears of each: both decode.
    let mut watch = clients.watch(&service);
    let snapshot =
        until(&mut watch, fixture.caps().visible, "all are seen", |s| s.len() == wanted.len()).await;
    for instance in &wanted {
        let found = snapshot
            .get(instance.id())
            .unwrap_or_else(|| panic!("{} is not among {snapshot:?}", instance.id()));
        assert_eq!(&**found, instance);
    }
    assert_eq!(snapshot.skipped(), 0);
    for (registration, instance) in held.iter().zip(&wanted) {
        ok(registration.update(instance.clone().with_weight(77)).await, instance.id());
    }
    let updated = |s: &callsign_core::Snapshot| s.iter().all(|listed| listed.weight() == 77);
    let snapshot = until(&mut watch, fixture.caps().visible, "all are updated", updated).await;
    assert_eq!(snapshot.len(), wanted.len());
    assert_eq!(fixture.count(&service).await.unwrap(), wanted.len());
    for registration in held {
        let id = registration.id();
        ok(registration.deregister_within(std::time::Duration::from_secs(1)).await, id);
    }
    assert_eq!(fixture.count(&service).await.unwrap(), 0);
}

/// Weight, protocol, zone, version, metadata.
pub async fn every_field(fixture: &impl Fixture) {
    let service = service();
    let full = instance(&service, 1)
        .with_weight(u32::MAX)
        .with_protocol("grpc")
        .and_then(|i| i.with_zone("eu-1 Köln"))
        .and_then(|i| i.with_version("1.2.3+build"))
        .and_then(|i| i.with_metadata("team", "library"))
        .and_then(|i| i.with_metadata("empty", ""))
        .and_then(|i| i.with_metadata("ключ / \"quoted\" <&> %2F \\", "值 \u{1F980}\n\ttab"))
        .unwrap();
    let zero = instance(&service, 2).with_weight(0);
    round_trip(fixture, vec![full, zero, instance(&service, 3)]).await;
}

/// IPv4, IPv6 in brackets, DNS names.
pub async fn addresses(fixture: &impl Fixture) {
    let service = service();
    let addresses =
        ["10.0.0.1:1", "[::1]:65535", "[2001:db8::1]:50051", "web.example.org:80", "localhost:8080"];
    let wanted = addresses.map(|address| Instance::new(&service, address).unwrap());
    round_trip(fixture, wanted.to_vec()).await;
}

/// Ids that would be paths, escapes or something else, if they were not treated as what they are.
pub async fn ids(fixture: &impl Fixture) {
    let service = service();
    let long = "x".repeat(250);
    let ids = [
        "a/b",
        "/",
        "..",
        ".",
        "a%2Fb",
        "%",
        "a b",
        "ünï-码-\u{1F980}",
        "a?b#c&d=e",
        "A",
        "a",
        "~",
        "c:d",
        "\\",
        &long,
    ];
    let wanted: Vec<_> = (0..).zip(ids).map(|(n, id)| instance(&service, n).with_id(id).unwrap()).collect();
    round_trip(fixture, wanted).await;
}

/// As much metadata as an instance may have.
pub async fn metadata_of_64_kilobytes(fixture: &impl Fixture) {
    let service = service();
    let mut one = instance(&service, 1);
    let room = fixture.caps().metadata;
    for n in 0..room / 1024 {
        // Quotes, so that what is stored is larger than what is counted.
        one = one.with_metadata(format!("k{n:03}"), "\"x\u{e9}\"".repeat(204)).unwrap();
    }
    let large = instance(&service, 2).with_metadata("k", "x".repeat(room - 1)).unwrap();
    round_trip(fixture, vec![one, large]).await;
    let error = instance(&service, 3).with_metadata("k", "x".repeat(Instance::MAX_METADATA)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
}

/// What no client could call cannot be registered.
pub async fn what_cannot_be_called_is_refused(fixture: &impl Fixture) {
    let (servers, service) = (open(fixture), service());
    let refused = |address: &str, says: &str| {
        let error: Error = Instance::new(&service, address).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.to_string().contains(says), "{address}: {error}");
    };
    refused("0.0.0.0:80", "advertise");
    refused("[::]:80", "advertise");
    refused("unix:/run/book.sock", "Unix socket");
    refused("/run/book.sock", "Unix socket");
    refused("10.0.0.1:0", "1 to 65535");
    refused("10.0.0.1:70000", "1 to 65535");
    refused("10.0.0.1", "no port");
    // And nothing of it got anywhere.
    assert_eq!(fixture.count(&service).await.unwrap(), 0);
    drop(servers);
}
