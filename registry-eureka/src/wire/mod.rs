//! The bytes: from an [`Instance`] to what a server is told ([`encode`]), from its answers to entries ([`read`]), and from
//! an entry to an instance ([`decode`]). Pure.
//!
//! Entries that bear our mark are taken by what it says; all others as Spring Cloud's clients take them.

mod entry;
mod foreign;
mod json;
mod kratos;
mod own;
mod pack;
mod xml;

use callsign_core::{Instance, ServiceName};

pub(crate) use entry::{Action, Entry, Read, Status};
#[cfg(test)]
pub(crate) use entry::{Bad, Port};
pub(crate) use own::{encode, instance_id, name_of, new_incarnation};

/// How an instance is written: for whom beside callsign and Spring Cloud. All of it is read, always.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Format {
    /// As Spring Cloud writes its own, with what Eureka has no place for among the metadata. The default.
    #[default]
    Callsign,
    /// The same, and the metadata that Kratos reads: `ID`, `Name`, `Version`, `Endpoints` and `agent`.
    Kratos,
}

impl Format {
    /// Every format, by the name that URLs have for it.
    pub(crate) const ALL: [(&'static str, Self); 2] =
        [("callsign", Self::Callsign), ("kratos", Self::Kratos)];
}

/// What is taken of what others register.
#[derive(Debug, Clone, Default)]
pub(crate) struct Taking {
    /// Also what is not up.
    pub(crate) all: bool,
}

/// What an entry stands for.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Found {
    /// To be listed.
    Listed(Instance),
    /// By its own word, or an operator's, it is not to be called.
    Away(Instance),
}

/// Reads an answer, whatever its header says of its type: servers may not know what is asked for. Each entry is given away
/// as it is read, so that who needs a few of ten thousand need not hold all of them; and says how many there are of each
/// status, if the answer does.
///
/// # Errors
/// It is none of Eureka's. Some of its entries may have been given away by then.
pub(crate) fn read_each(body: &[u8], mut take: impl FnMut(Read)) -> Result<Option<String>, String> {
    let text = std::str::from_utf8(body).map_err(|_| "it is not UTF-8".to_owned())?;
    match text.trim_start_matches('\u{feff}').trim_ascii() {
        "" => Err("it is empty".to_owned()),
        html if is_html(html) => Err(
            "it is HTML, as of a proxy or a web page: the URL leads to the path below which Eureka has /apps, which is \
             /eureka in most places"
                .to_owned(),
        ),
        xml if xml.starts_with('<') => xml::read(xml, &mut take),
        json => json::read(json, &mut take),
    }
}

/// The same, all at once.
///
/// # Errors
/// It is none of Eureka's.
pub(crate) fn read(body: &[u8]) -> Result<Vec<Read>, String> {
    let mut entries = Vec::new();
    read_each(body, |entry| entries.push(entry))?;
    Ok(entries)
}

fn is_html(text: &str) -> bool {
    let start: String = text.chars().take(400).collect::<String>().to_ascii_lowercase();
    start.starts_with("<!doctype html") || start.starts_with("<html")
}

/// What an entry stands for.
///
/// # Errors
/// Why it cannot be understood.
pub(crate) fn decode(name: &ServiceName, entry: &Entry, taking: &Taking) -> Result<Found, String> {
    if own::is_marked(entry) {
        own::decode(name, entry, taking)
    } else {
        foreign::decode(name, entry, taking)
    }
}

#[cfg(test)]
mod tests;
