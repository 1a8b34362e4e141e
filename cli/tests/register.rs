//! `register` as users and supervisors meet it: processes, signals, ports. The registry is a directory.

#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::process::Stdio;
use std::time::Duration;

use rustix::process::Signal;
use support::{Directory, Running, free, gone, kill, run, server, text};
use tokio::time::{Instant, timeout};

#[tokio::test]
async fn one_signal_leaves_and_a_second_leaves_at_once() {
    let dir = Directory::new();
    let url = dir.url("?drain=1h");
    let mut one = Running::start(&url, &["register", "web", "10.0.0.1:80"]);
    one.noted("registered ").await;
    let mut watch = Running::start(&dir.url(""), &["watch", "web"]);
    watch.said("+ 10.0.0.1:80").await;
    one.signal(Signal::INT);
    watch.said("~ 10.0.0.1:80 state up -> draining").await;
    // Two close together are one, so this one is not.
    assert!(timeout(Duration::from_millis(400), one.child.wait()).await.is_err());
    one.signal(Signal::INT);
    watch.said("- 10.0.0.1:80").await;
    assert_eq!(one.code().await, 0);
}

#[tokio::test]
async fn a_hangup_that_is_to_be_ignored_is() {
    let dir = Directory::new();
    let mut nohup = tokio::process::Command::new("sh");
    nohup.args(["-c", "trap '' HUP; exec \"$0\" register web 10.0.0.1:80", env!("CARGO_BIN_EXE_callsign")]);
    nohup.env("CALLSIGN_REGISTRY", dir.url("?drain=0s")).kill_on_drop(true);
    nohup.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut nohup = Running::of(nohup);
    nohup.noted("registered ").await;
    nohup.signal(Signal::HUP);
    assert!(timeout(Duration::from_millis(400), nohup.child.wait()).await.is_err());
    nohup.signal(Signal::TERM);
    assert_eq!(nohup.code().await, 0);
}

/// The promise of the tool: any program, and no trace of it left however it ends.
#[tokio::test]
async fn a_kill_9_of_the_command_or_of_us_takes_it_away() {
    let dir = Directory::new();
    let url = dir.url("");
    let mut watch = Running::start(&url, &["watch", "web"]);
    for kill_us in [false, true] {
        let (_port, port) = free();
        let address = format!("127.0.0.1:{port}");
        let serve = format!("echo pid $$; exec python3 -m http.server {port} --bind 127.0.0.1");
        let mut web = Running::start(&url, &["register", "web", &address, "--", "sh", "-c", &serve]);
        let server: u32 = web.said("pid ").await.parse().unwrap();
        watch.said(&format!("+ {address} {address}")).await;
        let begun = Instant::now();
        if kill_us {
            web.child.kill().await.unwrap();
        } else {
            kill(server, Signal::KILL);
            assert_eq!(web.code().await, 137);
        }
        watch.said(&format!("- {address}")).await;
        assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
        gone(server).await;
    }
}

/// Asked first, and then not asked.
#[tokio::test]
async fn a_command_that_does_not_mind_sigterm_ends_with_us_all_the_same() {
    let dir = Directory::new();
    let (_port, port) = free();
    let serve = format!("trap '' TERM; echo pid $$; exec python3 -m http.server {port} --bind 127.0.0.1");
    let address = format!("127.0.0.1:{port}");
    let mut web = Running::start(&dir.url(""), &["register", "web", &address, "--", "sh", "-c", &serve]);
    let server: u32 = web.said("pid ").await.parse().unwrap();
    web.noted("registered ").await;
    web.child.kill().await.unwrap();
    gone(server).await;
}

#[tokio::test]
async fn signals_are_passed_on_and_the_word_to_end_waits_until_it_has_left() {
    let dir = Directory::new();
    let url = dir.url("?drain=700ms");
    let (_port, port) = free();
    let address = format!("127.0.0.1:{port}");
    let mut web = Running::start(&url, &[&["register", "web", &address][..], &server(&port)].concat());
    web.noted("registered ").await;
    for (signal, name) in
        [(Signal::HUP, "HUP"), (Signal::USR1, "USR1"), (Signal::USR2, "USR2"), (Signal::QUIT, "QUIT")]
    {
        web.signal(signal);
        web.said(&format!("got SIG{name}")).await;
    }
    let mut watch = Running::start(&url, &["watch", "web"]);
    watch.said("+ ").await;
    web.signal(Signal::TERM);
    watch.said(&format!("~ {address} state up -> draining")).await;
    assert!(tokio::net::TcpStream::connect(&address).await.is_ok(), "it serves on while it drains");
    watch.said(&format!("- {address}")).await;
    web.said("got SIGTERM").await;
    assert_eq!(web.code().await, 7, "the command's own exit code");
}

#[tokio::test]
async fn a_second_signal_reaches_the_command_at_once() {
    let dir = Directory::new();
    let (_port, port) = free();
    let address = format!("127.0.0.1:{port}");
    let args = [&["register", "web", &address][..], &server(&port)].concat();
    let mut web = Running::start(&dir.url("?drain=1h"), &args);
    web.noted("registered ").await;
    web.signal(Signal::TERM);
    web.noted("leaving ").await;
    assert!(timeout(Duration::from_millis(400), web.child.wait()).await.is_err());
    web.signal(Signal::INT);
    web.said("got SIGINT").await;
    assert_eq!(web.code().await, 7);
    assert!(run(&dir.url(""), &["list", "web"]).await.stdout.is_empty());
}

/// What the command has started ends with it: a shell does not pass signals on.
#[tokio::test]
async fn signals_reach_what_the_command_has_started() {
    let dir = Directory::new();
    let (_port, port) = free();
    let address = format!("127.0.0.1:{port}");
    let serve = format!("python3 -m http.server {port} --bind 127.0.0.1 & echo pid $!; wait");
    let mut web =
        Running::start(&dir.url("?drain=0s"), &["register", "web", &address, "--", "sh", "-c", &serve]);
    let server: u32 = web.said("pid ").await.parse().unwrap();
    web.noted("registered ").await;
    web.signal(Signal::TERM);
    assert_eq!(web.code().await, 143);
    gone(server).await;
}

#[tokio::test]
async fn nothing_is_registered_before_the_port_accepts() {
    let dir = Directory::new();
    let url = dir.url("");
    let (_port, port) = free();
    let address = format!("127.0.0.1:{port}");
    // It ends by itself before.
    let output = run(&url, &["register", "web", &address, "--", "sh", "-c", "exit 5"]).await;
    assert_eq!(output.status.code(), Some(5));
    let stderr = text(&output.stderr);
    assert!(stderr.contains("exit code 5 before") && stderr.contains(&address), "{stderr}");
    // It never accepts. A shell says its id long before the time is over, whatever else the machine does.
    let begun = Instant::now();
    let sleep = ["--wait", "2s", "--", "sh", "-c", "echo pid $$; exec sleep 600"];
    let mut never = Running::start(&url, &[&["register", "web", &address][..], &sleep].concat());
    let pid = never.said("pid ").await.parse().unwrap();
    let said = never.failed().await;
    for says in [&*address, "within 2s", "refused", "--wait"] {
        assert!(said.contains(says), "{said}");
    }
    assert_eq!(never.code().await, 2);
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    gone(pid).await;
    // Told to end meanwhile.
    let mut waits = Running::start(&url, &[&["register", "web", &address][..], &server("")].concat());
    waits.said("pid ").await;
    let list = run(&url, &["list", "web"]).await;
    assert!(list.stdout.is_empty(), "{list:?}");
    waits.noted(&format!("waiting for {address} to accept")).await;
    waits.signal(Signal::TERM);
    waits.said("got SIGTERM").await;
    assert_eq!(waits.code().await, 7);
    // Without a command only if it is asked for.
    let output = run(&url, &["register", "web", &address, "--wait", "100ms"]).await;
    assert_eq!(output.status.code(), Some(2));
}

#[tokio::test]
async fn somebody_elses_port_is_pointed_out() {
    let dir = Directory::new();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let output = run(&dir.url(""), &["register", "web", &address, "--", "sh", "-c", "exit 3"]).await;
    assert!(text(&output.stderr).contains("already, before the command"), "{output:?}");
    assert_eq!(output.status.code(), Some(3));
}
