//! Passwords and TLS: what is refused has a name.

use crate::start;
use crate::support::{Running, run, text};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_password_is_a_state_and_no_empty_list() {
    let (_zookeeper, _raw, url) = start("?acl=creator&drain=0s").await;
    let of = |password: &str| url.replacen("zk://", &format!("zk://al:{password}@"), 1);
    let mut web = Running::start(&of("canary-right"), &["register", "web", "10.0.0.1:80"]);
    web.noted("registered web/10.0.0.1:80").await;
    let list = run(&of("canary-wrong"), &["list", "web"]).await;
    assert_eq!(list.status.code(), Some(1), "{list:?}");
    let stderr = text(&list.stderr);
    assert!(stderr.contains("ACL") && stderr.contains("fix: ") && !stderr.contains("canary"), "{stderr}");
    let mut watch = Running::start(&of("canary-wrong"), &["watch", "web", "--json"]);
    let pending = |line: &serde_json::Value| {
        line["freshness"]["state"] == "pending" && line["freshness"]["error"].is_string()
    };
    let line = watch.json("it is refused", pending).await;
    assert!(!line.to_string().contains("canary"), "{line}");
    let list = run(&of("canary-right"), &["list", "web"]).await;
    assert!(list.status.success() && text(&list.stdout).contains("10.0.0.1:80"), "{list:?}");
}

#[cfg(feature = "tls")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_with_tls_is_named() {
    use callsign_testkit::zookeeper::SecuredServer;

    let zookeeper = SecuredServer::start().await.unwrap();
    let (secure, plain, files) = (zookeeper.secure_addr(), zookeeper.server.addr(), zookeeper.files());
    let good = format!("zk+tls://{secure}/services?{files}");
    let mut web = Running::start(&good, &["register", "web", "10.0.0.1:80"]);
    web.noted("registered web/10.0.0.1:80 in zk+tls://").await;
    for args in [&["check"][..], &["list", "web"]] {
        let output = run(&good, args).await;
        assert!(output.status.success(), "{output:?}");
    }
    for (url, says) in [
        (format!("zk://{secure}/services"), "zk+tls://"),
        (format!("zk+tls://{plain}/services?{files}"), "leave +tls out"),
        (format!("{good}&server_name=zk.example.org"), "zk.example.org"),
        (format!("zk+tls://{secure}/services?ca={}", zookeeper.pki.ca().display()), "cert=FILE"),
    ] {
        let check = run(&url, &["check"]).await;
        let stdout = text(&check.stdout);
        println!("{url}: {stdout}");
        assert_eq!(check.status.code(), Some(1), "{stdout}");
        assert!(stdout.contains("reach     refused: ") && stdout.contains(says), "{url}: {stdout}");
        let list = run(&url, &["list", "web"]).await;
        assert!(list.status.code() == Some(1) && text(&list.stderr).contains(says), "{list:?}");
    }
    let output = run(&format!("zk+tls://{secure}/?ca=/nowhere/ca.pem"), &["check"]).await;
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(text(&output.stderr).contains("/nowhere/ca.pem"));
}
