//! The programs where one of three servers stops without a word, and another is restarted.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

use std::process::Command;
use std::time::Duration;

use callsign_testkit::etcd::Etcd;
use callsign_testkit::process::Program;
use tokio::time::Instant;

const SOON: Duration = Duration::from_secs(10);
/// How long a call may take.
const TIMEOUT: Duration = Duration::from_secs(2);
/// Calls that begin later than this after a server has stopped must not meet it.
const FOUND: Duration = Duration::from_secs(3);

/// Stdout and stderr are one, so that lines of both come in their order.
fn spawn(program: &str, args: &[&str]) -> Program {
    let both = ["-c", "exec \"$0\" \"$@\" 2>&1", program];
    Program::spawn(Command::new("sh").args(both).args(args).args(["--lang", "en"])).unwrap()
}

/// A server, and its address.
async fn server(url: &str) -> (Program, String) {
    let args = ["--listen", "127.0.0.1:0", "--registry", url];
    let mut server = spawn(env!("CARGO_BIN_EXE_book-server"), &args);
    let said = server.said("registered ", SOON).await;
    let (address, _) = said.split_once(" in ").unwrap();
    (server, address.to_owned())
}

/// When calls failed, for so long from now on.
async fn failures(client: &mut Program, time: Duration) -> Vec<Duration> {
    let (begun, mut failed) = (Instant::now(), Vec::new());
    while let Ok(said) = client.says("error: call ", time.saturating_sub(begun.elapsed())).await {
        println!("measured: after {:.1?}: {said}", begun.elapsed());
        failed.push(begun.elapsed());
    }
    failed
}

/// No call fails but those in flight, or begun in the first seconds: for as long as it stands, while it is registered and
/// when it is not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_stops_and_one_is_restarted() {
    let mut etcd = Etcd::server().unwrap();
    etcd.start().await.unwrap();
    let url = format!("etcd://{}/services?format=gokit&ttl=20s&drain=500ms", etcd.addr());
    let servers = [server(&url).await, server(&url).await, server(&url).await];
    let (mut servers, addresses) = <(Vec<_>, Vec<_>)>::from_iter(servers);
    let timeout = TIMEOUT.as_millis().to_string();
    let args =
        ["--registry", &url, "--policy", "ewma", "--timeout", &timeout, "--calls", "0", "--interval", "5"];
    let mut client = spawn(env!("CARGO_BIN_EXE_book-client"), &args);
    client.said("request to: ", SOON).await;
    assert!(failures(&mut client, Duration::from_secs(1)).await.is_empty());

    // The one that calls go to at this moment: of another one, which has been slow, none might learn for long that it stands.
    let called = client.said("request to: ", SOON).await;
    let stands = addresses.iter().position(|address| *address == called).unwrap();
    let restarted = (stands + 1) % servers.len();
    servers[stands].process.pause().unwrap();
    let failed = failures(&mut client, Duration::from_secs(12)).await;
    // As many as were begun one after the other, each for as long as it may take, and one in flight.
    assert!(failed.len() <= 2 && failed.iter().all(|at| *at < FOUND + TIMEOUT), "{failed:?}");

    assert!(servers[restarted].process.stop(SOON).await.unwrap().success());
    (servers[restarted], _) = server(&url).await;
    // Long enough for the one that stands to expire.
    let failed_later = failures(&mut client, Duration::from_secs(14)).await;
    assert!(failed_later.is_empty(), "{failed_later:?}");

    servers[stands].process.resume().unwrap();
    let failed_later = failures(&mut client, Duration::from_secs(4)).await;
    assert!(failed_later.is_empty(), "{failed_later:?}");
    client.process.terminate().unwrap();
    assert_eq!(client.said(" calls, ", SOON).await, format!("{} failed", failed.len()));
    for server in &mut servers {
        assert!(server.process.stop(SOON).await.unwrap().success());
    }
}
