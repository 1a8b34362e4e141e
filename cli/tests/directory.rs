//! Everything but `register` that needs no server: the registry is a directory.

#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::process::Stdio;

use rustix::process::Signal;
use serde_json::Value;
use support::{DEADLINE, Directory, Running, command, run, text};
use tokio::time::timeout;

#[tokio::test]
async fn list_shows_what_is_registered() {
    let dir = Directory::new();
    let url = dir.url("");
    let empty = run(&url, &["list"]).await;
    assert!(empty.status.success() && empty.stdout.is_empty(), "{empty:?}");
    assert!(text(&empty.stderr).contains("nothing is registered in file://"), "{empty:?}");

    let args = ["register", "web", "10.0.0.1:80", "--id", "one", "--weight", "3", "--zone", "eu-1"];
    let mut one =
        Running::start(&url, &[&args[..], &["--version", "1.2", "--meta", "a=b=c", "--meta", "e="]].concat());
    one.noted("registered web/one in file://").await;
    let mut two = Running::start(&url, &["register", "web", "10.0.0.2:80"]);
    two.noted("registered web/10.0.0.2:80").await;

    let list = run(&url, &["list"]).await;
    assert_eq!(text(&list.stdout), "SERVICE  INSTANCES  UP\nweb      2          2\n");
    let list = run(&url, &["list", "web"]).await;
    assert_eq!(
        text(&list.stdout),
        "ADDRESS      ID   STATE  WEIGHT  ZONE  VERSION  METADATA\n\
         10.0.0.2:80       up     1\n\
         10.0.0.1:80  one  up     3       eu-1  1.2      a=b=c e=\n"
    );
    for args in [&["list", "web", "--json"][..], &["list", "--json"]] {
        let list = run(&url, args).await;
        let lines: Vec<_> = text(&list.stdout).lines().collect();
        let [line] = lines[..] else { panic!("{list:?}") };
        assert!(line.starts_with(r#"{"at":""#), "{line}");
        let (_, rest) = line.split_once(r#"Z","service":"web","revision":"#).unwrap();
        let (_, rest) = rest.split_once(',').unwrap();
        assert_eq!(
            rest,
            concat!(
                r#""freshness":{"state":"fresh"},"instances":["#,
                r#"{"id":"10.0.0.2:80","address":"10.0.0.2:80","state":"up","held":false,"weight":1,"#,
                r#""zone":null,"version":null,"metadata":{}},"#,
                r#"{"id":"one","address":"10.0.0.1:80","state":"up","held":false,"weight":3,"#,
                r#""zone":"eu-1","version":"1.2","metadata":{"a":"b=c","e":""}}]}"#
            )
        );
    }

    one.signal(Signal::TERM);
    assert_eq!(one.code().await, 0);
    two.signal(Signal::HUP);
    assert_eq!(two.code().await, 0);
    assert!(run(&url, &["list", "web"]).await.stdout.is_empty());
}

#[tokio::test]
async fn bad_input_is_named_and_exits_with_2() {
    let dir = Directory::new();
    let good = dir.url("");
    let file = dir.0.path().join("file");
    std::fs::write(&file, "").unwrap();
    let (file, below) = (file.display().to_string(), callsign::file::url(&file.join("below")));
    let register = ["register", "web", "127.0.0.1:1"];
    let with = |more: &[&'static str]| [&register[..], more].concat();
    let not_executable = with(&["--"]).into_iter().chain([&*file]).collect::<Vec<_>>();
    let cases: Vec<(&str, Vec<&str>, &[&str])> = vec![
        ("zoo://h", vec!["list"], &["\"zoo\"", "file, memory, static"]),
        ("nothing", vec!["watch", "web"], &["no scheme"]),
        ("file:///x?drian=1s", vec!["check"], &["\"drian\"", "drain"]),
        (&below, vec!["list", "web"], &["not a directory"]),
        (&below, vec!["watch", "web"], &["not a directory"]),
        (&below, register.to_vec(), &["not a directory"]),
        ("static:web=127.0.0.1:1", register.to_vec(), &["static"]),
        (&good, with(&["--meta", "team"]), &["team", "no '='", "KEY=VALUE"]),
        (&good, with(&["--meta", "a=1", "--meta", "a=2"]), &["\"a\"", "twice"]),
        (&good, with(&["--meta", "callsign-x=1"]), &["--meta", "reserved"]),
        (&good, with(&["--zone", ""]), &["--zone", "1 to 128"]),
        (&good, with(&["--ttl", "5s"]), &["--ttl 5s", "leave it out"]),
        (&good, with(&["--ttl", "soon"]), &["--ttl", "10s"]),
        (&good, with(&["--weight", "much"]), &["--weight", "much"]),
        (
            &good,
            with(&["--", "callsign-no-such-program", "x"]),
            &["callsign-no-such-program", "PATH", "sh -c"],
        ),
        (&good, not_executable, &["chmod +x"]),
        (&good, vec!["register", "web", "0.0.0.0:1"], &["advertise"]),
        (&good, vec!["register", "web", "127.0.0.1:70000"], &["70000", "1 to 65535"]),
        (&good, vec!["register", "a/b", "127.0.0.1:1"], &["'/'"]),
        (&good, vec!["list", "a b"], &["' '"]),
        (&good, vec!["completions", "cmd"], &["bash", "zsh", "fish"]),
        (&good, vec!["man", "nothing"], &["\"nothing\"", "register"]),
    ];
    for (url, args, says) in cases {
        let output = run(url, &args).await;
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{url} {args:?}: {stderr}");
        assert!(stderr.contains("error: "), "{url} {args:?}: {stderr}");
        assert!(says.iter().all(|say| stderr.contains(say)), "{url} {args:?}: {stderr}");
    }
}

#[cfg(not(feature = "etcd"))]
#[tokio::test]
async fn a_backend_that_is_not_built_in_names_its_feature() {
    let output = run("etcd://127.0.0.1:2379/services", &["list"]).await;
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("--features etcd"), "{output:?}");
}

#[tokio::test]
async fn a_second_owner_is_refused() {
    let dir = Directory::new();
    let url = dir.url("");
    let mut one = Running::start(&url, &["register", "web", "10.0.0.1:80"]);
    one.noted("registered ").await;
    let output = run(&url, &["register", "web", "10.0.0.1:80"]).await;
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(text(&output.stderr).contains("10.0.0.1:80"), "{output:?}");
    // Removed, and back by its owner.
    let mut watch = Running::start(&url, &["watch", "web"]);
    watch.said("+ ").await;
    let removed = run(&url, &["deregister", "web", "10.0.0.1:80"]).await;
    assert!(removed.status.success() && text(&removed.stderr).contains("registers again"), "{removed:?}");
    watch.said("- 10.0.0.1:80").await;
    watch.said("+ 10.0.0.1:80").await;
    let absent = run(&url, &["deregister", "web", "10.0.0.9:80"]).await;
    assert_eq!(absent.status.code(), Some(1));
    assert!(text(&absent.stderr).contains("10.0.0.9:80"), "{absent:?}");
}

#[tokio::test]
async fn check_says_what_is_refused() {
    let dir = Directory::new();
    let good = run(&dir.url(""), &["check"]).await;
    assert!(good.status.success(), "{good:?}");
    let lines: Vec<_> =
        text(&good.stdout).lines().map(|line| line.split_once("  ").unwrap().0.trim()).collect();
    assert_eq!(lines, ["registry", "reach", "read", "write"]);
    let json = run(&dir.url(""), &["check", "--json"]).await;
    let json: Value = serde_json::from_slice(&json.stdout).unwrap();
    assert!(json["ok"] == true && json["write"]["outcome"] == "ok", "{json}");
    std::fs::write(dir.0.path().join("file"), "").unwrap();
    let below = callsign::file::url(&dir.0.path().join("file/below"));
    let bad = run(&below, &["check"]).await;
    assert_eq!(bad.status.code(), Some(1), "{bad:?}");
    assert!(text(&bad.stdout).contains("refused: "), "{bad:?}");
    let bad: Value = serde_json::from_slice(&run(&below, &["check", "--json"]).await.stdout).unwrap();
    assert_eq!(bad["ok"], false, "{bad}");
}

#[tokio::test]
async fn a_reader_who_goes_ends_it_quietly() {
    let dir = Directory::new();
    let url = dir.url("");
    let mut one = Running::start(&url, &["register", "web", "10.0.0.1:80"]);
    one.noted("registered ").await;
    for args in [
        &["watch", "web"][..],
        &["watch", "web", "--json"],
        &["list", "web"],
        &["completions", "zsh"],
        &["man"],
    ] {
        let mut program = command(&url, args);
        let mut program = program.spawn().unwrap();
        // `watch` has nothing more to print, and hears of it all the same.
        drop(program.stdout.take());
        let output = timeout(DEADLINE, program.wait_with_output()).await.expect("ends in time").unwrap();
        assert!(output.status.success() && output.stderr.is_empty(), "{args:?}: {output:?}");
    }
}

#[tokio::test]
async fn without_a_registry_it_is_the_users_own_directory() {
    let dir = Directory::new();
    let mut register = command("", &["register", "web", "10.0.0.1:80"]);
    register.env("XDG_RUNTIME_DIR", dir.0.path());
    let mut register = Running::of(register);
    let own = callsign::file::url(&dir.0.path().join("callsign"));
    let said = register.noted("using ").await;
    assert!(
        said.starts_with(&own) && said.contains("--registry") && said.contains("CALLSIGN_REGISTRY"),
        "{said}"
    );
    register.noted("registered ").await;
    // An argument comes before the variable.
    let list = run("zoo://h", &["list", "--registry", &own]).await;
    assert!(text(&list.stdout).contains("web "), "{list:?}");
}

/// Somebody else's text cannot steer a terminal.
#[tokio::test]
async fn what_a_terminal_would_obey_is_escaped() {
    let dir = Directory::new();
    let url = dir.url("");
    let mut one =
        Running::start(&url, &["register", "web", "10.0.0.1:80", "--meta", "a=\u{1b}[2Jx\u{202e}\n"]);
    one.noted("registered ").await;
    let list = run(&url, &["list", "web"]).await;
    assert!(text(&list.stdout).ends_with("a=\\u{1b}[2Jx\\u{202e}\\n\n"), "{list:?}");
}

/// On a terminal the table is drawn, and coloured unless that is not wanted.
#[tokio::test]
async fn a_terminal_shows_a_live_table() {
    let dir = Directory::new();
    let url = dir.url("");
    let mut one = Running::start(&url, &["register", "web", "10.0.0.1:80"]);
    one.noted("registered ").await;
    for (no_color, up) in [("", "\x1b[32mup\x1b[0m"), ("1", "  up  ")] {
        let mut on_terminal = tokio::process::Command::new("python3");
        on_terminal.args(["-c", "import pty, sys; pty.spawn(sys.argv[1:])", env!("CARGO_BIN_EXE_callsign")]);
        on_terminal
            .args(["watch", "web"])
            .env("CALLSIGN_REGISTRY", &url)
            .env("NO_COLOR", no_color)
            .env("TERM", "xterm");
        // Its stdin stays open: an end would be passed on.
        on_terminal.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut terminal = Running::of(on_terminal);
        let reading = async {
            let mut head = false;
            while let Some(line) = terminal.out.next_line().await.unwrap() {
                head |= line.contains("\x1b[H") && line.contains("web in file://");
                if head && line.contains("10.0.0.1:80") {
                    return line;
                }
            }
            panic!("ended")
        };
        let line = timeout(DEADLINE, reading).await.expect("draws the table");
        assert!(line.contains(up), "{line:?}");
        // The end of the terminal is the end of the watch.
        terminal.child.kill().await.unwrap();
    }
}

#[tokio::test]
async fn help_man_and_completions_are_there() {
    let help = run("", &["--help"]).await;
    assert!(text(&help.stdout).contains("Exit codes:\n  0 ") && text(&help.stdout).contains("Examples:"));
    for command in ["list", "watch", "register", "deregister", "check", "completions", "man"] {
        let help = run("", &[command, "--help"]).await;
        assert!(text(&help.stdout).contains("Example"), "{command}");
        let man = run("", &["man", command]).await;
        assert!(man.status.success() && text(&man.stdout).contains(".SH EXAMPLES"), "{command}: {man:?}");
    }
    let man = run("", &["man"]).await;
    let man = text(&man.stdout);
    assert!(man.contains(".SH \"EXIT STATUS\"") || man.contains(".SH EXIT STATUS"), "{man}");
    assert!(!man.contains("EXTRA"), "{man}");
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let script = run("", &["completions", shell]).await;
        assert!(script.status.success() && text(&script.stdout).contains("deregister"), "{shell}");
        assert!(!text(&script.stdout).contains("guard-of"), "{shell}");
    }
}
