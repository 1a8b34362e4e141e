//! ZooKeeper does what every registry does.

use callsign_testkit::zookeeper::ZooKeeperFixture;

callsign_testkit::conformance! {
    fixture: ZooKeeperFixture::start(callsign::open).await,
    registering: run,
    leasing: run,
    raw: run,
    outage: run,
}

/// The same over TLS, which a relay of ours speaks: the cases in which connections are made, break and hang, and that of
/// the most bytes. One server does for several.
#[cfg(feature = "tls")]
mod over_tls {
    use callsign_testkit::conformance::{bounded, data, lease, leave, outage, register};
    use callsign_testkit::zookeeper::ZooKeeperFixture;

    async fn fixture() -> ZooKeeperFixture {
        ZooKeeperFixture::secured(callsign::open).await
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_is_held() {
        let fixture = fixture().await;
        bounded(register::second_claim(&fixture)).await;
        bounded(register::kept_registered_from_the_start(&fixture)).await;
        bounded(lease::forgotten_by_the_registry(&fixture)).await;
        bounded(leave::close_releases_all_and_revives_nothing(&fixture)).await;
        bounded(data::metadata_of_64_kilobytes(&fixture)).await;
        bounded(outage::wiped(&fixture)).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn outages() {
        let fixture = fixture().await;
        bounded(outage::silent_and_back(&fixture)).await;
        bounded(outage::killed_and_back(&fixture)).await;
    }
}
