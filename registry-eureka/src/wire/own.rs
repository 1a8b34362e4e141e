//! Our own entries, which bear our mark: who registered them, and when.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use callsign_core::{Address, Instance, InstanceId, Result, ServiceName, State};
use serde::Serialize;
use serde_json::{Value, json};

use super::entry::{Entry, Status};
use super::foreign::bad_port;
use super::pack::{pack, unpack};
use super::{Format, Found, Taking, kratos};

/// The mark: which registration wrote the entry. Those of one id are ordered by when they were made.
const INCARNATION: &str = "callsign-incarnation";
const ID: &str = "callsign-id";
const SERVICE: &str = "callsign-service";
const PROTOCOL: &str = "callsign-protocol";
const STATE: &str = "callsign-state";
const VERSION: &str = "callsign-version";
const WEIGHT: &str = "callsign-weight";
const ZONE: &str = "callsign-zone";
/// What stands among the metadata for other readers alone.
const ADDED: &str = "callsign-added";

/// The latest time that a mark has room for.
const LATEST: u64 = (1 << 56) - 1;

/// A mark that is younger than all that were made before on this machine, and than another's that was found, whose clock
/// may be ahead; and nobody else's.
pub(crate) fn new_incarnation(found: Option<&str>) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now = u64::try_from(now.as_micros()).unwrap_or(LATEST);
    let at = found.and_then(made_at).map_or(now, |found| now.max(found.saturating_add(1)));
    format!("{:014x}-{:08x}", at.min(LATEST), fastrand::u32(..))
}

/// When a mark was made, if it is one of ours.
fn made_at(mark: &str) -> Option<u64> {
    let (at, random) = mark.split_once('-')?;
    let is_hex = |text: &str| text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let is_mark = at.len() == 14 && random.len() == 8 && is_hex(at) && is_hex(random);
    is_mark.then(|| u64::from_str_radix(at, 16).ok()).flatten()
}

pub(super) fn is_marked(entry: &Entry) -> bool {
    entry.metadata.contains_key(INCARNATION)
}

impl Entry {
    /// Whose it is, if it is one of ours.
    pub(crate) fn incarnation(&self) -> Option<&str> {
        self.meta(INCARNATION)
    }

    /// Whether a registration wrote it that is older than that of a mark. What bears none may be of any age.
    pub(crate) fn is_before(&self, mark: &str) -> bool {
        // Of one length, so that texts are ordered as what they say.
        self.incarnation().is_some_and(|theirs| made_at(theirs).is_some() && theirs < mark)
    }

    /// Whether it is what was told, but for its status where an operator has overridden that.
    pub(crate) fn is(&self, told: &Told) -> bool {
        let port = |port: Option<super::entry::Port>, told: ToldPort| {
            port.is_some_and(|port| port.number == i64::from(told.number) && port.enabled == told.enabled)
        };
        self.metadata == told.metadata
            && self.host_name == told.host
            && self.vip == told.vip
            && port(self.port, told.port)
            && port(self.secure_port, told.secure_port)
            && (self.status == told.status || self.overridden != Status::Unknown)
    }
}

/// The id of an instance in Eureka: what no path can have, even escaped, is written otherwise.
pub(crate) fn instance_id(id: &InstanceId) -> String {
    let mut key = String::new();
    for byte in id.as_str().bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.' | b':' | b'@') {
            key.push(char::from(byte));
        } else {
            key.push_str(&format!("~{byte:02X}"));
        }
    }
    if key.bytes().all(|byte| byte == b'.') { key.replace('.', "~2E") } else { key }
}

/// The name of an entry's service: as its owner wrote it, where that is known.
pub(crate) fn name_of(entry: &Entry) -> Option<ServiceName> {
    let named =
        entry.meta(SERVICE).or(Some(&*entry.vip)).filter(|name| name.eq_ignore_ascii_case(&entry.app));
    let name = named.map_or_else(|| entry.app.to_ascii_lowercase(), str::to_owned);
    ServiceName::new(&name).ok()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ToldPort {
    number: u16,
    enabled: bool,
}

impl ToldPort {
    fn json(self) -> Value {
        json!({ "$": self.number, "@enabled": if self.enabled { "true" } else { "false" } })
    }
}

/// What a server is told of an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) app: String,
    pub(crate) key: String,
    pub(crate) status: Status,
    host: String,
    vip: String,
    port: ToldPort,
    secure_port: ToldPort,
    metadata: BTreeMap<String, String>,
}

#[derive(Serialize)]
struct Body {
    instance: Value,
}

impl Told {
    /// The document, as of a time in milliseconds. `lease` is how long Eureka believes one renewal, and `every` how often
    /// one comes.
    pub(crate) fn json(&self, lease: Duration, every: Duration, dirty: i64) -> Vec<u8> {
        let scheme = if self.secure_port.enabled { "https" } else { "http" };
        let port = if self.secure_port.enabled { self.secure_port.number } else { self.port.number };
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        let home = format!("{scheme}://{host}:{port}/");
        let instance = json!({
            "instanceId": self.key, "app": self.app, "hostName": self.host, "ipAddr": self.host,
            "vipAddress": self.vip, "secureVipAddress": self.vip,
            "status": self.status.as_str(), "overriddenStatus": "UNKNOWN",
            "port": self.port.json(), "securePort": self.secure_port.json(),
            "homePageUrl": home, "statusPageUrl": home, "healthCheckUrl": home,
            "countryId": 1, "sid": "na", "isCoordinatingDiscoveryServer": false,
            "dataCenterInfo": {
                "@class": "com.netflix.appinfo.InstanceInfo$DefaultDataCenterInfo", "name": "MyOwn",
            },
            "leaseInfo": {
                "renewalIntervalInSecs": every.as_secs().max(1), "durationInSecs": lease.as_secs().max(1),
                "registrationTimestamp": 0, "lastRenewalTimestamp": 0, "evictionTimestamp": 0,
                "serviceUpTimestamp": 0,
            },
            "metadata": self.metadata, "lastUpdatedTimestamp": dirty, "lastDirtyTimestamp": dirty,
        });
        // Maps of texts always can be written.
        serde_json::to_vec(&Body { instance }).unwrap_or_default()
    }
}

/// What a server is told of an instance, with what readers of a format look for. One that was never up is starting.
///
/// # Errors
/// Metadata that cannot be written.
pub(crate) fn encode(format: Format, instance: &Instance, incarnation: &str, was_up: bool) -> Result<Told> {
    let (service, id, address) = (instance.service(), instance.id(), instance.address());
    let mut pairs = instance.metadata().clone();
    let mut added = Vec::new();
    // What other readers look for, unless the owner says something else there.
    let mut also = |key: &'static str, value: &str| {
        if !pairs.contains_key(key) {
            pairs.insert(key.to_owned(), value.to_owned());
            added.push(key);
        }
    };
    if let Some(zone) = instance.zone() {
        also("zone", zone);
    }
    if let Some(version) = instance.version() {
        also("version", version);
    }
    if instance.weight() != 1 {
        also("weight", &instance.weight().to_string());
    }
    if format == Format::Kratos {
        for (key, value) in kratos::says(instance) {
            also(key, &value);
        }
    }
    let mut say = |key: &str, value: Option<&str>| {
        pairs.extend(value.map(|value| (key.to_owned(), value.to_owned())));
    };
    say(ADDED, (!added.is_empty()).then(|| added.join(",")).as_deref());
    say(INCARNATION, Some(incarnation));
    say(ID, (instance_id(id) != id.as_str()).then(|| id.as_str()));
    say(PROTOCOL, instance.protocol());
    say(STATE, (instance.state() != State::Up).then(|| instance.state().as_str()));
    say(VERSION, instance.version());
    say(WEIGHT, (instance.weight() != 1).then(|| instance.weight().to_string()).as_deref());
    say(ZONE, instance.zone());
    let name = service.as_str();
    let vip = name.to_ascii_lowercase();
    say(SERVICE, (vip != name).then_some(name));
    let secure = matches!(instance.protocol(), Some("https" | "grpcs"));
    let status = match instance.state() {
        State::Up => Status::Up,
        State::Down if !was_up => Status::Starting,
        _ => Status::Down,
    };
    Ok(Told {
        app: name.to_ascii_uppercase(),
        key: instance_id(id),
        status,
        host: address.host().to_owned(),
        vip,
        port: ToldPort { number: address.port(), enabled: !secure },
        secure_port: ToldPort { number: if secure { address.port() } else { 443 }, enabled: secure },
        metadata: pack(pairs)?,
    })
}

pub(super) fn decode(
    name: &ServiceName,
    entry: &Entry,
    taking: &Taking,
) -> std::result::Result<Found, String> {
    let say = |error: callsign_core::Error| error.to_string();
    let mut pairs = unpack(&entry.metadata)?;
    let secure = entry.secure_port.filter(|port| port.enabled);
    let port = secure.or(entry.port).ok_or("it has no port")?;
    let number = u32::try_from(port.number).map_err(|_| bad_port(port.number))?;
    let address = Address::new(&entry.host_name, number).map_err(say)?;
    let id = pairs.remove(ID).unwrap_or_else(|| entry.key().to_owned());
    let mut instance = Instance::new(name, address).and_then(|it| it.with_id(&id)).map_err(say)?;
    if let Some(protocol) = pairs.remove(PROTOCOL) {
        instance = instance.with_protocol(&protocol).map_err(say)?;
    }
    if let Some(state) = pairs.remove(STATE) {
        instance = instance.with_state(state.parse().map_err(say)?);
    }
    if let Some(version) = pairs.remove(VERSION) {
        instance = instance.with_version(&version).map_err(say)?;
    }
    if let Some(weight) = pairs.remove(WEIGHT) {
        instance =
            instance.with_weight(weight.parse().map_err(|_| format!("{WEIGHT} {weight:?} is no weight"))?);
    }
    if let Some(zone) = pairs.remove(ZONE) {
        instance = instance.with_zone(&zone).map_err(say)?;
    }
    for added in pairs.remove(ADDED).iter().flat_map(|added| added.split(',')) {
        pairs.remove(added);
    }
    pairs.retain(|key, _| !key.starts_with(Instance::RESERVED_PREFIX));
    instance = instance.with_all_metadata(pairs).map_err(say)?;
    // What its owner says beyond what a status can say is listed as that; who is up and is said not to be is away.
    Ok(match (entry.status, instance.state()) {
        (Status::Up, _) | (Status::Down | Status::Starting, State::Draining | State::Down) => {
            Found::Listed(instance)
        }
        _ if taking.all => Found::Listed(instance.with_state(State::Down)),
        _ => Found::Away(instance.with_state(State::Down)),
    })
}
