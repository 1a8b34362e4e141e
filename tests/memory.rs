//! `memory:` does what every registry does.

use callsign_testkit::fixture::UrlFixture;

callsign_testkit::conformance! {
    fixture: UrlFixture::memory(callsign::open),
    registering: run,
    leasing: ignore "an entry lives as long as its owner",
    raw: ignore "nobody else can write inside this process",
    outage: ignore "there is no server",
}
