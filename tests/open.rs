//! What `callsign::open` makes of good and bad URLs.

use callsign::ErrorKind;

// A helper of tests reports by panicking, as tests do.
#[allow(clippy::unwrap_used)]
fn refused(url: &str) -> (ErrorKind, String) {
    let error = callsign::open(url).unwrap_err();
    (error.kind(), error.chain())
}

#[tokio::test]
async fn bad_urls_name_the_value_and_the_fix() {
    for (url, says) in [
        ("etcd", "no scheme"),
        ("consulate://h/x", "unknown scheme \"consulate\": built in are file, memory, static"),
        ("memory:x?ttl=ten", "a duration"),
        ("memory:x?ttl=1ms", "1s to"),
        ("memory:x?tll=10s", "unknown key \"tll\": known here are drain, grace, ttl, verify"),
        ("memory:x?ttl=10s&ttl=11s", "twice"),
        ("static:", "names no service"),
        ("static:book=127.0.0.1:0", "port 0"),
        ("static:book=127.0.0.1:70000", "port 70000"),
        ("static:book=127.0.0.1", "no port"),
        ("static:b/k=127.0.0.1:1", "letters, digits"),
        ("file://relative", "file:///"),
    ] {
        let (_, error) = refused(url);
        assert!(error.contains(says), "{url}: {error}");
    }
}

#[cfg(not(feature = "etcd"))]
#[tokio::test]
async fn a_scheme_that_is_not_built_in_names_its_feature() {
    let (kind, error) = refused("etcd://127.0.0.1:2379/services");
    assert_eq!(kind, ErrorKind::Unsupported);
    assert!(error.contains("--features etcd") && error.contains("file, memory, static"), "{error}");
}

#[cfg(feature = "etcd")]
#[tokio::test]
async fn opening_does_no_network_io() {
    let registry = callsign::open("etcd://127.0.0.1:1,[::1]:1/services?format=gokit&ttl=5s").unwrap();
    assert!(registry.watch(&"book".parse().unwrap()).snapshot().freshness().is_pending());
    for (url, says) in [
        ("etcd://127.0.0.1:1/services?formt=gokit", "known here are"),
        ("etcd://127.0.0.1:1/services?format=yaml", "one of"),
        ("etcd:///services", "no host"),
        ("etcd://127.0.0.1:0/services", "port 0"),
    ] {
        let (_, error) = refused(url);
        assert!(error.contains(says), "{url}: {error}");
    }
    let (_, error) = refused("etcd://user:canary@127.0.0.1:1/services?formt=gokit");
    assert!(!error.contains("canary"), "{error}");
    let opened = callsign::open("etcd://user:canary@127.0.0.1:1/services").unwrap();
    assert!(!format!("{opened:?}").contains("canary"), "{opened:?}");
}

#[test]
fn outside_a_runtime_is_an_error_and_no_panic() {
    let (kind, error) = refused("memory:x");
    assert_eq!(kind, ErrorKind::Unsupported);
    assert!(error.contains("Tokio runtime"), "{error}");
}

#[tokio::test]
async fn memory_registries_of_one_name_are_one() {
    let (one, two) =
        (callsign::open("memory:open-test").unwrap(), callsign::open("memory:open-test").unwrap());
    let other = callsign::open("memory:open-test-other").unwrap();
    let registration = one.register(callsign::Instance::new("book", "[::1]:1").unwrap()).await.unwrap();
    let mut watch = two.watch(&registration.service());
    assert_eq!(watch.ready().await.unwrap().len(), 1);
    assert!(other.services().await.unwrap().is_empty());
    let error = two.register(callsign::Instance::new("book", "[::1]:1").unwrap()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
}

/// Two crates of ours must not have a public name each of which only one is seen here.
#[cfg(feature = "grpc")]
#[test]
fn both_what_a_check_finds_and_what_became_of_a_call_have_names() {
    let found = [callsign::Finding::Works(String::new()), callsign::Finding::NotTried(String::new())];
    assert!(!found.iter().any(callsign::Finding::is_refused));
    assert_ne!(callsign::Outcome::Success, callsign::Outcome::Failure);
}
