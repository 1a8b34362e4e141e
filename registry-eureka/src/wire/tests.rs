use std::time::Duration;

use callsign_core::{InstanceId, State};
use proptest::prelude::*;

use super::*;

/// As Spring Cloud's server answers, in JSON.
const SPRING: &str = r#"{"application":{"name":"ORDERS","instance":[{"instanceId":"127.0.0.1:orders:19001","hostName":"127.0.0.1","app":"ORDERS","ipAddr":"127.0.0.1","status":"UP","overriddenStatus":"UNKNOWN","port":{"$":19001,"@enabled":"true"},"securePort":{"$":443,"@enabled":"false"},"countryId":1,"dataCenterInfo":{"@class":"com.netflix.appinfo.InstanceInfo$DefaultDataCenterInfo","name":"MyOwn"},"leaseInfo":{"renewalIntervalInSecs":1,"durationInSecs":3,"registrationTimestamp":1795440520722,"lastRenewalTimestamp":1795440520722,"evictionTimestamp":0,"serviceUpTimestamp":1795440520722},"metadata":{"zone":"z1","weight":"5","management.port":"19001"},"homePageUrl":"http://127.0.0.1:19001/","statusPageUrl":"http://127.0.0.1:19001/actuator/info","healthCheckUrl":"http://127.0.0.1:19001/actuator/health","vipAddress":"orders","secureVipAddress":"orders","isCoordinatingDiscoveryServer":"false","lastUpdatedTimestamp":"1795440520722","lastDirtyTimestamp":"1795440520700","actionType":"ADDED"}]}}"#;

/// As Go kit registers by fargo, in XML.
const GO_KIT: &str = r#"<application><name>ADDSVC</name><instance><instanceId>10.0.0.1:addsvc:8080</instanceId><hostName>host1.acme.org</hostName><app>ADDSVC</app><ipAddr>10.0.0.1</ipAddr><vipAddress>addsvc</vipAddress><secureVipAddress>addsvc</secureVipAddress><status>UP</status><overriddenstatus></overriddenstatus><countryId>0</countryId><dataCenterInfo><name>MyOwn</name><metadata></metadata></dataCenterInfo><leaseInfo><renewalIntervalInSecs>30</renewalIntervalInSecs><durationInSecs>90</durationInSecs><registrationTimestamp>17</registrationTimestamp></leaseInfo><metadata><zone>z1</zone><say>a &lt; b &amp; &#99;</say><empty/></metadata><port enabled="false">8080</port><securePort enabled="false">0</securePort><lastDirtyTimestamp>12</lastDirtyTimestamp></instance></application>"#;

/// As fargo writes JSON: numbers as texts, other classes, no list where there is one.
const FARGO: &str = r#"{"applications":{"versions__delta":1,"apps__hashcode":"UP_1_","application":{"name":"ADDSVC","instance":{"hostName":"host1.acme.org","app":"ADDSVC","ipAddr":"10.0.0.1","status":"UP","overriddenstatus":"UNKNOWN","dataCenterInfo":{"name":"MyOwn","@class":"com.netflix.appinfo.MyDataCenterInfo"},"port":{"$":"8080","@enabled":"false"},"securePort":{"$":"0","@enabled":"false"},"metadata":{"@class":"java.util.Collections$EmptyMap","n":5,"yes":true,"none":null},"lastDirtyTimestamp":1795440520700}}}}"#;

fn name(name: &str) -> ServiceName {
    name.parse().unwrap()
}

fn one(text: &str) -> Entry {
    read(text.as_bytes()).unwrap().remove(0).unwrap()
}

fn listed(service: &str, entry: &Entry) -> Instance {
    match decode(&name(service), entry, &Taking::default()).unwrap() {
        Found::Listed(instance) => instance,
        Found::Away(instance) => panic!("away: {instance:?}"),
    }
}

/// What a server makes of what it is told.
fn stored(instance: &Instance, was_up: bool) -> Entry {
    stored_in(Format::Callsign, instance, was_up)
}

fn stored_in(format: Format, instance: &Instance, was_up: bool) -> Entry {
    let told = encode(format, instance, "mark", was_up).unwrap();
    let json = told.json(Duration::from_secs(45), Duration::from_secs(30), 7);
    one(std::str::from_utf8(&json).unwrap())
}

#[test]
fn entries_of_others_are_read_by_their_conventions() {
    let spring = one(SPRING);
    let read = listed("orders", &spring);
    assert_eq!(
        (read.id().as_str(), &*read.address().to_string()),
        ("127.0.0.1:orders:19001", "127.0.0.1:19001")
    );
    assert_eq!((read.zone(), read.weight(), read.protocol()), (Some("z1"), 5, None));
    assert_eq!((spring.dirty, spring.registered), (1_795_440_520_700, 1_795_440_520_722));
    let go_kit = one(GO_KIT);
    let read = listed("addsvc", &go_kit);
    assert_eq!(
        (read.id().as_str(), &*read.address().to_string()),
        ("10.0.0.1:addsvc:8080", "host1.acme.org:8080")
    );
    assert_eq!((&*read.metadata()["say"], &*read.metadata()["empty"]), ("a < b & c", ""));
    assert_eq!((go_kit.dirty, go_kit.registered), (12, 17));
    let fargo = listed("addsvc", &one(FARGO));
    // One that was registered without an id is called by its host.
    assert_eq!((fargo.id().as_str(), fargo.address().port()), ("host1.acme.org", 8080));
    let metadata: Vec<_> = fargo.metadata().iter().map(|(key, value)| (&**key, &**value)).collect();
    assert_eq!(metadata, [("n", "5"), ("none", "null"), ("yes", "true")]);
    assert_eq!(read_hash(FARGO), Some("UP_1_".to_owned()));
}

fn read_hash(text: &str) -> Option<String> {
    read_each(text.as_bytes(), drop).unwrap()
}

#[test]
fn hosts_and_ports_are_those_that_spring_would_call() {
    let with = |change: &dyn Fn(&mut Entry)| {
        let mut entry = one(SPRING);
        change(&mut entry);
        let read = listed("orders", &entry);
        (read.address().to_string(), read.protocol().map(str::to_owned))
    };
    let secure = with(&|entry| entry.secure_port.as_mut().unwrap().enabled = true);
    assert_eq!(secure, ("127.0.0.1:443".to_owned(), Some("https".to_owned())));
    let none = with(&|entry| entry.port.as_mut().unwrap().enabled = false);
    assert_eq!(none.0, "127.0.0.1:19001");
    assert_eq!(
        with(&|entry| entry.host_name = "orders.example.org".to_owned()).0,
        "orders.example.org:19001"
    );
    // Kratos says the name of the application there, Kitex a host with its port.
    assert_eq!(with(&|entry| entry.host_name = "orders".to_owned()).0, "127.0.0.1:19001");
    assert_eq!(with(&|entry| entry.host_name = "orders:10.0.0.1:80".to_owned()).0, "127.0.0.1:19001");
    assert_eq!(with(&|entry| entry.host_name = String::new()).0, "127.0.0.1:19001");
}

#[test]
fn only_what_is_up_is_called() {
    let mut entry = one(SPRING);
    for status in [Status::Down, Status::Starting, Status::OutOfService, Status::Unknown] {
        entry.status = status;
        let found = decode(&name("orders"), &entry, &Taking::default()).unwrap();
        assert!(matches!(found, Found::Away(_)), "{status:?}");
        let all = decode(&name("orders"), &entry, &Taking { all: true }).unwrap();
        assert!(matches!(all, Found::Listed(it) if it.state() == State::Down), "{status:?}");
    }
    // Ours says more than a status can; what an operator says of it goes before that.
    let ours = Instance::new("book", "10.0.0.1:1").unwrap();
    for state in [State::Draining, State::Down] {
        let entry = stored(&ours.clone().with_state(state), true);
        assert_eq!(entry.status, Status::Down);
        assert_eq!(listed("book", &entry).state(), state);
    }
    assert_eq!(stored(&ours.clone().with_state(State::Down), false).status, Status::Starting);
    let mut out = stored(&ours, true);
    (out.status, out.overridden) = (Status::OutOfService, Status::OutOfService);
    assert!(matches!(decode(&name("book"), &out, &Taking::default()).unwrap(), Found::Away(_)));
    let told = encode(Format::Callsign, &ours, "mark", true).unwrap();
    assert!(out.is(&told));
    out.overridden = Status::Unknown;
    assert!(!out.is(&told));
}

#[test]
fn what_is_written_is_what_spring_writes() {
    let instance = Instance::new("Book", "10.0.0.1:50051").unwrap().with_protocol("grpc").unwrap();
    let instance = instance.with_weight(7).with_zone("z1").unwrap().with_metadata("team", "library").unwrap();
    let told = encode(Format::Callsign, &instance, "mark", true).unwrap();
    let json = told.json(Duration::from_secs(45), Duration::from_secs(30), 7);
    let golden = r#"{"instance":{"app":"BOOK","countryId":1,"dataCenterInfo":{"@class":"com.netflix.appinfo.InstanceInfo$DefaultDataCenterInfo","name":"MyOwn"},"healthCheckUrl":"http://10.0.0.1:50051/","homePageUrl":"http://10.0.0.1:50051/","hostName":"10.0.0.1","instanceId":"10.0.0.1:50051","ipAddr":"10.0.0.1","isCoordinatingDiscoveryServer":false,"lastDirtyTimestamp":7,"lastUpdatedTimestamp":7,"leaseInfo":{"durationInSecs":45,"evictionTimestamp":0,"lastRenewalTimestamp":0,"registrationTimestamp":0,"renewalIntervalInSecs":30,"serviceUpTimestamp":0},"metadata":{"callsign-added":"zone,weight","callsign-incarnation":"mark","callsign-protocol":"grpc","callsign-service":"Book","callsign-weight":"7","callsign-zone":"z1","team":"library","weight":"7","zone":"z1"},"overriddenStatus":"UNKNOWN","port":{"$":50051,"@enabled":"true"},"securePort":{"$":443,"@enabled":"false"},"secureVipAddress":"book","sid":"na","status":"UP","statusPageUrl":"http://10.0.0.1:50051/","vipAddress":"book"}}"#;
    assert_eq!(String::from_utf8(json).unwrap(), golden);
    let secure = Instance::new("book", "[::1]:443").unwrap().with_protocol("grpcs").unwrap();
    let json = String::from_utf8(encode(Format::Callsign, &secure, "m", true).unwrap().json(
        Duration::ZERO,
        Duration::ZERO,
        0,
    ))
    .unwrap();
    for part in
        [r#""securePort":{"$":443,"@enabled":"true"}"#, r#""https://[::1]:443/""#, r#""hostName":"::1""#]
    {
        assert!(json.contains(part), "{part}: {json}");
    }
    assert_eq!(name_of(&stored(&instance, true)), Some(name("Book")));
}

#[test]
fn kratos_finds_all_that_it_looks_for() {
    let instance = Instance::new("Book", "10.0.0.1:50051").unwrap().with_version("1.2").unwrap();
    let entry = stored_in(Format::Kratos, &instance, true);
    let metadata = serde_json::to_string(&entry.metadata).unwrap();
    let golden = r#"{"Endpoints":"grpc://10.0.0.1:50051","ID":"10.0.0.1:50051","Name":"Book","Version":"1.2","agent":"go-eureka-client","callsign-added":"version,ID,Name,Version,Endpoints,agent","callsign-incarnation":"mark","callsign-service":"Book","callsign-version":"1.2","version":"1.2"}"#;
    assert_eq!(metadata, golden);
    assert_eq!(listed("Book", &entry), instance);
    let secure = instance.with_protocol("grpcs").unwrap().with_metadata("Name", "another").unwrap();
    let entry = stored_in(Format::Kratos, &secure, true);
    assert_eq!(entry.meta("Endpoints"), Some("grpcs://10.0.0.1:50051"));
    // What the owner says there itself stays.
    assert_eq!(entry.meta("Name"), Some("another"));
    assert_eq!(listed("Book", &entry), secure);
}

/// As Kratos' registry for Eureka fills in its structures: of an application with two endpoints and metadata, all entries
/// say the endpoint that was written last.
#[test]
fn what_kratos_writes_is_read() {
    let kratos = |port: u16| {
        one(&format!(
            r#"{{"instance":{{"instanceId":"10.0.0.1:BOOK:{port}","hostName":"BOOK","port":{{"$":{port},"@enabled":"true"}},"app":"BOOK","ipAddr":"10.0.0.1","vipAddress":"BOOK","status":"UP","securePort":{{"$":443,"@enabled":"false"}},"homePageUrl":"grpc://10.0.0.1:{port}/","statusPageUrl":"grpc://10.0.0.1:{port}/info","healthCheckUrl":"grpc://10.0.0.1:{port}/health","dataCenterInfo":{{"name":"MyOwn","@class":"com.netflix.appinfo.InstanceInfo$DefaultDataCenterInfo"}},"metadata":{{"Endpoints":"grpc://10.0.0.1:9000?isSecure=true","ID":"a1b2","Name":"book","Version":"v1","agent":"go-eureka-client","az":"z1","weight":"10"}}}}}}"#
        ))
    };
    let read = listed("book", &kratos(9000));
    assert_eq!((read.id().as_str(), &*read.address().to_string()), ("10.0.0.1:BOOK:9000", "10.0.0.1:9000"));
    assert_eq!((read.protocol(), read.version(), read.weight()), (Some("grpcs"), Some("v1"), 10));
    // As with Spring's the weight stays among it, too.
    assert_eq!(read.metadata().keys().collect::<Vec<_>>(), ["az", "weight"]);
    let other = listed("book", &kratos(8000));
    assert_eq!((&*other.address().to_string(), other.protocol()), ("10.0.0.1:8000", None));
}

#[test]
fn ids_are_such_as_a_path_can_have() {
    for (id, key) in [
        ("127.0.0.1:80", "127.0.0.1:80"),
        ("a/b", "a~2Fb"),
        ("..", "~2E~2E"),
        ("[::1]:80", "~5B::1~5D:80"),
        ("~", "~7E"),
        ("ü", "~C3~BC"),
    ] {
        assert_eq!(instance_id(&InstanceId::new(id).unwrap()), key);
    }
}

#[test]
fn a_bad_entry_spoils_no_other_and_says_why() {
    let text =
        SPRING.replace("[{", r#"[{"instanceId":"x","port":{"$":"many"}},{"metadata":{"a":{"b":"c"}}},{"#);
    let entries = read(text.as_bytes()).unwrap();
    let bad: Vec<_> = entries.iter().filter_map(|read| read.as_ref().err()).collect();
    assert_eq!(entries.len(), 3);
    assert_eq!((bad[0].name.as_str(), bad[1].name.as_str()), ("x", "number 1"));
    assert!(bad[0].why.contains("a port is") && bad[0].app == "ORDERS", "{bad:?}");
    let xml = GO_KIT.replace(">8080<", ">many<");
    let bad = read(xml.as_bytes()).unwrap().remove(0).unwrap_err();
    assert!(bad.name == "10.0.0.1:addsvc:8080" && bad.why.contains("many"), "{bad:?}");
    let why = |change: &dyn Fn(&mut Entry)| {
        let mut entry = one(SPRING);
        change(&mut entry);
        decode(&name("orders"), &entry, &Taking::default()).unwrap_err()
    };
    assert!(why(&|entry| entry.port.as_mut().unwrap().number = 70_000).contains("70000"));
    assert!(why(&|entry| entry.port.as_mut().unwrap().number = -1).contains("-1"));
    assert!(why(&|entry| entry.port = None).contains("no port"));
    assert!(why(&|entry| entry.instance_id = "\u{7}".to_owned()).contains("control"));
    let odd = |entry: &mut Entry| {
        entry.metadata.insert("callsign-incarnation".to_owned(), "m".to_owned());
        entry.metadata.insert("callsign-state".to_owned(), "odd".to_owned());
    };
    assert!(why(&odd).contains("odd"));
}

#[test]
fn what_is_no_answer_of_eureka_says_what_it_is() {
    let deep = "[".repeat(200);
    let deep_xml = format!("<applications>{}", "<a>".repeat(100));
    for (text, says) in [
        ("", "empty"),
        ("<!DOCTYPE html><html><body>Bad gateway</body></html>", "HTML"),
        ("<html>", "/eureka"),
        ("{}", "no applications"),
        ("[]", "no applications"),
        ("{\"applications\":", "EOF"),
        ("<other/>", "no applications"),
        ("<applications><application>", "middle"),
        ("<!DOCTYPE a [<!ENTITY b 'c'>]><applications/>", "document type"),
        ("<application><instance><app>&b;</app></instance></application>", "&b;"),
        (&format!("{{\"applications\":{{\"application\":{deep}"), "EOF"),
        (&deep_xml, "32 levels"),
        (&deep_xml.replace("<a>", "<instance>"), "32 levels"),
    ] {
        let error = read(text.as_bytes()).unwrap_err();
        assert!(error.contains(says), "{text:.60}: {error}");
    }
    assert!(read(b"\xff").unwrap_err().contains("UTF-8"));
    for empty in [
        r#"{"applications":{"versions__delta":"1","apps__hashcode":"","application":[]}}"#,
        r#"{"applications":{"application":null}}"#,
        "<applications><versions__delta>1</versions__delta><apps__hashcode></apps__hashcode></applications>",
        "<applications/>",
    ] {
        assert!(read(empty.as_bytes()).unwrap().is_empty(), "{empty}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, rng_seed: proptest::test_runner::RngSeed::Fixed(7), ..ProptestConfig::default() })]

    #[test]
    fn what_is_written_is_read_back(
        metadata in proptest::collection::btree_map("zone|weight|Name|ID|Version|Endpoints|@class|management.port|(xml)?[a-zA-Z0-9_.@ 书-]{1,8}", "[0-9]{1,2}|\\PC{0,60}[\u{0}-\u{1f}\u{fffe}]?", 0..20),
        weight in prop_oneof![Just(0), Just(1), any::<u32>()],
        (zone, version, protocol) in (proptest::option::of("[a-z]{1,9}"), proptest::option::of("[0-9.]{1,9}"), proptest::option::of("grpcs?|https?")),
        state in prop_oneof![Just(State::Up), Just(State::Draining), Just(State::Down)],
        (id, address) in ("\\PC{1,30}", prop_oneof![Just("10.0.0.1:1"), Just("[::1]:65535"), Just("web.example.org:80")]),
        (was_up, format) in (any::<bool>(), prop_oneof![Just(Format::Callsign), Just(Format::Kratos)]),
    ) {
        let metadata = metadata.into_iter().filter(|(key, _)| !key.starts_with("callsign"));
        let Ok(mut instance) = Instance::new("Book", address).unwrap().with_all_metadata(metadata) else { return Ok(()) };
        let Ok(named) = instance.clone().with_id(&id) else { return Ok(()) };
        instance = named.with_weight(weight).with_state(state);
        if let Some(zone) = &zone { instance = instance.with_zone(zone).unwrap(); }
        if let Some(version) = &version { instance = instance.with_version(version).unwrap(); }
        if let Some(protocol) = &protocol { instance = instance.with_protocol(protocol).unwrap(); }
        let entry = stored_in(format, &instance, was_up);
        // Nothing that would break the list for those who read XML.
        for (key, value) in &entry.metadata {
            prop_assert!(key.chars().all(|c| c.is_ascii_alphanumeric() || "_-.".contains(c)), "{}", key);
            prop_assert!(value.chars().all(|c| c == '\t' || c == '\n' || (c >= ' ' && c != '\u{fffe}')), "{:?}", value);
        }
        prop_assert!(entry.is(&encode(format, &instance, "mark", was_up).unwrap()));
        prop_assert_eq!(listed("Book", &entry), instance);
    }

    #[test]
    fn nothing_makes_it_panic(text in "[{}<>/&;a-z\"$@:,0-9 ]{0,80}", at in 0usize..1000) {
        let _ = read(text.as_bytes());
        for good in [SPRING, GO_KIT, FARGO] {
            let at = at.min(good.len());
            let _ = read(good.get(..at).unwrap_or_default().as_bytes());
            let _ = read(format!("{}{text}{}", good.get(..at).unwrap_or_default(), good.get(at..).unwrap_or_default()).as_bytes());
        }
    }
}

#[test]
fn marks_are_ordered_whatever_clocks_say_and_nothing_else_is() {
    let bears = |mark: &str| {
        let metadata = [("callsign-incarnation".to_owned(), mark.to_owned())];
        Entry { metadata: metadata.into(), ..Entry::default() }
    };
    let first = new_incarnation(None);
    for ahead in ["0fffffffffffff-ffffffff", "0fffffffffffff-00000000", &first] {
        let next = new_incarnation(Some(ahead));
        assert!(bears(ahead).is_before(&next) && !bears(&next).is_before(ahead), "{ahead}, then {next}");
    }
    let time = |mark: &str| mark.split_once('-').unwrap().0.to_owned();
    let now = new_incarnation(Some("00000000000001-00000000"));
    assert!(time(&now) >= time(&first), "{first}, then {now}");
    for none in ["", "0", "mark", "-", "0-0", "00000000000001-0000000G", "00000000000001_00000000"] {
        assert!(!bears(none).is_before(&first), "{none}");
        assert!(time(&new_incarnation(Some(none))) >= time(&first), "{none}");
    }
    assert!(!Entry::default().is_before(&first) && !bears(&first).is_before(&first));
    assert_eq!(new_incarnation(Some("ffffffffffffff-00000000")).len(), first.len());
}
