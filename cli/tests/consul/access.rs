//! ACL tokens: what is refused has a name, and is mended without a restart.

use callsign_testkit::consul::{Api, Consul, MANAGEMENT};
use callsign_testkit::server::Server;
use serde_json::{Value, json};
use tempfile::NamedTempFile;

use crate::support::{Running, confirmed, run, text};

/// A Consul that knows no token but the one that may do everything, and one that may read.
const READER: &str = "00000000-0000-4000-8000-00000000cafe";
const WRONG: &str = "00000000-0000-4000-8000-0000000dead0";

async fn start() -> (Server<Consul>, Api) {
    let mut consul = Consul::with_rules().unwrap();
    consul.start().await.unwrap();
    let raw = Consul::raw(&consul);
    let rules = r#"service_prefix "" { policy = "read" } node_prefix "" { policy = "read" }"#;
    raw.put("acl/policy", &json!({ "Name": "reader", "Rules": rules })).await.unwrap();
    let reader = json!({ "SecretID": READER, "Policies": [{ "Name": "reader" }] });
    raw.put("acl/token", &reader).await.unwrap();
    (consul, raw)
}

fn file(token: &str) -> NamedTempFile {
    let file = NamedTempFile::new().unwrap();
    std::fs::write(file.path(), token).unwrap();
    file
}

fn pending(line: &Value) -> bool {
    line["freshness"]["state"] == "pending" && line["freshness"]["error"].is_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_token_is_a_state_and_mended_without_a_restart() {
    let (consul, _raw) = start().await;
    let token = file(WRONG);
    let from_file = format!("consul://{}/?token_file={}", consul.addr(), token.path().display());
    let in_url = format!("consul://token:{WRONG}@{}", consul.addr());
    for url in [&from_file, &in_url] {
        let list = run(url, &["list", "web"]).await;
        assert_eq!(list.status.code(), Some(1), "{list:?}");
        let stderr = text(&list.stderr);
        assert!(stderr.contains("ACL not found") && stderr.contains("fix: "), "{stderr}");
        assert!(!stderr.contains(WRONG), "{stderr}");
        let check = run(url, &["check", "--json"]).await;
        assert_eq!(check.status.code(), Some(1), "{check:?}");
        assert!(!text(&check.stdout).contains(WRONG) && !text(&check.stderr).contains(WRONG), "{check:?}");
        let check: Value = serde_json::from_slice(&check.stdout).unwrap();
        assert!(check["ok"] == false && check["read"]["fix"].is_string(), "{check}");
    }
    let mut watch = Running::start(&from_file, &["watch", "web", "--json"]);
    let line = watch.json("it is refused", pending).await;
    assert!(line["freshness"]["error"].as_str().unwrap().contains("ACL not found"), "{line}");
    assert!(!line.to_string().contains(WRONG), "{line}");
    let mut web = Running::start(&from_file, &["register", "web", "10.0.0.1:80"]);
    let waits = web.noted("10.0.0.1:80 waits to be registered").await;
    assert!(waits.contains("ACL not found") && !waits.contains(WRONG), "{waits}");

    std::fs::write(token.path(), MANAGEMENT).unwrap();
    web.noted("registered ").await;
    watch.json("it is there", |line| confirmed(line) == ["10.0.0.1:80"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_without_rights_is_told_which() {
    let (consul, raw) = start().await;
    raw.register("web", "theirs", "10.0.0.2", 80).await.unwrap();
    let token = file(READER);
    let url = format!("consul://{}/?token_file={}", consul.addr(), token.path().display());
    let check = run(&url, &["check"]).await;
    assert_eq!(check.status.code(), Some(1), "{check:?}");
    let stdout = text(&check.stdout);
    for what in ["reach     ok", "read      ok", "write     refused: ", "service:write"] {
        assert!(stdout.contains(what), "{what}: {stdout}");
    }
    let list = run(&url, &["list", "web"]).await;
    assert!(list.status.success() && text(&list.stdout).contains("theirs@n1"), "{list:?}");
    // Who has none is told so, and sees no empty list.
    let list = run(&format!("consul://{}", consul.addr()), &["list", "web"]).await;
    assert_eq!(list.status.code(), Some(1), "{list:?}");
    assert!(text(&list.stderr).contains("shows nothing to who has no ACL token"), "{list:?}");
}
