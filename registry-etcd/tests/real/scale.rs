//! Many entries, and large ones.

use callsign_core::Registration;
use callsign_testkit::record::Recorder;
use callsign_testkit::wait::{eventually, until};
use tokio::time::Duration;

use crate::{book, fresh, instance, measured, open_at, secs, start};

/// An entry of 40 kB.
fn large(n: u32) -> (String, Vec<u8>) {
    let value = format!(
        r#"{{"Op":0,"Addr":"10.0.{}.{}:9000","Metadata":{{"big":"{}"}}}}"#,
        n / 250,
        n % 250 + 1,
        "x".repeat(40_000)
    );
    (format!("services/book/{n:05}"), value.into_bytes())
}

/// A page of a thousand entries would have 40 MB, more than is taken in at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_larger_than_what_is_taken_in() {
    let (etcd, raw) = start(&[]).await;
    let entries: Vec<_> = (0..1_500).map(large).collect();
    for some in entries.chunks(50) {
        raw.put_many(some, 0).await.unwrap();
    }
    let registry = open_at(etcd.addr(), "");
    let mut watch = registry.watch(&book());
    until(&mut watch, secs(10), "all are listed", fresh(1_500)).await;
    // More than a megabyte in one value is not an instance.
    raw.put("services/book/huge", &vec![b'x'; 2_000_000], 0).await.unwrap();
    until(&mut watch, secs(5), "it is skipped", |snapshot| snapshot.skipped() == 1).await;
    assert_eq!(watch.snapshot().len(), 1_500);
}

/// Row 20: a thousand registrations of one process return together.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_20_a_thousand_return_from_a_wipe() {
    let (mut etcd, raw) = start(&[]).await;
    let registry = open_at(etcd.addr(), "/services?drain=0s");
    let held: Vec<_> = (1..=1000).map(|port| registry.keep_registered(instance(port))).collect();
    let all = async || raw.count("services/").await.is_ok_and(|count| count == 1000);
    measured("1,000 registered through one registry", eventually(secs(30), "all are registered", all).await);
    let mut watch = registry.watch(&book());
    until(&mut watch, secs(5), "all are listed", fresh(1000)).await;
    let recorder = Recorder::start(watch.clone());
    etcd.wipe();
    etcd.start().await.unwrap();
    let (mut last, mut peak) = (0, 0);
    let took = eventually(secs(20), "all are back", async || {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let count = raw.count("services/").await.unwrap_or(last);
        (peak, last) = (peak.max(count - last), count);
        count == 1000
    });
    measured("1,000 back after a wipe", took.await);
    measured("most written in a second", peak);
    assert!(peak <= 200, "{peak} writes in a second");
    until(&mut watch, secs(10), "all are listed", fresh(1000)).await;
    recorder.check_never_missing(&held.iter().map(Registration::id).collect::<Vec<_>>());
    drop(held);
    registry.close(secs(20)).await.unwrap();
    assert!(raw.list("").await.unwrap().is_empty() && raw.leases().await.unwrap().is_empty());
}
