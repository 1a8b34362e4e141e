//! XML, as servers answer that do not know JSON, and as fargo writes it. No document type, and no entities but those that
//! every XML has.

use quick_xml::Reader;
use quick_xml::escape::resolve_predefined_entity;
use quick_xml::events::{BytesStart, Event};

use super::entry::{Action, Bad, Entry, Port, Read, Status};

/// Eureka's own documents have nine levels.
const DEEPEST: usize = 32;

/// Reads a document, and gives its entries away.
///
/// # Errors
/// It is none of Eureka's.
pub(super) fn read(text: &str, take: &mut dyn FnMut(Read)) -> Result<Option<String>, String> {
    let mut reader = Reader::from_str(text);
    let (mut hash, mut number, mut known, mut depth) = (None, 0, false, 0usize);
    loop {
        match reader.read_event().map_err(|error| error.to_string())? {
            Event::Start(start) => match start.name().as_ref() {
                "instance" => {
                    known = true;
                    let element = element(&mut reader, &start, depth)?;
                    take(entry(&element, number));
                    number += 1;
                }
                "apps__hashcode" => hash = Some(element(&mut reader, &start, depth)?.text),
                name => {
                    known |= matches!(name, "applications" | "application");
                    depth += 1;
                    if depth > DEEPEST {
                        return Err(too_deep());
                    }
                }
            },
            Event::Empty(start) => known |= matches!(start.name().as_ref(), "applications" | "application"),
            Event::End(_) => depth = depth.saturating_sub(1),
            Event::DocType(_) => return Err("it has a document type".to_owned()),
            Event::Eof if depth > 0 => return Err("it ends in the middle".to_owned()),
            Event::Eof if known => return Ok(hash),
            Event::Eof => return Err("it has no applications".to_owned()),
            _ => {}
        }
    }
}

fn too_deep() -> String {
    format!("it has more than {DEEPEST} levels")
}

/// An element with all that is in it.
#[derive(Debug, Default)]
struct Element {
    name: String,
    enabled: bool,
    text: String,
    children: Vec<Element>,
}

impl Element {
    fn child(&self, name: &str) -> Option<&Self> {
        self.children.iter().find(|child| child.name == name)
    }

    fn text_of(&self, name: &str) -> &str {
        self.child(name).map_or("", |child| &child.text)
    }

    fn number_of(&self, name: &str) -> Result<i64, String> {
        match self.text_of(name).trim() {
            "" => Ok(0),
            text => text.parse().map_err(|_| format!("{name} {text:?} is no number")),
        }
    }
}

fn named(start: &BytesStart<'_>) -> Element {
    let name = start.name().as_ref().to_owned();
    let enabled = start.try_get_attribute("enabled").ok().flatten();
    let enabled = enabled.is_some_and(|it| it.value.eq_ignore_ascii_case("true"));
    Element { name, enabled, ..Element::default() }
}

fn element(reader: &mut Reader<&[u8]>, start: &BytesStart<'_>, above: usize) -> Result<Element, String> {
    // Without recursion, so that no document can exhaust the stack.
    let mut open = vec![named(start)];
    loop {
        let Some(inner) = open.last_mut() else { return Err("it ends in the middle".to_owned()) };
        match reader.read_event().map_err(|error| error.to_string())? {
            Event::Start(start) => {
                open.push(named(&start));
                if above + open.len() > DEEPEST {
                    return Err(too_deep());
                }
            }
            Event::Empty(start) => inner.children.push(named(&start)),
            Event::Text(text) => inner.text.push_str(&text.xml10_content()),
            Event::CData(text) => inner.text.push_str(&text.xml10_content()),
            Event::GeneralRef(reference) => {
                match reference.resolve_char_ref().map_err(|error| error.to_string())? {
                    Some(char) => inner.text.push(char),
                    None => {
                        let name = reference.xml10_content();
                        let text = resolve_predefined_entity(&name);
                        inner.text.push_str(text.ok_or_else(|| format!("it has the entity &{name};"))?);
                    }
                }
            }
            Event::End(_) => {
                let Some(done) = open.pop() else { continue };
                match open.last_mut() {
                    Some(outer) => outer.children.push(done),
                    None => return Ok(done),
                }
            }
            Event::DocType(_) => return Err("it has a document type".to_owned()),
            Event::Eof => return Err("it ends in the middle".to_owned()),
            Event::Comment(_) | Event::PI(_) | Event::Decl(_) => {}
        }
    }
}

fn entry(told: &Element, number: usize) -> Read {
    let text = |name: &str| told.text_of(name).trim().to_owned();
    let port = |name: &str| -> Result<Option<Port>, String> {
        let Some(port) = told.child(name) else { return Ok(None) };
        Ok(Some(Port { number: told.number_of(name)?, enabled: port.enabled }))
    };
    let read = || -> Result<Entry, String> {
        let metadata = told.child("metadata").into_iter().flat_map(|metadata| &metadata.children);
        let registered =
            told.child("leaseInfo").map_or(Ok(0), |lease| lease.number_of("registrationTimestamp"))?;
        Ok(Entry {
            instance_id: text("instanceId"),
            app: text("app"),
            host_name: text("hostName"),
            ip_addr: text("ipAddr"),
            vip: text("vipAddress"),
            status: Status::parse(&text("status")),
            overridden: Status::parse(&text("overriddenstatus")),
            port: port("port")?,
            secure_port: port("securePort")?,
            metadata: metadata.map(|it| (it.name.clone(), it.text.clone())).collect(),
            dirty: told.number_of("lastDirtyTimestamp")?,
            registered,
            action: if text("actionType") == "DELETED" { Action::Deleted } else { Action::Put },
        })
    };
    read().map_err(|why| {
        let id = text("instanceId");
        let name = if id.is_empty() { format!("number {number}") } else { id };
        Bad { app: text("app").to_ascii_uppercase(), name, why }
    })
}
