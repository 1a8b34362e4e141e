//! The three programs, run as a user runs them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;
use std::process::{ExitStatus, Output, Stdio};
use std::time::Duration;

use callsign::file::url as file_url;
use callsign::{InstanceWatch, NamedPolicy, Snapshot, State};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader, Lines};
use tokio::process::{Child, ChildStderr, ChildStdout, Command};
use tokio::time::{Instant, timeout};

const SERVER: &str = env!("CARGO_BIN_EXE_book-server");
const CLIENT: &str = env!("CARGO_BIN_EXE_book-client");
const DEMO: &str = env!("CARGO_BIN_EXE_book-demo");
const DEADLINE: Duration = Duration::from_secs(20);

fn command(program: &str, args: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

async fn run(program: &str, args: &[&str]) -> Output {
    timeout(DEADLINE, command(program, args).output()).await.expect("ends in time").unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// The addresses that answered, in order.
fn answered<'a>(output: &'a Output, says: &str) -> Vec<&'a str> {
    text(&output.stdout).lines().filter_map(|line| line.strip_prefix(says)).collect()
}

/// A server that runs.
struct Server {
    child: Child,
    stdout: Lines<BufReader<ChildStdout>>,
    stderr: Lines<BufReader<ChildStderr>>,
    address: String,
}

impl Server {
    /// One that listens, and is about to register.
    async fn start(url: &str, more: &[&str]) -> Self {
        let args = [&["--listen", "127.0.0.1:0", "--registry", url, "--lang", "en"], more].concat();
        let mut child = command(SERVER, &args).spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap()).lines();
        let stderr = BufReader::new(child.stderr.take().unwrap()).lines();
        let address = line(&mut stdout, "listening on: ").await;
        Self { child, stdout, stderr, address }
    }

    async fn registered(url: &str, more: &[&str]) -> Self {
        let mut server = Self::start(url, more).await;
        line(&mut server.stdout, "registered ").await;
        server
    }

    #[cfg(unix)]
    async fn terminate(&self) {
        let kill = format!("kill -TERM {}", self.child.id().unwrap());
        assert!(Command::new("/bin/sh").args(["-c", &kill]).status().await.unwrap().success());
    }

    async fn ended(&mut self) -> ExitStatus {
        timeout(DEADLINE, self.child.wait()).await.expect("ends in time").unwrap()
    }
}

/// The rest of the next line that begins so.
async fn line(lines: &mut Lines<BufReader<impl AsyncRead + Unpin>>, begins: &str) -> String {
    let reading = async {
        loop {
            let line = lines.next_line().await.unwrap().unwrap_or_else(|| panic!("ended before {begins:?}"));
            if let Some(rest) = line.strip_prefix(begins) {
                return rest.to_owned();
            }
        }
    };
    timeout(DEADLINE, reading).await.unwrap_or_else(|_| panic!("never {begins:?}"))
}

async fn until(watch: &mut InstanceWatch, what: &str, holds: impl Fn(&Snapshot) -> bool) {
    let waiting = async {
        while !holds(&watch.snapshot()) {
            watch.changed().await.unwrap();
        }
    };
    timeout(DEADLINE, waiting).await.unwrap_or_else(|_| panic!("never {what}"));
}

fn registry(dir: &TempDir) -> String {
    format!("{}?drain=300ms", file_url(dir.path()))
}

fn alternate(addresses: &[&str]) -> bool {
    addresses.len() > 2
        && addresses[0] != addresses[1]
        && addresses.windows(3).all(|three| three[0] == three[2])
}

#[tokio::test]
async fn the_demo_alternates_and_cleans_up() {
    let temp = tempfile::tempdir().unwrap();
    for (args, says, detail) in [
        (&[][..], "请求服务: ", "获取书籍详情\nbookId: 1  =>  bookName: 21天精通php\n"),
        (&["--lang", "en"], "request to: ", "book list\nbookId: 1  =>  bookName: 21天精通php\nbookId: 2  =>"),
    ] {
        let output = timeout(DEADLINE, command(DEMO, args).env("TMPDIR", temp.path()).output())
            .await
            .unwrap()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        assert!(text(&output.stderr).is_empty(), "{output:?}");
        let addresses = answered(&output, says);
        assert_eq!(addresses.len(), 8);
        assert!(alternate(&addresses), "{addresses:?}");
        assert!(text(&output.stdout).contains(detail), "{output:?}");
        assert_eq!(std::fs::read_dir(temp.path()).unwrap().count(), 0, "the directory is removed");
    }
}

#[cfg(unix)]
#[tokio::test]
async fn the_servers_of_a_demo_that_was_killed_leave() {
    // What it cannot remove any more is removed with this.
    let temp = tempfile::tempdir().unwrap();
    let mut demo = command(DEMO, &["--lang", "en", "--calls", "100"]);
    let mut demo = demo.env("TMPDIR", temp.path()).spawn().unwrap();
    let mut stdout = BufReader::new(demo.stdout.take().unwrap()).lines();
    let addresses = [line(&mut stdout, "listening on: ").await, line(&mut stdout, "listening on: ").await];
    demo.kill().await.unwrap();
    let gone = async {
        for address in &addresses {
            while tokio::net::TcpStream::connect(address).await.is_ok() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    };
    timeout(DEADLINE, gone).await.expect("no server outlives the demo");
}

#[tokio::test]
async fn bad_input_is_named_and_exits_with_2() {
    let temp = tempfile::tempdir().unwrap();
    let file = temp.path().join("file");
    std::fs::write(&file, "").unwrap();
    let below = file_url(&file.join("below"));
    let good = file_url(temp.path());
    let listen = ["--listen", "127.0.0.1:0"];
    let on = |url| [&listen[..], &["--registry", url]].concat();
    let cases: Vec<(&str, Vec<&str>, &[&str])> = vec![
        (SERVER, on("zoo://h"), &["\"zoo\"", "file, memory, static"]),
        (CLIENT, vec!["--registry", "zoo://h"], &["\"zoo\"", "file, memory, static"]),
        (SERVER, on("nothing"), &["no scheme"]),
        (SERVER, on("file:///x?drian=1s"), &["\"drian\"", "drain"]),
        (CLIENT, vec!["--registry", "file:relative"], &["file:///absolute/dir"]),
        (SERVER, on(&below), &["below", "not a directory"]),
        (CLIENT, vec!["--registry", &below], &["below", "not a directory"]),
        (SERVER, vec![], &["--listen"]),
        (SERVER, vec!["--listen", "127.0.0.1"], &["no port"]),
        (SERVER, vec!["--listen", "127.0.0.1:70000"], &["port 70000", "1 to 65535"]),
        (SERVER, vec!["--listen", "0.0.0.0:0", "--registry", &good], &["--advertise"]),
        (SERVER, vec!["--listen", "[::]:0", "--registry", &good], &["--advertise"]),
        (SERVER, [&on(&good)[..], &["--advertise", "10.0.0.1:0"]].concat(), &["port 0"]),
        (SERVER, [&on(&good)[..], &["--advertise", "10.0.0.1"]].concat(), &["no port"]),
        (SERVER, [&on(&good)[..], &["--advertise", "0.0.0.0:1"]].concat(), &["never called"]),
        (SERVER, [&on(&good)[..], &["--service", ""]].concat(), &["service name is empty"]),
        (SERVER, [&on(&good)[..], &["--id", ""]].concat(), &["0 bytes"]),
        (CLIENT, vec!["--service", "a/b"], &["'/'"]),
        (CLIENT, vec!["--policy", "best"], &["\"best\"", "p3c_ewma", "round_robin", "random"]),
        (CLIENT, vec!["--timeout", "0"], &["--timeout"]),
        (CLIENT, vec!["--calls", "many"], &["--calls"]),
        (DEMO, vec!["--calls", "0"], &["--calls"]),
    ];
    for (program, args, says) in cases {
        let output = run(program, &args).await;
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{program} {args:?}: {stderr}");
        assert!(stderr.starts_with("error: "), "{program} {args:?}: {stderr}");
        assert!(says.iter().all(|say| stderr.contains(say)), "{program} {args:?}: {stderr}");
    }
}

#[cfg(not(feature = "etcd"))]
#[tokio::test]
async fn a_backend_that_is_not_built_in_names_its_feature() {
    let output = run(CLIENT, &["--registry", "etcd://127.0.0.1:2379/services"]).await;
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("--features etcd"), "{output:?}");
}

#[tokio::test]
async fn help_shows_exit_codes_and_examples() {
    for program in [SERVER, CLIENT, DEMO] {
        let output = run(program, &["--help"]).await;
        assert!(output.status.success());
        let help = text(&output.stdout);
        assert!(help.contains("Exit codes: 0") && help.contains("Examples:"), "{help}");
    }
}

#[tokio::test]
async fn calls_alternate_between_what_is_registered() {
    let temp = tempfile::tempdir().unwrap();
    let url = registry(&temp);
    let one = Server::registered(&url, &[]).await;
    let two = Server::registered(&url, &["--zone", "a", "--weight", "3", "--id", "two"]).await;
    let output = run(CLIENT, &["--registry", &url, "--calls", "10"]).await;
    assert!(output.status.success(), "{output:?}");
    let addresses = answered(&output, "请求服务: ");
    assert_eq!(addresses.len(), 10);
    assert!(alternate(&addresses), "{addresses:?}");
    let mut both = [addresses[0], addresses[1]];
    both.sort_unstable();
    let mut started = [&*one.address, &*two.address];
    started.sort_unstable();
    assert_eq!(both, started);
    assert!(text(&output.stdout).contains("共请求 10 次, 失败 0 次"), "{output:?}");

    for policy in NamedPolicy::NAMES {
        let output =
            run(CLIENT, &["--registry", &url, "--calls", "20", "--policy", policy, "--lang", "en"]).await;
        assert!(output.status.success() && text(&output.stdout).contains("20 calls, 0 failed"), "{output:?}");
        let alternates = alternate(&answered(&output, "request to: "));
        assert_eq!(alternates, *policy == "round_robin", "{policy}: {output:?}");
    }
}

#[tokio::test]
async fn with_nobody_registered_calls_fail() {
    let temp = tempfile::tempdir().unwrap();
    let output = run(CLIENT, &["--registry", &registry(&temp), "--calls", "2", "--lang", "en"]).await;
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert_eq!(text(&output.stderr).matches("error: call ").count(), 2, "{output:?}");
    assert!(text(&output.stdout).contains("2 calls, 2 failed"), "{output:?}");
}

/// A directory that leads to itself is an error that may pass.
#[cfg(unix)]
fn unreachable(temp: &Path) -> (std::path::PathBuf, String) {
    let looped = temp.join("loop");
    std::os::unix::fs::symlink(&looped, &looped).unwrap();
    let url = file_url(&looped);
    (looped, url)
}

#[cfg(unix)]
#[tokio::test]
async fn a_client_without_a_list_gives_up_after_5_s() {
    let temp = tempfile::tempdir().unwrap();
    let (_, url) = unreachable(temp.path());
    let start = Instant::now();
    let output = run(CLIENT, &["--registry", &url]).await;
    let took = start.elapsed();
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let stderr = text(&output.stderr);
    assert!(
        stderr.contains("no list of book") && stderr.contains("within 5s") && stderr.contains("loop"),
        "{stderr}"
    );
    assert!(took > Duration::from_secs(4) && took < Duration::from_secs(8), "{took:?}");
}

#[cfg(unix)]
#[tokio::test]
async fn a_server_waits_for_its_registry() {
    let temp = tempfile::tempdir().unwrap();
    let (looped, url) = unreachable(temp.path());
    let mut server = Server::start(&url, &[]).await;
    let waits = line(&mut server.stderr, &format!("{} waits to register in file://", server.address)).await;
    assert!(waits.contains("loop"), "{waits}");
    std::fs::remove_file(looped).unwrap();
    line(&mut server.stdout, "registered ").await;
    let output = run(CLIENT, &["--registry", &url, "--calls", "1"]).await;
    assert!(output.status.success(), "{output:?}");
}

/// Two-phase leave, with a client that calls all the while and fails not once.
#[cfg(unix)]
#[tokio::test]
async fn sigterm_drains_deregisters_and_ends() {
    let temp = tempfile::tempdir().unwrap();
    let url = registry(&temp);
    let mut leaves = Server::registered(&url, &[]).await;
    let stays = Server::registered(&url, &[]).await;
    let mut watch = callsign::open(&url).unwrap().watch(&"book".parse().unwrap());
    until(&mut watch, "both", |snapshot| snapshot.len() == 2).await;

    let mut client =
        command(CLIENT, &["--registry", &url, "--calls", "300", "--interval", "5", "--lang", "en"]);
    let mut client = client.spawn().unwrap();
    let mut said = BufReader::new(client.stdout.take().unwrap()).lines();
    line(&mut said, &format!("request to: {}", leaves.address)).await;
    leaves.terminate().await;
    until(&mut watch, "draining", |s| s.iter().any(|listed| listed.state() == State::Draining)).await;
    line(&mut leaves.stdout, "leaving ").await;
    until(&mut watch, "gone", |snapshot| snapshot.len() == 1).await;
    assert_eq!(leaves.ended().await.code(), Some(0));
    line(&mut leaves.stdout, "stopped").await;
    line(&mut said, "300 calls, 0 failed").await;
    assert!(timeout(DEADLINE, client.wait()).await.unwrap().unwrap().success());
    assert_eq!(watch.snapshot().iter().next().unwrap().address().to_string(), stays.address);
}

#[cfg(unix)]
#[tokio::test]
async fn a_second_signal_ends_at_once() {
    let temp = tempfile::tempdir().unwrap();
    let mut server = Server::registered(&format!("{}?drain=1h", file_url(temp.path())), &[]).await;
    server.terminate().await;
    server.terminate().await;
    line(&mut server.stdout, "leaving ").await;
    // Two close together are one.
    assert!(timeout(Duration::from_millis(700), server.child.wait()).await.is_err());
    server.terminate().await;
    assert_eq!(server.ended().await.code(), Some(1));
    // And is found by nobody: the kernel let go of its lock.
    let registry = callsign::open(&file_url(temp.path())).unwrap();
    assert!(registry.services().await.unwrap().is_empty());
}

#[tokio::test]
async fn the_other_address_is_advertised() {
    let temp = tempfile::tempdir().unwrap();
    let url = registry(&temp);
    let args =
        ["--listen", "0.0.0.0:0", "--advertise", "[2001:db8::1]:50051", "--registry", &url, "--lang", "en"];
    let mut child = command(SERVER, &args).spawn().unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(line(&mut stdout, "listening on: 0.0.0.0:").await.parse::<u16>().unwrap() > 0);
    assert!(line(&mut stdout, "registered ").await.starts_with("[2001:db8::1]:50051 in file://"));
}
