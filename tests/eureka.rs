//! Eureka does what every registry does.

use callsign_testkit::eureka::EurekaFixture;

callsign_testkit::conformance! {
    fixture: EurekaFixture::start(callsign::open).await,
    registering: run,
    leasing: run,
    raw: run,
    outage: run,
}
