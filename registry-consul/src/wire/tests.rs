use super::*;
use callsign_core::State;
use proptest::prelude::*;

fn book() -> ServiceName {
    "book".parse().unwrap()
}

fn entry(service: &str, checks: &str) -> Entry {
    let node = r#"{"Node":"n1","Address":"10.9.9.9"}"#;
    serde_json::from_str(&format!(r#"{{"Node":{node},"Service":{service},"Checks":{checks}}}"#)).unwrap()
}

/// What the catalog makes of what an agent was told.
fn listed(told: &Registration, status: &str) -> Entry {
    let mut service = serde_json::to_value(told).unwrap();
    service["Service"] = service["Name"].take();
    let beat = beat_id(&told.meta["callsign-incarnation"]);
    let checks =
        format!(r#"[{{"Status":"passing"}},{{"CheckID":"{beat}","ServiceID":"i","Status":"{status}"}}]"#);
    entry(&service.to_string(), &checks)
}

fn read(service: &str, taking: &Taking) -> Vec<Instance> {
    decode(&book(), &entry(service, r#"[{"Status":"passing"}]"#), taking).unwrap()
}

#[test]
fn what_is_written_is_plain_to_others() {
    let instance = Instance::new("book", "10.0.0.1:50051").unwrap().with_protocol("grpc").unwrap();
    let instance = instance.with_weight(7).with_metadata("team", "library").unwrap();
    let told = encode(Format::Callsign, &instance, "mark").unwrap();
    let json = r#"{"ID":"book:10.0.0.1:50051","Name":"book","Address":"10.0.0.1","Port":50051,"Tags":[],"Meta":{"callsign-id":"10.0.0.1:50051","callsign-incarnation":"mark","callsign-protocol":"grpc","team":"library"},"TaggedAddresses":{"grpc":{"Address":"grpc://10.0.0.1:50051","Port":50051}},"Weights":{"Passing":7,"Warning":1},"EnableTagOverride":false}"#;
    assert_eq!(serde_json::to_string(&told).unwrap(), json);
    let told = encode(Format::Kratos, &instance.with_version("1.2").unwrap(), "mark").unwrap();
    assert_eq!(told.tags, ["version=1.2"]);
    assert_eq!(told.meta["weight"], "7");
}

#[test]
fn entries_of_others_are_read_by_their_conventions() {
    let all = Taking::default();
    let go_kit =
        read(r#"{"ID":"i","Service":"book","Port":1,"Address":"10.0.0.1","Tags":null,"Meta":null}"#, &all);
    assert_eq!((go_kit[0].id().as_str(), &*go_kit[0].address().to_string()), ("i@n1", "10.0.0.1:1"));
    assert_eq!(go_kit[0].weight(), 1);
    let of_node = read(r#"{"ID":"i","Service":"book","Port":1,"Address":""}"#, &all);
    assert_eq!(of_node[0].address().to_string(), "10.9.9.9:1");
    let spring = r#"{"ID":"orders-19011","Service":"orders","Tags":[],"Meta":{"secure":"false","weight":"5","zone":"z1"},"Port":19011,"Address":"fd00::1","TaggedAddresses":{"lan_ipv4":{"Address":"127.0.0.1","Port":19011},"wan_ipv4":{"Address":"127.0.0.1","Port":19011}},"Weights":{"Passing":3,"Warning":1}}"#;
    let spring = &read(spring, &all)[0];
    assert_eq!((spring.protocol(), spring.zone(), spring.weight()), (Some("http"), Some("z1"), 3));
    assert_eq!(spring.address().to_string(), "[fd00::1]:19011");
    let kratos = r#"{"ID":"a1b2","Service":"book","Tags":["version=v1.0.0"],"Port":51061,"Address":"127.0.0.1","TaggedAddresses":{"grpc":{"Address":"grpc://127.0.0.1:51061?isSecure=true","Port":51061},"http":{"Address":"http://127.0.0.1:8000","Port":8000},"lan_ipv4":{"Address":"127.0.0.1","Port":51061}},"Meta":{"az":"z1","weight":"10"}}"#;
    let ids = |instances: &[Instance]| instances.iter().map(|i| i.id().to_string()).collect::<Vec<_>>();
    assert_eq!(ids(&read(kratos, &all)), ["a1b2@n1@grpcs", "a1b2@n1@http"]);
    let grpc = read(kratos, &Taking { protocol: Some("grpc".to_owned()), ..all.clone() });
    assert_eq!(
        (ids(&grpc), grpc[0].version(), grpc[0].protocol()),
        (vec!["a1b2@n1".to_owned()], Some("v1.0.0"), Some("grpcs"))
    );
}

#[test]
fn what_is_not_alive_is_not_listed() {
    let service = r#"{"ID":"i","Port":1,"Address":"10.0.0.1"}"#;
    let warnings = Taking { warnings: true, ..Taking::default() };
    for (checks, by_default, with_warnings) in [
        ("null", 1, 1),
        (r#"[{"Status":"passing"}]"#, 1, 1),
        (r#"[{"Status":"passing"},{"Status":"warning"}]"#, 0, 1),
        (r#"[{"Status":"passing"},{"Status":"critical"}]"#, 0, 0),
        (r#"[{"Status":"maintenance"}]"#, 0, 0),
    ] {
        let entry = entry(service, checks);
        let count = |taking: &Taking| decode(&book(), &entry, taking).unwrap().len();
        assert_eq!((count(&Taking::default()), count(&warnings)), (by_default, with_warnings), "{checks}");
    }
    // Ours that leaves warns, and is listed as what it is.
    let leaving = Instance::new("book", "10.0.0.1:1").unwrap().with_state(State::Draining);
    let told = encode(Format::Callsign, &leaving, "mark").unwrap();
    assert_eq!(decode(&book(), &listed(&told, "warning"), &Taking::default()).unwrap(), [leaving]);
    assert!(decode(&book(), &listed(&told, "critical"), &Taking::default()).unwrap().is_empty());
}

/// Whose agent cannot reach it, or who is put into maintenance, lives and is not to be called.
#[test]
fn life_is_its_owners_word_and_health_is_everybodys() {
    let service = r#"{"ID":"i","Port":1,"Address":"h","Meta":{"callsign-incarnation":"m"}}"#;
    let beat = |status: &str| format!(r#"{{"CheckID":"callsign:m","ServiceID":"i","Status":"{status}"}}"#);
    let of_service = |status: &str| format!(r#"{{"CheckID":"other","ServiceID":"i","Status":"{status}"}}"#);
    let of_node = |status: &str| format!(r#"{{"CheckID":"serfHealth","Status":"{status}"}}"#);
    for (checks, beats, lives, listed) in [
        (beat("passing"), true, true, 1),
        (beat("warning"), true, true, 1),
        (beat("critical"), false, false, 0),
        (format!("{},{}", beat("passing"), of_service("critical")), true, true, 0),
        (format!("{},{}", beat("passing"), of_service("warning")), true, true, 0),
        (format!("{},{}", beat("passing"), of_node("critical")), true, false, 0),
        (of_service("critical"), false, false, 0),
        (String::new(), true, true, 1),
    ] {
        let entry = entry(service, &format!("[{checks}]"));
        let count = decode(&book(), &entry, &Taking::default()).unwrap().len();
        assert_eq!((entry.beats(), entry.lives(), count), (beats, lives, listed), "{checks}");
    }
}

#[test]
fn tags_of_go_micro_are_read() {
    let service = r#"{"ID":"greeter-1f2e","Service":"book","Address":"10.0.0.1","Port":9000,"Meta":{"protocol":"grpc"},"Tags":["e-00","v-789cca492c492d2e01040000ffff08cc028e"]}"#;
    let read = &read(service, &Taking::default())[0];
    assert_eq!((read.version(), read.protocol()), (Some("latest"), Some("grpc")));
}

#[test]
fn what_cannot_be_understood_says_why() {
    for (service, why) in [
        (r#"{"ID":"i","Port":0,"Address":"10.0.0.1"}"#, "port 0"),
        (r#"{"ID":"i","Port":70000,"Address":"10.0.0.1"}"#, "port 70000"),
        (r#"{"ID":"i","Port":1,"Address":"not an address"}"#, "not an address"),
        (
            r#"{"ID":"i","Port":1,"Address":"h","Meta":{"callsign-incarnation":"m","callsign-state":"odd"}}"#,
            "odd",
        ),
        (
            r#"{"ID":"i","Port":1,"Address":"h","Meta":{"callsign-incarnation":"m","callsign-metadata-0":"{"}}"#,
            "callsign-metadata-0",
        ),
    ] {
        let error = decode(&book(), &entry(service, "[]"), &Taking::default()).unwrap_err();
        assert!(error.contains(why), "{service}: {error}");
    }
}

#[test]
fn metadata_beyond_what_consul_takes_is_refused() {
    let big = Instance::new("book", "h:1").unwrap().with_metadata("k", "x".repeat(40_000)).unwrap();
    let error = encode(Format::Callsign, &big, "mark").unwrap_err();
    assert!(error.to_string().contains("40001 bytes"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, rng_seed: proptest::test_runner::RngSeed::Fixed(3), ..ProptestConfig::default() })]

    #[test]
    fn what_is_written_is_read_back(
        metadata in proptest::collection::btree_map("zone|weight|secure|version|[a-zA-Z0-9_.书-]{1,8}", "[0-9]{1,2}|\\PC{0,600}", 0..80),
        weight in prop_oneof![Just(0), Just(1), Just(65_535), any::<u32>()],
        (zone, version, protocol) in (proptest::option::of("[a-z]{1,9}"), proptest::option::of("[0-9.]{1,9}"), proptest::option::of("grpcs?|https?")),
        kratos in any::<bool>(),
    ) {
        let own = |key: &String| key.starts_with("callsign");
        let metadata = metadata.into_iter().filter(|(key, _)| !own(key));
        let Ok(mut instance) = Instance::new("book", "[::1]:9").unwrap().with_all_metadata(metadata) else { return Ok(()) };
        instance = instance.with_weight(weight);
        if let Some(zone) = &zone { instance = instance.with_zone(zone).unwrap(); }
        if let Some(version) = &version { instance = instance.with_version(version).unwrap(); }
        if let Some(protocol) = &protocol { instance = instance.with_protocol(protocol).unwrap(); }
        let format = if kratos { Format::Kratos } else { Format::Callsign };
        let Ok(told) = encode(format, &instance, "mark") else { return Ok(()) };
        prop_assert!(told.meta.len() <= 64);
        prop_assert!(told.meta.iter().all(|(key, value)| key.len() <= 128 && value.len() <= 512));
        let read = decode(&book(), &listed(&told, "passing"), &Taking::default()).unwrap();
        prop_assert_eq!(read, vec![instance]);
    }
}
