//! Users and their rights, and TLS: what is refused has a name, and can be mended without a restart.

use callsign_testkit::etcd::{Gateway, Permission};
use serde_json::Value;

use crate::start;
use crate::support::{Running, confirmed, free, run, server};

/// An etcd with a user `al`, who may read and write, and a user `bo`, who may read below another prefix.
async fn users(raw: &Gateway) -> Gateway {
    let root = raw.enable_auth("canary-root").await.unwrap();
    for slash in ["", "/"] {
        let role = format!("all{}", slash.len());
        root.add_role(&role, &[(&format!("{slash}services/"), Permission::ReadWrite)]).await.unwrap();
    }
    root.add_role("other", &[("other/", Permission::Read)]).await.unwrap();
    root.add_user("al", "canary-right").await.unwrap();
    root.add_user("bo", "canary-bo").await.unwrap();
    for role in ["all0", "all1"] {
        root.grant_role("al", role).await.unwrap();
    }
    root.grant_role("bo", "other").await.unwrap();
    root
}

fn as_user(url: &str, user: &str) -> String {
    url.replacen("etcd://", &format!("etcd://{user}@"), 1)
}

fn pending(line: &Value) -> bool {
    line["freshness"]["state"] == "pending" && line["freshness"]["error"].is_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_password_is_a_state_and_mended_without_a_restart() {
    let (_etcd, raw, url) = start("").await;
    let root = users(&raw).await;
    let wrong = as_user(&url, "al:canary-wrong");
    let mut json = Running::start(&wrong, &["watch", "web", "--json"]);
    let line = json.json("it is refused", pending).await;
    let error = line["freshness"]["error"].as_str().unwrap();
    assert!(error.contains("password"), "{error}");
    assert!(!line.to_string().contains("canary"), "{line}");
    let mut lines = Running::start(&wrong, &["watch", "web"]);
    assert!(lines.said("! not listed yet: ").await.contains("password"));
    let (_port, port) = free();
    let address = format!("127.0.0.1:{port}");
    let mut web = Running::start(&wrong, &[&["register", "web", &address][..], &server(&port)].concat());
    let waits = web.noted(&format!("{address} waits to be registered")).await;
    assert!(waits.contains("check user and password") && !waits.contains("canary"), "{waits}");

    let list = run(&wrong, &["list", "web"]).await;
    assert_eq!(list.status.code(), Some(1));
    let stderr = String::from_utf8(list.stderr).unwrap();
    assert!(stderr.contains("fix: check user and password") && !stderr.contains("canary"), "{stderr}");
    let check = run(&wrong, &["check", "--json"]).await;
    assert_eq!(check.status.code(), Some(1));
    let check: Value = serde_json::from_slice(&check.stdout).unwrap();
    assert!(check["ok"] == false && check["read"]["fix"].is_string(), "{check}");

    // Mended where we look, and then at the registry.
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "canary-wrong").unwrap();
    let from_file = format!("{}?password_file={}", as_user(&url, "al"), file.path().display());
    let mut mended = Running::start(&from_file, &["watch", "web", "--json"]);
    mended.json("it is refused", pending).await;
    std::fs::write(file.path(), "canary-right").unwrap();
    mended.json("it is listed", |line| line["freshness"]["state"] == "fresh").await;
    root.change_password("al", "canary-wrong").await.unwrap();
    web.noted("registered ").await;
    json.json("it is there", |line| confirmed(line) == [&*address]).await;
    lines.said(&format!("+ {address}")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_without_rights_is_told_which() {
    let (_etcd, raw, url) = start("").await;
    let root = users(&raw).await;
    let bo = as_user(&url, "bo:canary-bo");
    let check = run(&bo, &["check"]).await;
    assert_eq!(check.status.code(), Some(1));
    let stdout = String::from_utf8(check.stdout).unwrap();
    for what in [
        "reach     ok",
        "read      refused: ",
        "write     refused: ",
        "permission denied",
        "fix: grant the user",
    ] {
        assert!(stdout.contains(what), "{what}: {stdout}");
    }
    for args in [&["list"][..], &["list", "web"], &["deregister", "web", "x"]] {
        let output = run(&bo, args).await;
        assert_eq!(output.status.code(), Some(1), "{args:?}: {output:?}");
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(stderr.contains("permission denied") && stderr.contains("fix: grant the user"), "{stderr}");
    }
    let mut watch = Running::start(&bo, &["watch", "web", "--json"]);
    let line = watch.json("it is refused", pending).await;
    assert!(line["freshness"]["error"].as_str().unwrap().contains("permission denied"), "{line}");
    for role in ["all0", "all1"] {
        root.grant_role("bo", role).await.unwrap();
    }
    watch.json("it may", |line| line["freshness"]["state"] == "fresh").await;
    assert!(run(&bo, &["check"]).await.status.success());
}

#[cfg(feature = "tls")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_with_tls_is_named() {
    use callsign_testkit::etcd::Etcd;
    use callsign_testkit::pki::Pki;

    let pki = Pki::new().unwrap();
    let mut etcd = Etcd::secured(&pki, &[]).unwrap();
    etcd.start().await.unwrap();
    let client = pki.issue("client", &["client"]).unwrap();
    let (port, plain) = (etcd.addr().port(), Etcd::raw(&etcd).addr().port());
    let files =
        format!("ca={}&cert={}&key={}", pki.ca().display(), client.cert.display(), client.key.display());
    let good = format!("etcd+tls://127.0.0.1:{port}/services?{files}");
    let output = run(&good, &["check"]).await;
    assert!(output.status.success(), "{output:?}");
    for (url, says) in [
        // An https port spoken to in http, and the other way round.
        (format!("etcd://127.0.0.1:{port}/services"), "+tls"),
        (format!("etcd+tls://127.0.0.1:{plain}/services?{files}"), "leave +tls out"),
        // A certificate for another name.
        (format!("{good}&server_name=etcd.example.org"), "etcd.example.org"),
    ] {
        let check = run(&url, &["check"]).await;
        let stdout = String::from_utf8(check.stdout).unwrap();
        println!("{url}: {stdout}");
        assert_eq!(check.status.code(), Some(1), "{stdout}");
        assert!(stdout.contains("reach     refused: ") && stdout.contains(says), "{url}: {stdout}");
        let list = run(&url, &["list", "web"]).await;
        assert_eq!(list.status.code(), Some(1));
        let stderr = String::from_utf8(list.stderr).unwrap();
        assert!(stderr.contains(says), "{url}: {stderr}");
        let mut watch = Running::start(&url, &["watch", "web", "--json"]);
        let line = watch.json("it is refused", pending).await;
        assert!(line["freshness"]["error"].as_str().unwrap().contains(says), "{line}");
    }
    let output = run(&format!("etcd+tls://127.0.0.1:{port}/?ca=/nowhere/ca.pem"), &["check"]).await;
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(String::from_utf8(output.stderr).unwrap().contains("/nowhere/ca.pem"));
}
