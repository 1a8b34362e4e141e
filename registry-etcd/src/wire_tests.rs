use proptest::prelude::*;

use super::*;

fn book() -> ServiceName {
    "book".parse().unwrap()
}

fn id(text: &str) -> InstanceId {
    InstanceId::new(text).unwrap()
}

fn read(value: &str) -> Result<Instance, String> {
    decode(&book(), &id("x"), value.as_bytes())
}

fn written(format: Format, instance: &Instance) -> String {
    String::from_utf8(encode(format, instance).unwrap()).unwrap()
}

#[test]
fn gokit_is_the_tutorials_system_byte_for_byte() {
    let instance = Instance::new("book", "127.0.0.1:50052").unwrap();
    let keys = Keys::new("/services");
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
    let keys = Keys::new("/services");
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
        ("{}", "Addr"),
        (r#"{"Addr":null}"#, "Addr"),
        (r#"{"Addr":7}"#, "no such JSON"),
        (r#"{"Addr":"h:1","callsign":{"state":"asleep"}}"#, "asleep"),
        (r#"{"Addr":"h:1","callsign":{"weight":-1}}"#, "no such JSON"),
        (r#"{"id":"a1b2","name":"helloworld","endpoints":["grpc://10.0.0.1:9000"]}"#, "Addr"),
    ] {
        let why = read(value).unwrap_err();
        assert!(why.contains(says), "{value}: {why}");
    }
    assert!(decode(&book(), &id("x"), b"\xff\xfe").unwrap_err().contains("UTF-8"));
    assert!(decode(&book(), &id("x"), &vec![b'a'; MAX_VALUE + 1]).unwrap_err().contains("1048577"));
    let deep = format!(r#"{{"Addr":"h:1","Metadata":{}1{}}}"#, "[".repeat(10_000), "]".repeat(10_000));
    assert!(read(&deep).unwrap_err().contains("no such JSON"));
    let many: Vec<_> = (0..40_000).map(|n| format!(r#""{n}":"x""#)).collect();
    let many = format!(r#"{{"Addr":"h:1","Metadata":{{{}}}}}"#, many.join(","));
    assert!(read(&many).unwrap_err().contains("metadata"));
}

#[test]
fn ids_are_one_segment() {
    let keys = Keys::new("services/");
    let key = |text: &str| keys.of_instance(Format::Grpc, &book(), &id(text));
    assert_eq!(key("a/b"), "services/book/a%2Fb");
    assert_eq!(key("100%"), "services/book/100%25");
    assert_eq!(key("书 #1"), "services/book/书 #1");
    assert_eq!(id_of("100%".as_bytes()).unwrap().as_str(), "100%");
    assert_eq!(id_of(b"a/b").unwrap().as_str(), "a/b");
    assert!(id_of(b"").unwrap_err().contains("0 bytes"));
    assert!(id_of(b"\xff").unwrap_err().contains("UTF-8"));
    assert!(id_of(b"a%0A").unwrap_err().contains("control"));
    assert!(id_of(&[b'a'; 257]).unwrap_err().contains("257"));
    let all = keys.all_of_instance(&book(), &id("a/b"));
    assert_eq!(
        all,
        ["services/book/a%2Fb", "services/book/a/b", "/services/book/a%2Fb", "/services/book/a/b"]
    );
    // The key of another id is none of this one's.
    let all = keys.all_of_instance(&book(), &id("a%2Fb"));
    assert_eq!(all, ["services/book/a%252Fb", "/services/book/a%252Fb"]);
}

#[test]
fn prefixes_end_in_a_slash() {
    let keys = Keys::new("/a/b/");
    assert_eq!(keys.of_service(&book()), ["a/b/book/", "/a/b/book/"]);
    assert_eq!(service_of("a/b/", b"a/b/book/1").unwrap(), book());
    for key in ["a/b/book", "a/bb/book/1", "a/b/~check/1", "a/b//1"] {
        assert_eq!(service_of("a/b/", key.as_bytes()), None, "{key}");
    }
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
    let text =
        || proptest::option::of("[^\\p{Cc}]{1,20}".prop_filter("length", |text: &String| text.len() <= 128));
    let metadata = proptest::collection::btree_map("[a-z&<>\"\\\\书]{1,12}", any::<String>(), 0..4);
    let state = prop_oneof![Just(State::Up), Just(State::Draining), Just(State::Down)];
    let id = "[^\\p{Cc}]{1,30}".prop_filter("length", |text: &String| text.len() <= 256);
    (
        address,
        id,
        any::<u32>(),
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
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(512) })]

    #[test]
    fn grpc_comes_back_as_it_went(instance in instances()) {
        let value = encode(Format::Grpc, &instance).unwrap();
        prop_assert_eq!(decode(instance.service(), instance.id(), &value), Ok(instance));
    }

    #[test]
    fn gokit_keeps_id_and_address(instance in instances()) {
        let up = instance.with_state(State::Up);
        let read = decode(up.service(), up.id(), &encode(Format::GoKit, &up).unwrap()).unwrap();
        prop_assert_eq!((read.id(), read.address()), (up.id(), up.address()));
    }

    #[test]
    fn ids_come_back_from_their_keys(instance in instances()) {
        let keys = Keys::new("services");
        for (format, prefix) in [Format::Grpc, Format::GoKit].into_iter().zip(keys.of_service(instance.service())) {
            let key = keys.of_instance(format, instance.service(), instance.id());
            let rest = key.strip_prefix(&prefix).unwrap();
            prop_assert!(!rest.contains('/'));
            prop_assert_eq!(&id_of(rest.as_bytes()).unwrap(), instance.id());
        }
    }

    #[test]
    fn nothing_read_can_break_it(value in proptest::collection::vec(any::<u8>(), 0..200), json in ".{0,100}") {
        let _ = decode(&book(), &id("x"), &value);
        let _ = decode(&book(), &id("x"), format!("{{{json}}}").as_bytes());
        let _ = id_of(&value);
        let _ = service_of("services/", &value);
    }
}
