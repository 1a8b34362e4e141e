//! Eureka does what every registry does, whether each service is asked for or everything at once.

use callsign_testkit::eureka::EurekaFixture;

callsign_testkit::conformance! {
    fixture: EurekaFixture::start(callsign::open).await,
    registering: run,
    leasing: run,
    raw: run,
    outage: run,
}

mod all {
    use callsign_testkit::eureka::EurekaFixture;

    callsign_testkit::conformance! {
        fixture: EurekaFixture::start(callsign::open).await.asking_for_all(),
        registering: run,
        leasing: run,
        raw: run,
        outage: run,
    }
}
