use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use super::*;
use crate::paths::{Paths, id_of};

fn book() -> ServiceName {
    ServiceName::new("book").unwrap()
}

fn read(name: &str, value: &str) -> Result<Vec<Instance>, String> {
    decode(&book(), &InstanceId::new(name).unwrap(), value.as_bytes(), None)
}

fn one(name: &str, value: &str) -> Instance {
    let mut all = read(name, value).unwrap();
    assert_eq!(all.len(), 1, "{all:?}");
    all.remove(0)
}

fn written(format: Format, instance: &Instance) -> String {
    String::from_utf8(encode(format, instance, 1_795_440_520_722).unwrap()).unwrap()
}

/// As Spring Cloud stored it.
const SPRING: &str = r#"{"name":"orders","id":"65383b17-3c7d-4ed4-97bc-368c8b7517cb","address":"127.0.0.1","port":19021,"sslPort":null,"payload":{"@class":"org.springframework.cloud.zookeeper.discovery.ZookeeperInstance","id":"orders","name":"orders","metadata":{"zone":"z1","weight":"5","instance_status":"UP"}},"registrationTimeUTC":1795440520722,"serviceType":"DYNAMIC","uriSpec":{"parts":[{"value":"scheme","variable":true},{"value":"://","variable":false},{"value":"address","variable":true},{"value":":","variable":false},{"value":"port","variable":true}]}}"#;

#[test]
fn what_spring_wrote_is_read() {
    let instance = one("65383b17-3c7d-4ed4-97bc-368c8b7517cb", SPRING);
    assert_eq!(instance.address().to_string(), "127.0.0.1:19021");
    assert_eq!((instance.zone(), instance.weight(), instance.state()), (Some("z1"), 5, State::Up));
    assert!(instance.metadata().is_empty());
    let out = SPRING.replace("\"UP\"", "\"OUT_OF_SERVICE\"");
    assert_eq!(one("a", &out).state(), State::Down);
}

#[test]
fn what_is_written_is_what_spring_writes_but_for_our_own_object() {
    let instance = Instance::new("orders", "127.0.0.1:19021").unwrap();
    let instance = instance.with_id("65383b17-3c7d-4ed4-97bc-368c8b7517cb").unwrap();
    let full = instance.clone().with_zone("z1").unwrap().with_weight(5).with_metadata("a", "b").unwrap();
    let text = written(Format::Curator, &full);
    let expected = SPRING
        .replace(
            r#"{"zone":"z1","weight":"5","instance_status":"UP"}"#,
            r#"{"a":"b","instance_status":"UP","weight":"5","zone":"z1"}"#,
        )
        .replace(
            "]}}",
            r#"]},"callsign":{"weight":5,"zone":"z1","added":["zone","weight","instance_status"]}}"#,
        );
    assert_eq!(text, expected);
    // Nothing to say: no payload, which every reader of Curator's takes.
    let (before, after) = SPRING.split_once(r#"{"@class""#).unwrap();
    let after = after.split_once("}}").unwrap().1;
    assert_eq!(written(Format::Curator, &instance), format!("{before}null{after}"));
}

#[test]
fn what_others_wrote_is_read() {
    let least = one("i", r#"{"name":"fb","id":"i","address":"127.0.0.1","port":19099}"#);
    assert_eq!((least.address().port(), least.id().as_str()), (19099, "i"));
    let secure = one("i", r#"{"address":"h","port":80,"sslPort":443,"payload":7}"#);
    assert_eq!((secure.address().port(), secure.protocol()), (443, Some("https")));
    assert_eq!(one("i", r#"{"address":"h","port":80,"enabled":false}"#).state(), State::Down);
    // Druid, which has no port for TLS. Jackson takes a number in quotes for one.
    for other in [r#"{"address":"h","port":80,"sslPort":-1}"#, r#"{"address":"h","port":"80","sslPort":0}"#] {
        assert_eq!((one("i", other).address().port(), one("i", other).protocol()), (80, None), "{other}");
    }
    let zone = "z".repeat(200);
    let odd = format!(r#"{{"address":"h","port":80,"payload":{{"metadata":{{"zone":"{zone}"}}}}}}"#);
    assert_eq!((one("i", &odd).zone(), &one("i", &odd).metadata()["zone"]), (None, &zone));
    // Go kit.
    let gokit = one("_c_ece0c92abc631337f27eca6fdb01f432-0000000000", "10.0.2.10:80");
    assert_eq!(gokit.address().to_string(), "10.0.2.10:80");
    // Kratos.
    let kratos = one(
        "a1b2",
        r#"{"id":"a1b2","name":"book","version":"v1.0.0","metadata":{"az":"z1","weight":"10"},"endpoints":["grpc://10.0.0.1:9000"]}"#,
    );
    assert_eq!((kratos.weight(), kratos.protocol(), kratos.version()), (10, Some("grpc"), Some("v1.0.0")));
    let both = r#"{"endpoints":["grpc://10.0.0.1:9000","http://10.0.0.1:8000"]}"#;
    let ids: Vec<_> = read("a", both).unwrap().iter().map(|i| i.id().to_string()).collect();
    assert_eq!(ids, ["a@grpc", "a@http"]);
    // Kitex: the address is the name.
    let kitex = one("10.0.0.1:8888", r#"{"Weight":20,"Tags":{"zone":"z1"}}"#);
    assert_eq!((kitex.address().port(), kitex.weight(), &*kitex.metadata()["zone"]), (8888, 2, "z1"));
    // Dubbo.
    let dubbo = one(
        "10.0.0.1:20000",
        r#"{"name":"svc","id":"10.0.0.1:20000","address":"10.0.0.1","port":20000,"payload":{"@class":"org.apache.dubbo.registry.zookeeper.ZookeeperInstance","metadata":{"dubbo.protocol":"tri"}}}"#,
    );
    assert_eq!((dubbo.address().port(), &*dubbo.metadata()["dubbo.protocol"]), (20000, "tri"));
}

#[test]
fn what_is_written_for_others_is_what_they_write() {
    let instance = Instance::new("book", "10.0.0.1:8888").unwrap();
    assert_eq!(written(Format::GoKit, &instance), "10.0.0.1:8888");
    assert_eq!(written(Format::Kitex, &instance), r#"{"Weight":10,"Tags":{}}"#);
    assert_eq!(
        written(Format::Kratos, &instance.clone().with_id("a1b2").unwrap()),
        r#"{"id":"a1b2","name":"book","version":"","metadata":null,"endpoints":["grpc://10.0.0.1:8888"]}"#
    );
    for (_, format) in Format::ALL {
        let draining = instance.clone().with_state(State::Draining);
        assert_eq!(encode(format, &draining, 0).is_some(), format == Format::Curator);
    }
}

#[test]
fn what_cannot_be_understood_is_an_error() {
    for value in [
        "",
        "null",
        "{",
        "[]",
        "{}",
        "not an address",
        r#"{"name":"x"}"#,
        r#"{"address":null,"port":1}"#,
        r#"{"address":7,"port":1}"#,
        r#"{"address":"10.0.0.1"}"#,
        r#"{"address":"10.0.0.1","port":0}"#,
        r#"{"address":"10.0.0.1","port":70000}"#,
        r#"{"address":"10.0.0.1","port":-1}"#,
        r#"{"address":"10.0.0.1","port":"8o"}"#,
        r#"{"address":"10.0.0.1","port":80.5}"#,
        r#"{"address":"10.0.0.1","port":-1,"sslPort":-1}"#,
        r#"{"address":"0.0.0.0","port":80}"#,
        r#"{"endpoints":[]}"#,
        r#"{"Weight":10,"Tags":null}"#,
    ] {
        assert!(read("node", value).is_err(), "{value}");
    }
    let large = format!(r#"{{"address":"10.0.0.1","port":80,"x":"{}"}}"#, "x".repeat(MAX_VALUE));
    assert!(read("node", &large).unwrap_err().contains("bytes"));
    assert!(decode(&book(), &InstanceId::new("a").unwrap(), b"\xff", None).is_err());
}

prop_compose! {
    fn any_instance()(
        id in "[a-z0-9:./%@ ü]{1,20}",
        host in prop_oneof![Just("10.0.0.1"), Just("[::1]"), Just("h.example.org")],
        port in 1..=u16::MAX,
        state in prop_oneof![Just(State::Up), Just(State::Draining), Just(State::Down)],
        weight in any::<u32>(),
        protocol in proptest::option::of("[a-z][a-z0-9+.-]{0,8}"),
        zone in proptest::option::of("[a-z0-9-]{1,12}"),
        version in proptest::option::of("[a-z0-9.]{1,12}"),
        metadata in proptest::collection::btree_map("(zone|weight|instance_status|[a-bd-z]{1,6})", ".{0,12}|[0-9]{1,2}", 0..4),
    ) -> Instance {
        let mut instance = Instance::new("book", format!("{host}:{port}")).unwrap().with_id(&id).unwrap()
            .with_state(state).with_weight(weight);
        if let Some(protocol) = protocol { instance = instance.with_protocol(&protocol).unwrap(); }
        if let Some(zone) = zone { instance = instance.with_zone(&zone).unwrap(); }
        if let Some(version) = version { instance = instance.with_version(&version).unwrap(); }
        let metadata: BTreeMap<_, _> = metadata;
        instance.with_all_metadata(metadata).unwrap()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, rng_seed: RngSeed::Fixed(6), ..ProptestConfig::default() })]

    #[test]
    fn what_is_written_is_read_back(instance in any_instance()) {
        let value = encode(Format::Curator, &instance, 7).unwrap();
        let read = decode(&book(), instance.id(), &value, None).unwrap();
        prop_assert_eq!(read, vec![instance]);
    }

    #[test]
    fn others_formats_keep_all_that_they_can(instance in any_instance()) {
        let up = instance.with_state(State::Up);
        for (_, format) in Format::ALL {
            let value = encode(format, &up, 7).unwrap();
            let path = Paths::new("/", &[]).of_instance(format, &up);
            let node = id_of(path.rsplit_once('/').unwrap().1).unwrap();
            let read = decode(&book(), &node, &value, None).unwrap();
            let expected = match format {
                Format::GoKit => {
                    Instance::new("book", up.address().clone()).unwrap().with_id(up.id().as_str()).unwrap()
                }
                // It must say what is spoken.
                Format::Kratos if up.protocol().is_none() => up.clone().with_protocol("grpc").unwrap(),
                // A number in 32 bits holds ten times as much.
                Format::Kitex if up.weight() > u32::MAX / 10 => up.clone().with_weight(read[0].weight()),
                Format::Curator | Format::Kratos | Format::Kitex => up.clone(),
            };
            prop_assert_eq!(read, vec![expected], "{:?}", format);
        }
    }

    #[test]
    fn no_data_panics(value in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = decode(&book(), &InstanceId::new("a").unwrap(), &value, None);
    }
}
