//! Registering and watching, over and over, uses no more tasks, sockets, files or memory. What is counted belongs to
//! the process, so this is a binary of its own, whose tests run one at a time.

use callsign_testkit::conformance::resources::cycles;
use callsign_testkit::fixture::UrlFixture;
use tokio::sync::Mutex;

static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());

#[tokio::test]
async fn memory() {
    let _alone = ONE_AT_A_TIME.lock().await;
    cycles(&UrlFixture::memory(callsign::open)).await;
}

#[tokio::test]
async fn file() {
    let _alone = ONE_AT_A_TIME.lock().await;
    cycles(&callsign_testkit::file::FileFixture::new(callsign::open)).await;
}

#[cfg(feature = "etcd")]
#[tokio::test]
async fn etcd() {
    let _alone = ONE_AT_A_TIME.lock().await;
    cycles(&callsign_testkit::etcd::EtcdFixture::start(callsign::open).await).await;
}
