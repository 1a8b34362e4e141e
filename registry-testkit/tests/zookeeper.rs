//! That a ZooKeeper of the testbed does what tests ask of it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use callsign_testkit::zookeeper::ZooKeeper;

#[tokio::test]
async fn nodes_stay_over_a_kill_and_go_with_a_wipe() {
    let mut server = ZooKeeper::server().unwrap();
    server.start().await.unwrap();
    let raw = ZooKeeper::raw(&server);
    raw.put("/a/b/c", b"one").await.unwrap();
    raw.put("/a/b/c", b"two").await.unwrap();
    let many: Vec<_> = (0..1200).map(|n| (format!("/a/many/{n:04}"), vec![0; 100])).collect();
    raw.put_many(&many).await.unwrap();
    assert_eq!(raw.children("/a").await.unwrap(), ["b", "many"]);
    assert_eq!(raw.children("/a/many").await.unwrap().len(), 1200);
    let node = raw.get("/a/b/c").await.unwrap().unwrap();
    assert_eq!((&*node.data, node.owner), (&b"two"[..], 0));

    server.restart().await.unwrap();
    assert_eq!(raw.get("/a/b/c").await.unwrap(), Some(node));
    assert!(raw.delete("/a/b/c").await.unwrap());
    assert!(!raw.delete("/a/b/c").await.unwrap());
    assert!(raw.end_session(0x1234).await.is_err(), "there is no such session");

    server.wipe();
    server.start().await.unwrap();
    assert_eq!(raw.children("/a").await.unwrap(), Vec::<String>::new());
}
