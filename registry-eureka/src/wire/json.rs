//! JSON, as Spring's and Netflix' servers write it, and older ones: numbers as texts, one object where others have an
//! array. An entry that cannot be read spoils no other.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserializer, Error as _, Visitor};
use serde::{Deserialize, de};
use serde_json::value::RawValue;

use super::entry::{Action, Bad, Entry, Port, Read, Status};

#[derive(Deserialize)]
struct Top<'a> {
    #[serde(borrow, default)]
    applications: Option<&'a RawValue>,
    #[serde(borrow, default)]
    application: Option<&'a RawValue>,
    #[serde(borrow, default)]
    instance: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Applications<'a> {
    #[serde(rename = "apps__hashcode", default)]
    hash: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    application: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Application<'a> {
    #[serde(default)]
    name: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    instance: Option<&'a RawValue>,
}

/// Reads a document, and gives its entries away.
///
/// # Errors
/// It is none of Eureka's.
pub(super) fn read(text: &str, take: &mut dyn FnMut(Read)) -> Result<Option<String>, String> {
    let say = |error: serde_json::Error| error.to_string();
    let top: Top<'_> = serde_json::from_str(text).map_err(say)?;
    let mut hash = None;
    if let Some(all) = top.applications {
        let all: Applications<'_> = serde_json::from_str(all.get()).map_err(say)?;
        hash = all.hash.map(Cow::into_owned);
        for application in several(all.application).map_err(say)? {
            each(application, take).map_err(say)?;
        }
    } else if let Some(application) = top.application {
        each(application, take).map_err(say)?;
    } else if let Some(instance) = top.instance {
        take(entry(instance, "", 0));
    } else {
        return Err("it has no applications".to_owned());
    }
    Ok(hash)
}

fn each(application: &RawValue, take: &mut dyn FnMut(Read)) -> serde_json::Result<()> {
    let application: Application<'_> = serde_json::from_str(application.get())?;
    let name = application.name.as_deref().unwrap_or_default();
    for (number, instance) in several(application.instance)?.into_iter().enumerate() {
        take(entry(instance, name, number));
    }
    Ok(())
}

/// The members of an array, of which older servers leave the brackets out where there is one.
fn several(value: Option<&RawValue>) -> serde_json::Result<Vec<&RawValue>> {
    match value {
        Some(value) if value.get().starts_with('[') => serde_json::from_str(value.get()),
        Some(value) if value.get() != "null" => Ok(vec![value]),
        _ => Ok(Vec::new()),
    }
}

fn entry(value: &RawValue, app: &str, number: usize) -> Read {
    match serde_json::from_str::<Told<'_>>(value.get()) {
        Ok(told) => {
            let mut entry = Entry::from(told);
            if entry.app.is_empty() {
                app.clone_into(&mut entry.app);
            }
            Ok(entry)
        }
        Err(error) => {
            #[derive(Deserialize)]
            #[serde(rename_all = "camelCase")]
            struct Named {
                instance_id: String,
            }
            let named = serde_json::from_str::<Named>(value.get());
            let name = named.map_or_else(|_| format!("number {number}"), |it| it.instance_id);
            Err(Bad { app: app.to_ascii_uppercase(), name, why: error.to_string() })
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Told<'a> {
    #[serde(default)]
    instance_id: Option<Cow<'a, str>>,
    #[serde(default)]
    app: Option<Cow<'a, str>>,
    #[serde(default)]
    host_name: Option<Cow<'a, str>>,
    #[serde(default)]
    ip_addr: Option<Cow<'a, str>>,
    #[serde(default)]
    vip_address: Option<Cow<'a, str>>,
    #[serde(default)]
    status: Option<Cow<'a, str>>,
    #[serde(default, alias = "overriddenstatus")]
    overridden_status: Option<Cow<'a, str>>,
    #[serde(default)]
    port: Option<ToldPort>,
    #[serde(default)]
    secure_port: Option<ToldPort>,
    #[serde(default)]
    metadata: Option<BTreeMap<String, Plain>>,
    #[serde(default)]
    last_dirty_timestamp: Number,
    #[serde(default)]
    lease_info: Option<Lease>,
    #[serde(default)]
    action_type: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Lease {
    #[serde(default)]
    registration_timestamp: Number,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "a port is a number, or an object that has one as $")]
enum ToldPort {
    Full {
        #[serde(rename = "$", default)]
        number: Number,
        #[serde(rename = "@enabled", default)]
        enabled: Plain,
    },
    Bare(Number),
}

impl From<ToldPort> for Port {
    fn from(told: ToldPort) -> Self {
        match told {
            ToldPort::Full { number, enabled } => {
                Self { number: number.0, enabled: enabled.0.eq_ignore_ascii_case("true") }
            }
            ToldPort::Bare(number) => Self { number: number.0, enabled: true },
        }
    }
}

impl From<Told<'_>> for Entry {
    fn from(told: Told<'_>) -> Self {
        let text = |text: Option<Cow<'_, str>>| text.map_or_else(String::new, Cow::into_owned);
        let status = |text: Option<Cow<'_, str>>| text.map_or(Status::Unknown, |text| Status::parse(&text));
        let mut metadata: BTreeMap<_, _> =
            told.metadata.into_iter().flatten().map(|(key, value)| (key, value.0)).collect();
        // Not the owner's, but what Java writes of its own types.
        metadata.remove("@class");
        Self {
            instance_id: text(told.instance_id),
            app: text(told.app),
            host_name: text(told.host_name),
            ip_addr: text(told.ip_addr),
            vip: text(told.vip_address),
            status: status(told.status),
            overridden: status(told.overridden_status),
            port: told.port.map(Into::into),
            secure_port: told.secure_port.map(Into::into),
            metadata,
            dirty: told.last_dirty_timestamp.0,
            registered: told.lease_info.map_or(0, |lease| lease.registration_timestamp.0),
            action: if told.action_type.as_deref() == Some("DELETED") {
                Action::Deleted
            } else {
                Action::Put
            },
        }
    }
}

/// A number, or a text that has one; 0 for `null`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Number(i64);

/// A text, or a number or truth value as a text.
#[derive(Debug, Default)]
struct Plain(String);

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Plain::deserialize(deserializer)?.0;
        match text.trim() {
            "" | "null" => Ok(Self(0)),
            number => {
                number.parse().map(Self).map_err(|_| D::Error::custom(format!("{number:?} is no number")))
            }
        }
    }
}

impl<'de> Deserialize<'de> for Plain {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl Visitor<'_> for Any {
            type Value = Plain;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text, a number or a truth value")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Plain, E> {
                Ok(Plain(text.to_owned()))
            }

            fn visit_string<E: de::Error>(self, text: String) -> Result<Plain, E> {
                Ok(Plain(text))
            }

            fn visit_bool<E: de::Error>(self, value: bool) -> Result<Plain, E> {
                Ok(Plain(value.to_string()))
            }

            fn visit_i64<E: de::Error>(self, value: i64) -> Result<Plain, E> {
                Ok(Plain(value.to_string()))
            }

            fn visit_u64<E: de::Error>(self, value: u64) -> Result<Plain, E> {
                Ok(Plain(value.to_string()))
            }

            fn visit_f64<E: de::Error>(self, value: f64) -> Result<Plain, E> {
                Ok(Plain(value.to_string()))
            }

            fn visit_unit<E: de::Error>(self) -> Result<Plain, E> {
                Ok(Plain("null".to_owned()))
            }
        }
        deserializer.deserialize_any(Any)
    }
}
