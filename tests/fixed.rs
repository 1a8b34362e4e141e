//! `static:` does what every registry does, as far as a fixed list can.

use callsign_testkit::fixture::UrlFixture;

callsign_testkit::conformance! {
    fixture: UrlFixture::fixed(callsign::open),
    registering: ignore "nothing can be registered in a fixed list",
    leasing: ignore "nothing can be registered in a fixed list",
    raw: ignore "nobody can write to a fixed list",
    outage: ignore "there is no server",
}

#[tokio::test]
async fn lists_what_its_url_says() {
    let registry = callsign::open("static:book=10.0.0.1:50051,[::1]:50052;web=web.example.org:80").unwrap();
    let services: Vec<_> = registry.services().await.unwrap().iter().map(ToString::to_string).collect();
    assert_eq!(services, ["book", "web"]);
    let snapshot = registry.watch(&"book".parse().unwrap()).ready().await.unwrap();
    let addresses: Vec<_> = snapshot.iter().map(|listed| listed.address().to_string()).collect();
    assert_eq!(addresses, ["10.0.0.1:50051", "[::1]:50052"]);
}
