use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use super::*;
use crate::keys::{Keys, id_of, service_of};

fn book() -> ServiceName {
    "book".parse().unwrap()
}

fn id(text: &str) -> InstanceId {
    InstanceId::new(text).unwrap()
}

fn read_all(value: &str, protocol: Option<&str>) -> Result<Vec<Instance>, String> {
    decode(&book(), &id("x"), value.as_bytes(), protocol)
}

fn read(value: &str) -> Result<Instance, String> {
    let mut all = read_all(value, None)?;
    assert_eq!(all.len(), 1, "{all:?}");
    Ok(all.remove(0))
}

fn written(format: Format, instance: &Instance) -> String {
    String::from_utf8(encode(format, instance).unwrap()).unwrap()
}

#[test]
fn gokit_is_the_tutorials_system_byte_for_byte() {
    let instance = Instance::new("book", "127.0.0.1:50052").unwrap();
    let keys = Keys::new("/services", &[]);
    assert_eq!(keys.of_instance(Format::GoKit, &book(), instance.id()), "/services/book/127.0.0.1:50052");
    assert_eq!(written(Format::GoKit, &instance), "127.0.0.1:50052");
    let six = Instance::new("book", "[::1]:50052").unwrap();
    assert_eq!(keys.of_instance(Format::GoKit, &book(), six.id()), "/services/book/[::1]:50052");
    assert_eq!(written(Format::GoKit, &six), "[::1]:50052");
    for state in [State::Draining, State::Down] {
        assert_eq!(encode(Format::GoKit, &instance.clone().with_state(state)), None);
    }
}

#[test]
fn grpc_is_gos_naming_byte_for_byte() {
    let instance = Instance::new("book", "10.0.0.1:9000").unwrap();
    let keys = Keys::new("/services", &[]);
    assert_eq!(keys.of_instance(Format::Grpc, &book(), instance.id()), "services/book/10.0.0.1:9000");
    assert_eq!(written(Format::Grpc, &instance), r#"{"Op":0,"Addr":"10.0.0.1:9000","Metadata":null}"#);
    let named = instance.clone().with_metadata("team", "library").unwrap().with_metadata("az", "z1").unwrap();
    assert_eq!(
        written(Format::Grpc, &named),
        r#"{"Op":0,"Addr":"10.0.0.1:9000","Metadata":{"az":"z1","team":"library"}}"#
    );
    let full = instance
        .with_protocol("grpc")
        .and_then(|i| i.with_zone("eu-1"))
        .and_then(|i| i.with_version("1.2"))
        .unwrap()
        .with_weight(10)
        .with_state(State::Draining);
    assert_eq!(
        written(Format::Grpc, &full),
        concat!(
            r#"{"Op":0,"Addr":"10.0.0.1:9000","Metadata":null,"callsign":{"protocol":"grpc","state":"draining","#,
            r#""version":"1.2","weight":10,"zone":"eu-1"}}"#
        )
    );
}

#[test]
fn reads_what_others_write() {
    let at = |text: &str| Instance::new("book", text).unwrap().with_id("x").unwrap();
    for (value, is) in [
        ("127.0.0.1:50052", at("127.0.0.1:50052")),
        ("127.0.0.1:50052\n", at("127.0.0.1:50052")),
        ("[::1]:80", at("[::1]:80")),
        ("web.example.org:80", at("web.example.org:80")),
        ("http://1.2.3.4:8080", at("1.2.3.4:8080").with_protocol("http").unwrap()),
        ("HTTPS://[::1]:8080/", at("[::1]:8080").with_protocol("https").unwrap()),
        (r#"{"Op":0,"Addr":"10.0.0.1:9000","Metadata":null}"#, at("10.0.0.1:9000")),
        (r#" {"Metadata":{},"Addr":"[::1]:1","Op":1,"Key":"k"} "#, at("[::1]:1")),
        (r#"{"Addr":"10.0.0.1:9000"}"#, at("10.0.0.1:9000")),
        (r#"{"Addr":"10.0.0.1:9000","callsign":null}"#, at("10.0.0.1:9000")),
        (
            r#"{"Addr":"h:1","Metadata":{"a":"x","b":7,"c":true,"d":null,"e":{"f":[1]},"":"","callsign.z":"1"}}"#,
            ["a=x", "b=7", "c=true", r#"e={"f":[1]}"#].iter().fold(at("h:1"), |instance, pair| {
                let (key, value) = pair.split_once('=').unwrap();
                instance.with_metadata(key, value).unwrap()
            }),
        ),
        (r#"{"Addr":"h:1","Metadata":"blue"}"#, at("h:1").with_metadata("metadata", "blue").unwrap()),
        (r#"{"Addr":"h:1","callsign":{"weight":0,"new":1}}"#, at("h:1").with_weight(0)),
    ] {
        assert_eq!(read(value), Ok(is), "{value}");
    }
}

#[test]
fn what_cannot_be_understood_says_why() {
    for (value, says) in [
        ("", "no port"),
        ("127.0.0.1", "no port"),
        ("127.0.0.1:0", "port 0"),
        ("127.0.0.1:70000", "70000"),
        ("0.0.0.0:80", "advertise"),
        ("http://a/b:80", "neither"),
        ("http://user:pw@a:80", "brackets"),
        ("null", "no port"),
        ("{", "no such JSON"),
        ("{}", "\"endpoints\""),
        (r#"{"Addr":null}"#, "Addr"),
        (r#"{"endpoints":[]}"#, "no endpoint"),
        (r#"{"endpoints":["h"]}"#, "no port"),
        (r#"{"endpoints":[{"url":"grpc://h:1"}]}"#, "no text"),
        (r#"{"endpoints":[{"name":"Say.Hello"}],"nodes":[]}"#, "no node"),
        (r#"{"nodes":["h:1"]}"#, "go-micro"),
        (r#"{"nodes":[{"id":"a"}]}"#, "no address"),
        (r#"{"nodes":[{"id":"","address":"h:1"},{"id":"b","address":"h:2"}]}"#, "0 bytes"),
        (r#"{"network":"unix","address":"/tmp/a.sock"}"#, "unix"),
        (r#"{"Addr":7}"#, "no such JSON"),
        (r#"{"Addr":"h:1","callsign":{"state":"asleep"}}"#, "asleep"),
        (r#"{"Addr":"h:1","callsign":{"weight":-1}}"#, "no such JSON"),
    ] {
        let why = read(value).unwrap_err();
        assert!(why.contains(says), "{value}: {why}");
    }
    assert!(decode(&book(), &id("x"), b"\xff\xfe", None).unwrap_err().contains("UTF-8"));
    assert!(decode(&book(), &id("x"), &vec![b'a'; MAX_VALUE + 1], None).unwrap_err().contains("1048577"));
    let deep = format!(r#"{{"Addr":"h:1","Metadata":{}1{}}}"#, "[".repeat(10_000), "]".repeat(10_000));
    assert!(read(&deep).unwrap_err().contains("no such JSON"));
    let many: Vec<_> = (0..40_000).map(|n| format!(r#""{n}":"x""#)).collect();
    let many = format!(r#"{{"Addr":"h:1","Metadata":{{{}}}}}"#, many.join(","));
    assert!(read(&many).unwrap_err().contains("metadata"));
}

/// The bytes of FORMATS: what each framework's own client stores.
#[test]
fn others_formats_byte_for_byte() {
    let plain = Instance::new("book", "10.0.0.1:9000").unwrap().with_id("a1b2").unwrap();
    let full =
        plain.clone().with_version("v1.0.0").unwrap().with_metadata("az", "z1").unwrap().with_weight(10);
    let key = |format: Format| {
        Keys::new(format.default_prefix(), &[]).of_instance(format, plain.service(), plain.id())
    };
    for (format, at, bare, rich) in [
        (
            Format::Kratos,
            "/microservices/book/a1b2",
            r#"{"id":"a1b2","name":"book","version":"","metadata":null,"endpoints":["grpc://10.0.0.1:9000"]}"#,
            concat!(
                r#"{"id":"a1b2","name":"book","version":"v1.0.0","metadata":{"az":"z1","weight":"10"},"#,
                r#""endpoints":["grpc://10.0.0.1:9000"]}"#
            ),
        ),
        (
            Format::Kitex,
            "kitex/registry-etcd/book/a1b2",
            r#"{"network":"tcp","address":"10.0.0.1:9000","weight":10,"tags":null}"#,
            concat!(
                r#"{"network":"tcp","address":"10.0.0.1:9000","weight":100,"tags":{"az":"z1"},"#,
                r#""callsign":{"version":"v1.0.0"}}"#
            ),
        ),
        (
            Format::GoMicro,
            "/micro/registry/book/a1b2",
            concat!(
                r#"{"name":"book","version":"latest","metadata":null,"endpoints":null,"#,
                r#""nodes":[{"metadata":null,"id":"a1b2","address":"10.0.0.1:9000"}]}"#
            ),
            concat!(
                r#"{"name":"book","version":"v1.0.0","metadata":null,"endpoints":null,"#,
                r#""nodes":[{"metadata":{"az":"z1"},"id":"a1b2","address":"10.0.0.1:9000"}],"callsign":{"weight":10}}"#
            ),
        ),
        (Format::GoZero, "book/a1b2", "10.0.0.1:9000", "10.0.0.1:9000"),
    ] {
        assert_eq!(key(format), at);
        assert_eq!(written(format, &plain), bare);
        assert_eq!(written(format, &full), rich);
        for state in [State::Draining, State::Down] {
            assert_eq!(encode(format, &plain.clone().with_state(state)), None, "{format:?}");
        }
    }
}

/// What a framework means something by is still metadata where an instance has it as that: it stands as it was given.
#[test]
fn metadata_called_like_a_formats_own_stays_metadata() {
    let plain = Instance::new("book", "10.0.0.1:9000").unwrap().with_id("a1b2").unwrap();
    let weight = plain.clone().with_weight(2).with_metadata("weight", "heavy").unwrap();
    assert_eq!(
        written(Format::Kratos, &weight),
        concat!(
            r#"{"id":"a1b2","name":"book","version":"","metadata":{"weight":"heavy"},"#,
            r#""endpoints":["grpc://10.0.0.1:9000"],"callsign":{"weight":2,"kept":["weight"]}}"#
        )
    );
    let protocol = plain.with_version("latest").unwrap().with_metadata("protocol", "v2").unwrap();
    assert_eq!(
        written(Format::GoMicro, &protocol),
        concat!(
            r#"{"name":"book","version":"latest","metadata":null,"endpoints":null,"#,
            r#""nodes":[{"metadata":{"protocol":"v2"},"id":"a1b2","address":"10.0.0.1:9000"}],"#,
            r#""callsign":{"version":"latest","kept":["protocol"]}}"#
        )
    );
}

#[test]
fn reads_what_other_frameworks_write() {
    let at = |text: &str| Instance::new("book", text).unwrap().with_id("x").unwrap();
    let spoken = |text: &str, protocol: &str| at(text).with_protocol(protocol).unwrap();
    let tagged = |instance: Instance, key: &str, value: &str| instance.with_metadata(key, value).unwrap();
    for (value, is) in [
        (
            concat!(
                r#"{"id":"a1b2","name":"book","version":"v1.0.0","metadata":{"az":"z1","weight":"10"},"#,
                r#""endpoints":["grpc://10.0.0.1:9000"]}"#
            ),
            tagged(spoken("10.0.0.1:9000", "grpc"), "az", "z1")
                .with_version("v1.0.0")
                .unwrap()
                .with_weight(10),
        ),
        (
            r#"{"id":"a1b2","name":"book","version":"","metadata":null,"endpoints":["http://10.0.0.1:80"]}"#,
            spoken("10.0.0.1:80", "http"),
        ),
        (r#"{"endpoints":["grpc://10.0.0.1:9000?isSecure=true"]}"#, spoken("10.0.0.1:9000", "grpcs")),
        (r#"{"endpoints":["grpc://10.0.0.1:9000?isSecure=false"]}"#, spoken("10.0.0.1:9000", "grpc")),
        // A weight that is none stays what it is.
        (
            r#"{"metadata":{"weight":"heavy"},"endpoints":["grpc://h:1"]}"#,
            tagged(spoken("h:1", "grpc"), "weight", "heavy"),
        ),
        (r#"{"network":"tcp","address":"10.0.0.1:8888","weight":10,"tags":null}"#, at("10.0.0.1:8888")),
        (r#"{"network":"tcp","address":"10.0.0.1:8888","weight":0,"tags":null}"#, at("10.0.0.1:8888")),
        (r#"{"address":"10.0.0.1:8888","weight":-4}"#, at("10.0.0.1:8888")),
        (r#"{"address":"10.0.0.1:8888","weight":3}"#, at("10.0.0.1:8888")),
        (r#"{"address":"10.0.0.1:8888","weight":25}"#, at("10.0.0.1:8888").with_weight(3)),
        (
            r#"{"network":"tcp","address":"[::1]:8888","weight":100,"tags":{"zone":"z1"}}"#,
            tagged(at("[::1]:8888").with_weight(10), "zone", "z1"),
        ),
        (
            concat!(
                r#"{"name":"greeter","version":"latest","metadata":null,"endpoints":null,"nodes":[{"metadata":"#,
                r#"{"broker":"http","protocol":"grpc"},"id":"greeter-1f2e","address":"10.0.0.1:9000"}]}"#
            ),
            tagged(spoken("10.0.0.1:9000", "grpc"), "broker", "http"),
        ),
        (
            r#"{"name":"greeter","version":"2","endpoints":[{"name":"Say.Hello"}],"nodes":[{"address":"h:1"}]}"#,
            at("h:1").with_version("2").unwrap(),
        ),
    ] {
        assert_eq!(read(value), Ok(is), "{value}");
    }
}

#[test]
fn an_entry_of_several_endpoints_is_several_instances_or_those_that_speak_a_protocol() {
    let value = r#"{"endpoints":["http://h:1","grpc://h:2?isSecure=true","grpc://h:3"]}"#;
    let ids = |value: &str, protocol: Option<&str>| -> Vec<String> {
        let all = read_all(value, protocol).unwrap();
        all.iter().map(|instance| format!("{} {}", instance.id(), instance.address())).collect()
    };
    assert_eq!(ids(value, None), ["x@http h:1", "x@grpcs h:2", "x@grpc h:3"]);
    assert_eq!(ids(value, Some("grpc")), ["x@grpcs h:2", "x@grpc h:3"]);
    assert_eq!(ids(value, Some("http")), ["x h:1"]);
    assert!(ids(value, Some("tcp")).is_empty());
    assert_eq!(ids(r#"{"endpoints":["grpc://h:1","grpc://h:2"]}"#, None), ["x@grpc h:1", "x@grpc1 h:2"]);
    let nodes = r#"{"nodes":[{"id":"a","address":"h:1"},{"id":"b","address":"h:2"}]}"#;
    assert_eq!(ids(nodes, None), ["a h:1", "b h:2"]);
}

fn instances() -> impl Strategy<Value = Instance> {
    let address = prop_oneof![
        (any::<[u8; 4]>(), 1u16..)
            .prop_filter("unspecified", |(ip, _)| *ip != [0; 4])
            .prop_map(|(ip, port)| { std::net::SocketAddr::from((ip, port)).to_string() }),
        (1u128.., 1u16..)
            .prop_map(|(ip, port)| std::net::SocketAddr::from((ip.to_be_bytes(), port)).to_string()),
        ("[a-z][a-z0-9]{0,10}(\\.[a-z]{2,5}){0,2}", 1u16..).prop_map(|(host, port)| format!("{host}:{port}")),
    ];
    let text = || {
        proptest::option::of(
            "latest|[^\\p{Cc}]{1,20}".prop_filter("length", |text: &String| text.len() <= 128),
        )
    };
    let metadata = proptest::collection::btree_map(
        "weight|protocol|[a-z&<>\"\\\\书]{1,12}",
        prop_oneof![any::<String>(), "[a-z0-9]{1,3}".boxed()],
        0..4,
    );
    let state = prop_oneof![Just(State::Up), Just(State::Draining), Just(State::Down)];
    let id = "[^\\p{Cc}]{1,30}".prop_filter("length", |text: &String| text.len() <= 256);
    (
        address,
        id,
        prop_oneof![0u32..20, any::<u32>()],
        state,
        text(),
        text(),
        proptest::option::of("[a-z][a-z0-9+.-]{0,8}"),
        metadata,
    )
        .prop_map(|(address, id, weight, state, zone, version, protocol, metadata)| {
            let mut instance = Instance::new("book", address.as_str()).unwrap().with_id(&id).unwrap();
            instance = instance.with_weight(weight).with_state(state);
            if let Some(zone) = zone {
                instance = instance.with_zone(&zone).unwrap();
            }
            if let Some(version) = version {
                instance = instance.with_version(&version).unwrap();
            }
            if let Some(protocol) = protocol {
                instance = instance.with_protocol(&protocol).unwrap();
            }
            instance.with_all_metadata(metadata).unwrap()
        })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, rng_seed: RngSeed::Fixed(5), ..ProptestConfig::default() })]

    #[test]
    fn grpc_comes_back_as_it_went(instance in instances()) {
        let value = encode(Format::Grpc, &instance).unwrap();
        prop_assert_eq!(decode(instance.service(), instance.id(), &value, None), Ok(vec![instance]));
    }

    #[test]
    fn others_formats_keep_all_that_they_can(instance in instances()) {
        let up = instance.with_state(State::Up);
        for (_, format) in Format::ALL {
            let value = encode(format, &up).unwrap();
            let read = decode(up.service(), up.id(), &value, None).unwrap();
            let expected = match format {
                Format::Grpc => up.clone(),
                Format::GoKit | Format::GoZero => {
                    Instance::new(up.service(), up.address().clone()).unwrap().with_id(up.id().as_str()).unwrap()
                }
                // It must say what is spoken.
                Format::Kratos if up.protocol().is_none() => up.clone().with_protocol("grpc").unwrap(),
                // A number in 32 bits holds ten times as much.
                Format::Kitex if up.weight() > u32::MAX / 10 => up.clone().with_weight(read[0].weight()),
                // The usual version is none.
                Format::GoMicro | Format::Kratos | Format::Kitex => up.clone(),
            };
            prop_assert_eq!(read, vec![expected], "{:?}", format);
        }
    }

    #[test]
    fn ids_come_back_from_their_keys(instance in instances()) {
        let keys = Keys::new("services", &[]);
        for (format, prefix) in [Format::Grpc, Format::GoKit].into_iter().zip(keys.of_service(instance.service())) {
            let key = keys.of_instance(format, instance.service(), instance.id());
            let rest = key.strip_prefix(&prefix).unwrap();
            prop_assert!(!rest.contains('/'));
            prop_assert_eq!(&id_of(rest.as_bytes()).unwrap(), instance.id());
        }
    }

    #[test]
    fn nothing_read_can_break_it(value in proptest::collection::vec(any::<u8>(), 0..200), json in ".{0,100}") {
        let _ = decode(&book(), &id("x"), &value, None);
        let _ = decode(&book(), &id("x"), format!("{{{json}}}").as_bytes(), Some("grpc"));
        let _ = id_of(&value);
        let _ = service_of("services/", &value);
    }
}

#[test]
fn what_a_format_has_no_place_for_is_known() {
    let plain = Instance::new("book", "h:1").unwrap();
    let weighed = plain.clone().with_weight(2);
    for (_, format) in Format::ALL {
        let bare = matches!(format, Format::GoKit | Format::GoZero);
        assert_eq!((leaves_out(format, &plain), leaves_out(format, &weighed)), (false, bare), "{format:?}");
    }
}
