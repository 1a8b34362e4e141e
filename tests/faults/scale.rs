//! Row 19: 10,000 instances, a hundred of which change each second.

use std::collections::HashMap;
use std::io::Write;
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use callsign::ServiceName;
use callsign_testkit::conformance::resources::rss;
use callsign_testkit::etcd::EtcdFixture;
use callsign_testkit::process::Program;
use callsign_testkit::wait::until;
use tokio::time::{Instant, MissedTickBehavior, interval};

const URL: &str = "CALLSIGN_SCALE_URL";
const INSTANCES: usize = 10_000;
const CHURN: Duration = Duration::from_secs(8);

fn now() -> u64 {
    u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

fn entry(prefix: &str, n: usize, at: u64) -> (String, Vec<u8>) {
    let (address, metadata) = (format!("10.0.{}.{}:50051", n / 250, n % 250), format!(r#"{{"at":"{at}"}}"#));
    let value = format!(r#"{{"Op":0,"Addr":"{address}","Metadata":{metadata}}}"#);
    (format!("{prefix}{address}"), value.into_bytes())
}

/// A process of its own loads 10,000 within 3 s and 64 MB, and follows the changes, each seen within a second.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_19_ten_thousand() {
    let fixture = EtcdFixture::start(callsign::open).await;
    let prefix = fixture.prefix(&"book".parse().unwrap());
    let entries: Vec<_> = (0..INSTANCES).map(|n| entry(&prefix, n, 0)).collect();
    fixture.raw().put_many(&entries, 0).await.unwrap();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "scale::follow", "--ignored", "--nocapture"]).env(URL, fixture.url());
    let mut follower = Program::spawn(&mut command).unwrap();
    let mut said = async || {
        let said = follower.said("follow: ", Duration::from_secs(60)).await;
        println!("{said}");
        let numbers: HashMap<String, u64> = said
            .split_whitespace()
            .filter_map(|pair| pair.split_once('='))
            .map(|(key, value)| (key.to_owned(), value.parse().unwrap()))
            .collect();
        numbers
    };
    let loaded = said().await;
    assert!(loaded["load_ms"] <= 3_000, "{loaded:?}");
    assert!(loaded["rss_kb"] <= 64 * 1024, "{loaded:?}");
    let (start, mut ticks, mut n) = (Instant::now(), interval(Duration::from_millis(10)), 0);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    while start.elapsed() < CHURN {
        ticks.tick().await;
        let (key, value) = entry(&prefix, n * 97 % INSTANCES, now());
        fixture.raw().put(&key, &value, 0).await.unwrap();
        n += 1;
    }
    let rate = n as f64 / start.elapsed().as_secs_f64();
    assert!(rate > 50.0, "only {rate} changes a second");
    let followed = said().await;
    assert!(followed["p99_ms"] <= 1_000, "{followed:?}");
    assert!(followed["publishes_in_10_s"] <= 105, "{followed:?}");
    assert!(followed["rss_kb"] <= 64 * 1024, "{followed:?}");
    follower.process.ended(Duration::from_secs(20)).await.unwrap();
}

/// Not a test: what the process of [`row_19_ten_thousand`] runs.
#[tokio::test]
#[ignore = "the body of a process that another test starts"]
async fn follow() {
    let Ok(url) = std::env::var(URL) else { return };
    let say = |line: String| {
        println!("\nfollow: {line}");
        std::io::stdout().flush().unwrap();
    };
    let registry = callsign::open(&url).unwrap();
    let service: ServiceName = "book".parse().unwrap();
    let start = Instant::now();
    let mut watch = registry.watch(&service);
    until(&mut watch, Duration::from_secs(30), "loaded", |s| s.len() == INSTANCES).await;
    say(format!("load_ms={} rss_kb={}", start.elapsed().as_millis(), rss() / 1024));
    let (mut seen, mut late, mut publishes) = (HashMap::new(), Vec::new(), 0u64);
    let start = Instant::now();
    while let Ok(Ok(snapshot)) = tokio::time::timeout(Duration::from_secs(3), watch.changed()).await {
        publishes += 1;
        let now = now();
        for listed in snapshot.iter() {
            let at: u64 = listed.metadata()["at"].parse().unwrap();
            if at > 0 && seen.insert(listed.id().clone(), at) != Some(at) {
                late.push(now.saturating_sub(at));
            }
        }
    }
    let followed = (start.elapsed() - Duration::from_secs(3)).as_secs_f64();
    late.sort_unstable();
    let p99 = late[late.len() * 99 / 100];
    let rate = (publishes as f64 / followed * 10.0).round();
    let count = late.len();
    say(format!("p99_ms={p99} publishes_in_10_s={rate} changes={count} rss_kb={}", rss() / 1024));
}
