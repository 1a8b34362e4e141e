//! ZooKeeper does what every registry does.

use callsign_testkit::zookeeper::ZooKeeperFixture;

callsign_testkit::conformance! {
    fixture: ZooKeeperFixture::start(callsign::open).await,
    registering: run,
    leasing: run,
    raw: run,
    outage: run,
}
