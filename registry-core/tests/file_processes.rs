//! The `file:` registry between processes: this test binary starts itself again as owners that are killed, stopped
//! and restarted.

#![allow(clippy::print_stdout, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use callsign_core::{ErrorKind, Instance, InstanceWatch, Registry, RegistryUrl, ServiceName, Snapshot};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::{Instant, timeout};

const DEADLINE: Duration = Duration::from_secs(20);
/// Tells the binary that it is an owner: the registry's URL and the first of its ports.
const OWNER: &str = "CALLSIGN_TEST_OWNER";

struct TempDir(PathBuf);

impl TempDir {
    fn new() -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let name =
            format!("callsign-processes-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn url(&self) -> String {
        format!("file://{}?drain=0s", self.0.display())
    }

    fn registry(&self) -> Registry {
        callsign_core::file::open(&RegistryUrl::parse(&self.url()).unwrap()).unwrap()
    }

    fn files(&self) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.0.join("book")) else { return Vec::new() };
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn book() -> ServiceName {
    "book".parse().unwrap()
}

fn instance(port: u16) -> Instance {
    Instance::new("book", format!("127.0.0.1:{port}")).unwrap()
}

async fn until(watch: &mut InstanceWatch, what: &str, holds: impl Fn(&Snapshot) -> bool) -> Arc<Snapshot> {
    let waiting = async {
        let mut snapshot = watch.snapshot();
        while !holds(&snapshot) {
            snapshot = watch.changed().await.unwrap();
        }
        snapshot
    };
    timeout(DEADLINE, waiting).await.unwrap_or_else(|_| panic!("never {what}: {watch:?}"))
}

/// A process that owns an entry. Killed when it is dropped.
struct Owner {
    child: Child,
    stdin: ChildStdin,
    stdout: Lines<BufReader<ChildStdout>>,
}

impl Owner {
    /// Starts one, and returns what it says first: `registered`, or why not.
    async fn start(dir: &TempDir, port: u16) -> (Self, String) {
        let mut owner = Self::spawn(&format!("{} {port} 1", dir.url()));
        let line = owner.line().await;
        (owner, line)
    }

    fn spawn(task: &str) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "owner_process", "--nocapture", "--include-ignored"])
            .env(OWNER, task)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let stdin = child.stdin.take().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, stdin, stdout }
    }

    /// The next thing that it says, among what the test harness prints.
    async fn line(&mut self) -> String {
        let reading = async {
            loop {
                let line = self.stdout.next_line().await.unwrap().expect("an owner speaks until it ends");
                if let Some((_, said)) = line.split_once("OWNER ") {
                    return said.to_owned();
                }
            }
        };
        timeout(DEADLINE, reading).await.expect("an owner speaks in time")
    }

    async fn tell(&mut self, word: &str) {
        self.stdin.write_all(format!("{word}\n").as_bytes()).await.unwrap();
    }

    async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }

    async fn leave(mut self) -> ExitStatus {
        self.tell("leave").await;
        assert_eq!(self.line().await, "left");
        timeout(DEADLINE, self.child.wait()).await.unwrap().unwrap()
    }
}

fn say(what: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "OWNER {what}").unwrap();
    out.flush().unwrap();
}

/// Nanoseconds of the clock that all processes of a machine share.
fn wall() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos().try_into().unwrap()
}

/// Not a test: what an owner runs.
#[tokio::test]
#[ignore = "run by the tests of this file, in processes of their own"]
async fn owner_process() {
    let Ok(task) = std::env::var(OWNER) else { return };
    let [url, port, count] = task.split(' ').collect::<Vec<_>>().try_into().unwrap();
    let (first, count): (u16, u16) = (port.parse().unwrap(), count.parse().unwrap());
    let registry = callsign_core::file::open(&RegistryUrl::parse(url).unwrap()).unwrap();
    let mut held = Vec::new();
    let mut registering = tokio::task::JoinSet::new();
    let mut ports = first..first + count;
    loop {
        for port in ports.by_ref().take(20 - registering.len()) {
            let registry = registry.clone();
            registering.spawn(async move { registry.register(instance(port)).await });
        }
        match registering.join_next().await.map(Result::unwrap) {
            Some(Ok(registration)) => held.push(registration),
            Some(Err(error)) => return say(&format!("refused {:?}: {}", error.kind(), error.chain())),
            None => break,
        }
    }
    say("registered");
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while let Some(line) = lines.next_line().await.unwrap() {
        match &*line {
            "leave" => break,
            // Registers one more, and says when it began.
            "more" => {
                let port = first + u16::try_from(held.len()).unwrap();
                let began = wall();
                held.push(registry.register(instance(port)).await.unwrap());
                say(&format!("{began}"));
            }
            line => panic!("{line}"),
        }
    }
    for registration in held {
        registration.deregister().await.unwrap();
    }
    say("left");
}

fn percentiles(what: &str, times: &mut [Duration]) -> (Duration, Duration) {
    times.sort();
    let at = |part: usize| times[(times.len() * part / 100).min(times.len() - 1)];
    println!("{what}: p50 {:?}, p99 {:?}, max {:?}, n {}", at(50), at(99), at(100), times.len());
    (at(50), at(99))
}

/// Bound: a change is seen within 50 ms. Changes are further apart than publishes are coalesced.
#[tokio::test]
async fn registered_there_is_visible_here() {
    let dir = TempDir::new();
    let registry = dir.registry();
    let mut watch = registry.watch(&book());
    let (mut owner, said) = Owner::start(&dir, 1000).await;
    assert_eq!(said, "registered");
    until(&mut watch, "the first", |snapshot| snapshot.len() == 1).await;
    let mut times = Vec::new();
    for count in 2..=100 {
        tokio::time::sleep(Duration::from_millis(120)).await;
        owner.tell("more").await;
        until(&mut watch, "one more", |snapshot| snapshot.len() == count).await;
        let seen = wall();
        let began: u64 = owner.line().await.parse().unwrap();
        times.push(Duration::from_nanos(seen.saturating_sub(began)));
    }
    let (p50, _) = percentiles("register to visible, two processes", &mut times);
    assert!(p50 <= Duration::from_millis(50), "{p50:?}");
    assert!(owner.leave().await.success());
    until(&mut watch, "left", Snapshot::is_empty).await;
    assert_eq!(dir.files(), [""; 0]);
}

/// Bound: seen within 1 s.
#[tokio::test]
async fn a_killed_owner_is_gone_and_swept() {
    let dir = TempDir::new();
    let registry = dir.registry();
    let mut watch = registry.watch(&book());
    let (stays, _) = Owner::start(&dir, 1).await;
    let mut times = Vec::new();
    for _ in 0..10 {
        let (dies, said) = Owner::start(&dir, 2).await;
        assert_eq!(said, "registered", "the id of a dead owner is free");
        until(&mut watch, "both", |snapshot| snapshot.len() == 2).await;
        let killed = Instant::now();
        dies.kill().await;
        until(&mut watch, "one less", |snapshot| snapshot.len() == 1).await;
        times.push(killed.elapsed());
    }
    percentiles("kill -9 to gone", &mut times);
    assert!(times.iter().all(|took| *took <= Duration::from_secs(1)), "{times:?}");
    assert_eq!(dir.files().len(), 2, "{:?}", dir.files());
    assert!(stays.leave().await.success());
}

/// Nobody watches while the owner dies: its successor takes over at once, and a later watcher sees only that.
#[tokio::test]
async fn a_restarted_owner_takes_its_id_at_once() {
    let dir = TempDir::new();
    let mut times = Vec::new();
    for _ in 0..10 {
        let (owner, said) = Owner::start(&dir, 7).await;
        assert_eq!(said, "registered");
        owner.kill().await;
        let began = Instant::now();
        let again = dir.registry().register(instance(7)).await.unwrap();
        times.push(began.elapsed());
        again.deregister().await.unwrap();
    }
    let (p50, _) = percentiles("take-over of a dead owner's id", &mut times);
    assert!(p50 < Duration::from_millis(100), "{p50:?}");
}

#[tokio::test]
async fn two_processes_cannot_own_one_id() {
    let dir = TempDir::new();
    let (first, said) = Owner::start(&dir, 5).await;
    assert_eq!(said, "registered");
    let (_second, said) = Owner::start(&dir, 5).await;
    let pid = first.child.id().unwrap().to_string();
    assert!(said.starts_with("refused Conflict"), "{said}");
    assert!(said.contains("book/127.0.0.1:5") && said.contains(&pid), "{said}");
    let mut watch = dir.registry().watch(&book());
    until(&mut watch, "the first", |snapshot| snapshot.len() == 1).await;
    assert!(first.leave().await.success());
    let (third, said) = Owner::start(&dir, 5).await;
    assert_eq!(said, "registered");
    third.kill().await;
}

/// Several owners fight for one id while several watchers probe and sweep. At each moment at most one may have
/// it, which each notes in a file of its own under the registry's lock.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn take_over_is_exclusive_under_stress() {
    let dir = TempDir::new();
    let owners = Arc::new(AtomicUsize::new(0));
    let taken = Arc::new(AtomicUsize::new(0));
    let mut watches: Vec<_> = (0..3).map(|_| dir.registry().watch(&book())).collect();
    let fighters: Vec<_> = (0..6)
        .map(|weight| {
            let (registry, owners, taken) = (dir.registry(), Arc::clone(&owners), Arc::clone(&taken));
            let mine = instance(1).with_weight(weight);
            let until = Instant::now() + Duration::from_secs(5);
            async move {
                while Instant::now() < until {
                    match registry.register(mine.clone()).await {
                        Ok(registration) => {
                            assert_eq!(owners.fetch_add(1, Ordering::SeqCst), 0, "two owners");
                            taken.fetch_add(1, Ordering::SeqCst);
                            tokio::task::yield_now().await;
                            assert!(registration.status().is_registered());
                            owners.fetch_sub(1, Ordering::SeqCst);
                            registration.deregister().await.unwrap();
                        }
                        Err(error) => {
                            let kinds = [ErrorKind::Conflict, ErrorKind::Timeout];
                            assert!(kinds.contains(&error.kind()), "{}", error.chain());
                        }
                    }
                }
            }
        })
        .collect();
    let mut tasks = tokio::task::JoinSet::new();
    fighters.into_iter().for_each(|fighter| drop(tasks.spawn(fighter)));
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    println!("take-overs: {}", taken.load(Ordering::SeqCst));
    assert!(taken.load(Ordering::SeqCst) > 50);
    for watch in &mut watches {
        until(watch, "empty at the end", Snapshot::is_empty).await;
    }
    // Who gave up while another looked at its lock leaves that behind, for whoever lists next to sweep.
    let swept = async {
        while !dir.files().is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let within = tokio::time::timeout(Duration::from_secs(10), swept).await;
    assert!(within.is_ok(), "left for good: {:?}", dir.files());
}

/// Sweepers of dead entries against owners that come back: what an owner holds is never swept.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sweeping_never_takes_a_live_entry() {
    let dir = TempDir::new();
    let registry = dir.registry();
    let watches: Vec<_> = (0..4).map(|_| dir.registry().watch(&book())).collect();
    for round in 0..40 {
        let (dies, said) = Owner::start(&dir, 3).await;
        assert_eq!(said, "registered", "round {round}");
        dies.kill().await;
        // All four watchers are about to sweep it.
        let again = registry.register(instance(3)).await.unwrap();
        let mut watch = dir.registry().watch(&book());
        until(&mut watch, "the new owner", |snapshot| snapshot.len() == 1).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert!(again.status().is_registered(), "round {round}: {again:?}");
        let mut files = dir.files();
        files.sort();
        assert_eq!(files, ["127.0.0.1%3a3.json", "127.0.0.1%3a3.lock"], "round {round}");
        again.deregister().await.unwrap();
    }
    drop(watches);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_start_and_stop_at_once() {
    let dir = TempDir::new();
    let registry = dir.registry();
    let mut watch = registry.watch(&book());
    let mut owners: Vec<_> =
        (0..20).map(|i| Owner::spawn(&format!("{} {} 10", dir.url(), 1000 + i * 10))).collect();
    for owner in &mut owners {
        assert_eq!(owner.line().await, "registered");
    }
    until(&mut watch, "all", |snapshot| snapshot.len() == 200).await;
    for (at, owner) in owners.into_iter().enumerate() {
        if at % 2 == 0 {
            owner.kill().await;
        } else {
            assert!(owner.leave().await.success());
        }
    }
    until(&mut watch, "none", Snapshot::is_empty).await;
    let swept = async {
        while !dir.files().is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(DEADLINE, swept).await.unwrap_or_else(|_| panic!("left behind: {:?}", dir.files()));
}

/// Bounds: loaded within 3 s, and into 64 MB. Twenty processes own them, as each entry takes its owner a descriptor.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_load_and_one_change_is_one_change() {
    let dir = TempDir::new();
    let count = 10_000u16;
    let mut owners: Vec<_> = (0..20)
        .map(|i| Owner::spawn(&format!("{} {} {}", dir.url(), 10_000 + i * (count / 20), count / 20)))
        .collect();
    for owner in &mut owners {
        assert_eq!(owner.line().await, "registered");
    }
    let registry = dir.registry();
    let mut times = Vec::new();
    for _ in 0..3 {
        let began = Instant::now();
        let mut watch = registry.watch(&book());
        let loaded = timeout(DEADLINE, watch.ready()).await.unwrap().unwrap();
        times.push(began.elapsed());
        assert_eq!(loaded.len(), usize::from(count));
    }
    // Of the fastest: whatever else the machine does is not counted.
    percentiles("load of 10,000", &mut times);
    assert!(times[0] <= Duration::from_secs(3), "{times:?}");

    let mut watch = registry.watch(&book());
    until(&mut watch, "loaded", |snapshot| snapshot.len() == usize::from(count)).await;
    #[cfg(target_os = "linux")]
    {
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let rss =
            status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")).unwrap();
        println!("memory of a process with 10,000: {rss} kB");
        assert!(rss.parse::<u32>().unwrap() <= 64 * 1024, "{rss}");
    }
    let one = Instance::new("book", "127.0.0.1:1").unwrap();
    let mut times = Vec::new();
    for _ in 0..10 {
        tokio::time::sleep(Duration::from_millis(120)).await;
        let began = Instant::now();
        let held = registry.register(one.clone()).await.unwrap();
        until(&mut watch, "one more", |snapshot| snapshot.len() == usize::from(count) + 1).await;
        times.push(began.elapsed());
        held.deregister().await.unwrap();
        until(&mut watch, "one less", |snapshot| snapshot.len() == usize::from(count)).await;
    }
    let (p50, _) = percentiles("one change among 10,000", &mut times);
    assert!(p50 <= Duration::from_millis(50), "{p50:?}");

    let killed = Instant::now();
    for owner in owners {
        owner.kill().await;
    }
    until(&mut watch, "all gone", Snapshot::is_empty).await;
    println!("10,000 killed to gone: {:?}", killed.elapsed());
}
