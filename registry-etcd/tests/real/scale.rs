use std::time::{Duration, Instant};

use etcd_client::{Client, Txn, TxnOp, WatchOptions};

use crate::server::{Etcd, rss_kb};
use crate::{book, fresh, ids, instance, measured, open, until};

async fn fill(etcd: &Etcd, entries: u32, value: impl Fn(u32) -> Vec<u8>) {
    let mut client = Client::connect([format!("127.0.0.1:{}", etcd.port)], None).await.unwrap();
    for chunk in (0..entries).collect::<Vec<_>>().chunks(100) {
        let ops: Vec<_> =
            chunk.iter().map(|n| TxnOp::put(format!("services/book/{n:05}"), value(*n), None)).collect();
        client.txn(Txn::new().and_then(ops)).await.unwrap();
    }
}

fn naming(n: u32) -> Vec<u8> {
    let address = format!("10.0.{}.{}:9000", n / 250, n % 250 + 1);
    format!(r#"{{"Op":0,"Addr":"{address}","Metadata":{{"az":"z{}"}}}}"#, n % 3).into_bytes()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs CALLSIGN_ETCD_BIN"]
async fn ten_thousand_instances() {
    let etcd = Etcd::start().await;
    fill(&etcd, 10_000, naming).await;
    let before = rss_kb("self");
    let registry = open(&etcd.url(""));
    let started = Instant::now();
    let mut watch = registry.watch(&book());
    until(&mut watch, 3, fresh(10_000)).await;
    measured("10,000 instances loaded", started.elapsed());
    let grown = (rss_kb("self") - before) / 1024;
    measured("RSS grown by MB", grown);
    measured("RSS of etcd, MB", etcd.rss_kb() / 1024);
    assert!(grown < 64, "{grown} MB");
    let registration = registry.register(instance(1)).await.unwrap();
    measured("one more is seen", until(&mut watch, 1, fresh(10_001)).await);
    registration.deregister_within(Duration::from_millis(100)).await.unwrap();
    until(&mut watch, 1, |snapshot| ids(snapshot).len() == 10_000).await;
    assert_eq!(registry.services().await.unwrap(), [book()]);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs CALLSIGN_ETCD_BIN"]
async fn pages_larger_than_what_is_taken_in() {
    let etcd = Etcd::start().await;
    // A page of a thousand has 40 MB.
    let big = |n: u32| {
        let text = String::from_utf8(naming(n)).unwrap();
        text.replace("\"az\"", &format!("\"big\":\"{}\",\"az\"", "x".repeat(40_000))).into_bytes()
    };
    fill(&etcd, 1_500, big).await;
    let registry = open(&etcd.url(""));
    let mut watch = registry.watch(&book());
    until(&mut watch, 10, fresh(1_500)).await;
    // More than a megabyte in one value is not an instance.
    let mut client = Client::connect([format!("127.0.0.1:{}", etcd.port)], None).await.unwrap();
    client.put("services/book/huge", vec![b'x'; 2_000_000], None).await.unwrap();
    until(&mut watch, 5, |snapshot| snapshot.skipped() == 1).await;
    assert_eq!(watch.snapshot().len(), 1_500);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs CALLSIGN_ETCD_BIN"]
async fn register_to_visible_beside_a_raw_watch() {
    let etcd = Etcd::start().await;
    let registry = open(&etcd.url("/services?drain=0s"));
    let mut watch = registry.watch(&book());
    until(&mut watch, 5, fresh(0)).await;
    let mut client = Client::connect([format!("127.0.0.1:{}", etcd.port)], None).await.unwrap();
    let mut raw = client.watch("raw/", Some(WatchOptions::new().with_prefix())).await.unwrap();
    assert!(raw.message().await.unwrap().unwrap().created());
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for n in 0..50u32 {
        tokio::time::sleep(Duration::from_millis(210)).await;
        let started = Instant::now();
        let (seen, put) =
            tokio::join!(watch.changed(), client.put(format!("services/book/{n}"), naming(n), None));
        seen.unwrap();
        put.unwrap();
        ours.push(started.elapsed());
        tokio::time::sleep(Duration::from_millis(210)).await;
        let started = Instant::now();
        let (seen, put) = tokio::join!(raw.message(), client.put(format!("raw/{n}"), naming(n), None));
        seen.unwrap();
        put.unwrap();
        theirs.push(started.elapsed());
    }
    ours.sort();
    theirs.sort();
    let at = |times: &[Duration], percent: usize| times[times.len() * percent / 100].as_secs_f64() * 1000.0;
    measured("put to wake-up, ms, p50", (at(&ours, 50), at(&theirs, 50)));
    measured("put to wake-up, ms, p90", (at(&ours, 90), at(&theirs, 90)));
}

fn open_files() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs CALLSIGN_ETCD_BIN"]
async fn cycles_leave_nothing_behind() {
    let etcd = Etcd::start().await;
    let metrics = tokio::runtime::Handle::current().metrics();
    let registry = open(&etcd.url("/services?drain=0s"));
    let cycle = async |registry: &callsign_core::Registry| {
        let mut watch = registry.watch(&book());
        let registration = registry.register(instance(1)).await.unwrap();
        until(&mut watch, 5, fresh(1)).await;
        registration.deregister().await.unwrap();
    };
    cycle(&registry).await;
    let (tasks, files) = (metrics.num_alive_tasks(), open_files());
    for _ in 0..200 {
        cycle(&registry).await;
    }
    crate::until_so(5, "no task stays", || metrics.num_alive_tasks() <= tasks).await;
    // The tests beside this one open some too; 200 cycles would show.
    assert!(open_files() < files + 100, "{} from {files}", open_files());
    for _ in 0..50 {
        let registry = open(&etcd.url("/services?drain=0s"));
        cycle(&registry).await;
        registry.close(Duration::from_secs(5)).await.unwrap();
    }
    drop(registry);
    crate::until_so(5, "no connection stays", || metrics.num_alive_tasks() == 0).await;
    assert!(etcd.leases().is_empty() && etcd.all().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs CALLSIGN_ETCD_BIN"]
async fn a_thousand_return_from_a_wipe() {
    let mut etcd = Etcd::start().await;
    let registry = open(&etcd.url("/services?drain=0s"));
    let held: Vec<_> = (1..=1000).map(|port| registry.keep_registered(instance(port))).collect();
    let count = |etcd: &Etcd| etcd.ctl(&["get", "--prefix", "services/", "--keys-only"]).lines().count() / 2;
    let took = crate::until_so(30, "all are registered", || count(&etcd) == 1000).await;
    measured("1,000 registered through one registry", took);
    let mut watch = registry.watch(&book());
    until(&mut watch, 5, fresh(1000)).await;
    let history = crate::History::of(&watch);
    etcd.wipe().await;
    let took = crate::until_so(20, "all are back", || count(&etcd) == 1000).await;
    measured("1,000 back after a wipe", took);
    until(&mut watch, 10, fresh(1000)).await;
    history.never("less than all", |snapshot| snapshot.len() < 1000);
    drop(held);
    registry.close(Duration::from_secs(20)).await.unwrap();
    assert!(etcd.all().is_empty() && etcd.leases().is_empty());
}
