//! Consul does what every registry does.

use callsign_testkit::consul::ConsulFixture;

callsign_testkit::conformance! {
    fixture: ConsulFixture::start(callsign::open).await,
    registering: run,
    leasing: run,
    raw: run,
    outage: run,
}
