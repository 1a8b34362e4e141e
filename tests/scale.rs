//! Rows 19 and 20 of the fault matrix: 10,000 instances, a hundred of which change each second; a thousand registrations.
//!
//! Apart from the other rows, and one after the other: each keeps a machine busy, and has bounds of time.

// Helpers of tests report by panicking, as tests do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

use std::collections::HashMap;
use std::io::Write;
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use callsign::{Instance, Registration, ServiceName, Snapshot};
use callsign_testkit::conformance::resources::{peak, rss};
use callsign_testkit::fixture::{Served, Tuning};
use callsign_testkit::process::Program;
use callsign_testkit::record::{Recorder, confirmed};
use callsign_testkit::wait::{eventually, ok, until};
use tokio::sync::Mutex;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

const URL: &str = "CALLSIGN_SCALE_URL";
/// How many changes there are to follow, where that is known.
const CHANGES: &str = "CALLSIGN_SCALE_CHANGES";
const INSTANCES: usize = 10_000;
const CHURN: Duration = Duration::from_secs(8);
/// Without changes for so long, whoever follows takes them to be over.
const QUIET: Duration = Duration::from_secs(3);

static ALONE: Mutex<()> = Mutex::const_new(());

fn now() -> u64 {
    u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

/// A process of its own that follows the service.
struct Follower(Program);

impl Follower {
    fn start(url: String, changes: Option<usize>) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "follow", "--ignored", "--nocapture"]).env(URL, url);
        command.envs(changes.map(|changes| (CHANGES, changes.to_string())));
        Self(Program::spawn(&mut command).unwrap())
    }

    async fn said(&mut self) -> HashMap<String, u64> {
        let said = self.0.said("follow: ", Duration::from_secs(60)).await;
        println!("measured: {said}");
        said.split_whitespace()
            .filter_map(|pair| pair.split_once('='))
            .map(|(key, value)| (key.to_owned(), value.parse().unwrap()))
            .collect()
    }
}

/// Row 19: a process of its own loads 10,000 within 3 s and 64 MB, and follows the changes, each seen within a second.
async fn row_19_ten_thousand<F: Served>() {
    let _alone = ALONE.lock().await;
    let fixture = F::start_with(callsign::open).await;
    let service: ServiceName = "book".parse().unwrap();
    fixture.write_many(&service, &(0..INSTANCES).collect::<Vec<_>>(), 0).await.unwrap();
    let link = fixture.another_link().await;
    let mut follower = Follower::start(fixture.url_via(link.addr()), None);
    let loaded = follower.said().await;
    assert!(loaded["load_ms"] <= 3_000, "{loaded:?}");
    assert!(loaded["rss_kb"] <= 64 * 1024, "{loaded:?}");
    let (start, mut ticks, mut n) = (Instant::now(), interval(Duration::from_millis(10)), 0);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    while start.elapsed() < CHURN {
        ticks.tick().await;
        fixture.write_many(&service, &[n * 97 % INSTANCES], now()).await.unwrap();
        n += 1;
    }
    let rate = n as f64 / start.elapsed().as_secs_f64();
    assert!(rate > 50.0, "only {rate} changes a second");
    let followed = follower.said().await;
    assert!(Duration::from_millis(followed["p99_ms"]) <= fixture.caps().follows, "{followed:?}");
    assert!(followed["publishes_in_10_s"] <= 105, "{followed:?}");
    assert!(followed["rss_kb"] <= 64 * 1024, "{followed:?}");
    follower.0.process.ended(Duration::from_secs(20)).await.unwrap();
}

/// Row 20: a thousand registrations of one process return together from a wipe, within 20 s and with 200 writes a
/// second at the most.
async fn row_20_a_thousand_return<F: Served>(ttl: Option<Duration>) {
    let _alone = ALONE.lock().await;
    let fixture = F::start_with(callsign::open).await;
    let service: ServiceName = "book".parse().unwrap();
    let registry =
        ok(fixture.open(&Tuning { ttl, drain: Some(Duration::ZERO), ..Tuning::default() }), "open");
    let instance = |port: u32| Instance::new(&service, format!("127.0.0.1:{port}")).unwrap();
    let held: Vec<_> = (1..=1000).map(|port| registry.keep_registered(instance(port))).collect();
    let all = |s: &Snapshot| s.freshness().is_fresh() && confirmed(s).len() == 1000;
    let all_hold = async || held.iter().all(|registration| registration.status().is_registered());
    let took = eventually(Duration::from_secs(30), "all are registered", all_hold).await;
    println!("measured: 1,000 registered after {took:.1?}");
    let mut watch = registry.watch(&service);
    until(&mut watch, Duration::from_secs(5), "all are listed", all).await;
    let recorder = Recorder::start(watch.clone());
    fixture.wipe().await.unwrap();
    // It takes some before it says that it has started.
    let (mut last, mut asked, mut peak) = (0, Instant::now(), 0.0_f64);
    fixture.start().await.unwrap();
    let begun = Instant::now();
    while last < 1000 {
        assert!(begun.elapsed() < Duration::from_secs(20), "{last} are back");
        sleep(Duration::from_secs(1)).await;
        // What came while either was answered counts for both: from the first question to the last answer.
        let asks = Instant::now();
        let taken = fixture.taken(&service).await.unwrap_or(0).max(last);
        peak = peak.max((taken - last) as f64 / asked.elapsed().as_secs_f64());
        (last, asked) = (taken, asks);
    }
    let left = Duration::from_secs(20).saturating_sub(begun.elapsed());
    until(&mut watch, left, "all are back", all).await;
    println!("measured: 1,000 back after {:.1?}, {peak:.0} a second at the most", begun.elapsed());
    assert!(peak <= 200.0, "{peak} writes a second");
    recorder.check_never_missing(&held.iter().map(Registration::id).collect::<Vec<_>>());
    drop(held);
    registry.close(Duration::from_secs(20)).await.unwrap();
    assert_eq!(fixture.count(&service).await.unwrap(), 0);
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
    say(format!("load_ms={} rss_kb={} peak_kb={}", start.elapsed().as_millis(), rss() / 1024, peak() / 1024));
    let (mut seen, mut late, mut publishes) = (HashMap::new(), Vec::new(), 0u64);
    let expected = std::env::var(CHANGES).ok().map(|changes| changes.parse::<usize>().unwrap());
    let quiet = if expected.is_some() { Duration::from_secs(30) } else { QUIET };
    let (start, mut end) = (Instant::now(), Instant::now());
    while expected.is_none_or(|expected| late.len() < expected)
        && let Ok(Ok(snapshot)) = tokio::time::timeout(quiet, watch.changed()).await
    {
        end = Instant::now();
        publishes += 1;
        let now = now();
        for listed in snapshot.iter() {
            let at: u64 = listed.metadata()["at"].parse().unwrap();
            if at > 0 && seen.insert(listed.id().clone(), at) != Some(at) {
                late.push(now.saturating_sub(at));
            }
        }
    }
    let followed = (end - start).as_secs_f64();
    late.sort_unstable();
    let p99 = late[late.len() * 99 / 100];
    let rate = (publishes as f64 / followed * 10.0).round();
    let count = late.len();
    say(format!(
        "p99_ms={p99} publishes_in_10_s={rate} changes={count} rss_kb={} peak_kb={}",
        rss() / 1024,
        peak() / 1024
    ));
}

macro_rules! on {
    ($($name:ident: $fixture:ty),*) => {$(
        mod $name {
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn row_19_ten_thousand() {
                crate::row_19_ten_thousand::<$fixture>().await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn row_20_a_thousand_return() {
                crate::row_20_a_thousand_return::<$fixture>(None).await;
            }
        }
    )*};
}

on! { etcd: callsign_testkit::etcd::EtcdFixture }
#[cfg(feature = "consul")]
on! { consul: callsign_testkit::consul::ConsulFixture }
#[cfg(feature = "zk")]
on! { zk: callsign_testkit::zookeeper::ZooKeeperFixture }

/// Of row 19 what it asks for at the start. Not its churn: who changes all the time is told of for minutes, over and over.
#[cfg(feature = "eureka")]
mod eureka {
    use std::time::Duration;

    use callsign::ServiceName;
    use callsign_testkit::eureka::EurekaFixture;
    use callsign_testkit::fixture::Served;
    use tokio::time::sleep;

    use crate::{ALONE, Follower, INSTANCES, now};

    /// Ten thousand within 3 s, and 64 MB at any time, also while a list or a change is read.
    async fn ten_thousand(fixture: EurekaFixture) {
        let service: ServiceName = "book".parse().unwrap();
        let write = |numbers: std::ops::Range<usize>, at| {
            let (fixture, service) = (&fixture, &service);
            async move { fixture.write_many(service, &numbers.collect::<Vec<_>>(), at).await.unwrap() }
        };
        let quarter = INSTANCES / 4;
        let quarters = [0, 1, 2, 3].map(|n| write(n * quarter..(n + 1) * quarter, 0));
        let [a, b, c, d] = quarters;
        tokio::join!(a, b, c, d);
        let link = fixture.another_link().await;
        let mut follower = Follower::start(fixture.url_via(link.addr()), Some(10));
        let loaded = follower.said().await;
        assert!(loaded["load_ms"] <= 3_000, "{loaded:?}");
        assert!(loaded["peak_kb"] <= 64 * 1024, "{loaded:?}");
        for n in 0..10 {
            write(n * 97..n * 97 + 1, now()).await;
            sleep(Duration::from_millis(700)).await;
        }
        let followed = follower.said().await;
        assert_eq!(followed["changes"], 10, "{followed:?}");
        assert!(followed["peak_kb"] <= 64 * 1024, "{followed:?}");
        follower.0.process.ended(Duration::from_secs(20)).await.unwrap();
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn row_19_ten_thousand_by_themselves() {
        let _alone = ALONE.lock().await;
        ten_thousand(EurekaFixture::start(callsign::open).await).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn row_19_ten_thousand_with_everything() {
        let _alone = ALONE.lock().await;
        ten_thousand(EurekaFixture::start(callsign::open).await.asking_for_all()).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn row_20_a_thousand_return() {
        // A loss shows at the next renewal, which by default is half a minute later.
        let ttl = Duration::from_secs(15);
        crate::row_20_a_thousand_return::<EurekaFixture>(Some(ttl)).await;
    }
}
