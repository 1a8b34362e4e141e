//! Many entries, and large ones.

use callsign_testkit::wait::until;

use crate::{book, fresh, open_at, secs, start};

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
