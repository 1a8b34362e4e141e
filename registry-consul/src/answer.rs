//! [`Answer`]: the entries that Consul lists, of which only those are decoded that the answer before had not.
//!
//! Consul tells all of a service for each change: ten thousand entries are nine megabytes, and to decode them takes
//! far longer than to see that they are the same.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use callsign_core::{Instance, ServiceName};
use serde::de::Error as _;
use serde_json::Deserializer;
use serde_json::value::RawValue;

use crate::wire::{Entry, Taking, decode};

/// What one entry says.
#[derive(Debug)]
pub(crate) struct Said {
    /// Whose it is; `None` if it is so odd that it does not say.
    pub(crate) name: Option<Box<str>>,
    /// Which registration wrote it, if it is one of ours.
    pub(crate) mark: Option<Arc<str>>,
    /// The index at which the catalog got it.
    pub(crate) created: u64,
    /// What it stands for, or why it cannot be understood.
    pub(crate) instances: Result<Vec<Arc<Instance>>, String>,
}

impl Said {
    /// The text of an entry of `service`, taken in.
    pub(crate) fn of(service: &ServiceName, taking: &Taking, text: &str) -> Self {
        let entry: Entry = match serde_json::from_str(text) {
            Ok(entry) => entry,
            Err(error) => {
                return Self { name: None, mark: None, created: 0, instances: Err(error.to_string()) };
            }
        };
        let instances = decode(service, &entry, taking).map(|all| all.into_iter().map(Arc::new).collect());
        Self {
            name: Some(format!("{} on {}", entry.service.id, entry.node()).into()),
            mark: entry.service.incarnation().map(Into::into),
            created: entry.service.create_index,
            instances,
        }
    }
}

/// Where each entry stands in the body of its answer, in its order.
type Entries = Vec<(Range<usize>, Arc<Said>)>;

#[derive(Debug, Default)]
pub(crate) struct Answer {
    body: Bytes,
    entries: Entries,
}

impl Answer {
    /// How many bytes it has.
    pub(crate) fn bytes(&self) -> usize {
        self.body.len()
    }

    pub(crate) fn said(&self) -> impl ExactSizeIterator<Item = &Said> {
        self.entries.iter().map(|(_, said)| &**said)
    }

    /// Reads the answer that follows this one, and becomes it; after an error there is none.
    ///
    /// # Errors
    /// It is no list.
    pub(crate) fn follow(
        &mut self,
        body: Bytes,
        decode: impl FnMut(&str) -> Said,
    ) -> Result<(), serde_json::Error> {
        let before = std::mem::take(self);
        let entries = before.compare(&body, decode)?;
        *self = Self { body, entries };
        Ok(())
    }

    fn compare(
        &self,
        body: &[u8],
        mut decode: impl FnMut(&str) -> Said,
    ) -> Result<Entries, serde_json::Error> {
        let mut entries = Vec::with_capacity(self.entries.len() + 1);
        if body.trim_ascii() == b"null" {
            return Ok(entries);
        }
        let (mut next, mut places) = (0, None);
        let mut at = after(body, 0, b"[")?;
        if body.get(at) == Some(&b']') {
            return end(body, at).map(|()| entries);
        }
        loop {
            let (length, said) = match self.entries.get(next) {
                Some((place, said)) if is_same(&body[at..], &self.body[place.clone()]) => {
                    next += 1;
                    (place.len(), Arc::clone(said))
                }
                _ => {
                    let mut values = Deserializer::from_slice(&body[at..]).into_iter::<&RawValue>();
                    let text =
                        values.next().ok_or_else(|| serde_json::Error::custom("it ends early"))??.get();
                    let said = Arc::new(decode(text));
                    if let Some(place) =
                        said.name.as_deref().and_then(|name| self.find(name, next, &mut places))
                    {
                        next = place + 1;
                    }
                    (text.len(), said)
                }
            };
            entries.push((at..at + length, said));
            at = past_space(body, at + length);
            if body.get(at) == Some(&b']') {
                return end(body, at).map(|()| entries);
            }
            at = after(body, at, b",")?;
        }
    }

    /// Where an entry stands that was expected to be at `next`. All places are looked up only once it is not there.
    fn find<'a>(
        &'a self,
        name: &str,
        next: usize,
        places: &mut Option<HashMap<&'a str, usize>>,
    ) -> Option<usize> {
        if self.entries.get(next).is_some_and(|(_, said)| said.name.as_deref() == Some(name)) {
            return Some(next);
        }
        let all =
            || self.entries.iter().enumerate().filter_map(|(n, (_, said))| Some((said.name.as_deref()?, n)));
        places.get_or_insert_with(|| all().collect()).get(name).copied()
    }
}

/// Whether what comes next is this very entry. An object ends where its last brace is, whatever follows.
fn is_same(rest: &[u8], entry: &[u8]) -> bool {
    entry.starts_with(b"{") && rest.starts_with(entry)
}

fn past_space(body: &[u8], at: usize) -> usize {
    at + (body.len() - at - body[at..].trim_ascii_start().len())
}

/// Past a sign that must come next, and the space on both of its sides.
fn after(body: &[u8], at: usize, sign: &[u8]) -> Result<usize, serde_json::Error> {
    let at = past_space(body, at);
    if !body[at..].starts_with(sign) {
        return Err(serde_json::Error::custom(format_args!(
            "no {:?} at {at}",
            sign.escape_ascii().to_string()
        )));
    }
    Ok(past_space(body, at + sign.len()))
}

/// Checks that nothing comes after the bracket.
fn end(body: &[u8], bracket: usize) -> Result<(), serde_json::Error> {
    after(body, bracket, b"]").and_then(|at| {
        if at == body.len() { Ok(()) } else { Err(serde_json::Error::custom("more after the list")) }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The name is the first word, and what it says is the whole text.
    fn decode(text: &str) -> Said {
        let name = text.split('"').nth(1).filter(|name| !name.is_empty()).map(Into::into);
        Said { name, mark: Some(text.into()), created: 0, instances: Ok(Vec::new()) }
    }

    fn texts(answer: &Answer) -> Vec<&str> {
        answer.said().map(|said| said.mark.as_deref().unwrap()).collect()
    }

    /// Follows with a list, checks that it says all of it, and returns how many entries were decoded.
    fn decoded(answer: &mut Answer, list: &[String]) -> usize {
        let mut count = 0;
        let decode = |text: &str| {
            count += 1;
            decode(text)
        };
        answer.follow(format!("[{}]", list.join(",")).into(), decode).unwrap();
        assert_eq!(texts(answer), list);
        count
    }

    fn entry(name: usize, value: usize) -> String {
        format!(r#"{{"n{name}": [{value}, "}}]"]}}"#)
    }

    #[test]
    fn only_what_is_new_is_decoded() {
        let (mut answer, mut list) = (Answer::default(), (0..100).map(|n| entry(n, n)).collect::<Vec<_>>());
        assert_eq!(decoded(&mut answer, &list), 100);
        assert_eq!(decoded(&mut answer, &list), 0);
        list[0] = entry(0, 7);
        list[99] = entry(99, 7);
        assert_eq!(decoded(&mut answer, &list), 2, "changed");
        list.insert(50, entry(1000, 1));
        list.push(entry(1001, 1));
        assert_eq!(decoded(&mut answer, &list), 2, "added");
        list.drain(20..40);
        list.truncate(70);
        assert_eq!(decoded(&mut answer, &list), 1, "the first after a gap");
        list.clear();
        assert_eq!(decoded(&mut answer, &list), 0, "empty");
    }

    #[test]
    fn whatever_follows_whatever_all_of_it_is_said() {
        let mut rng = fastrand::Rng::with_seed(11);
        let mut answer = Answer::default();
        for _ in 0..2000 {
            let mut list: Vec<_> =
                (0..rng.usize(0..8)).map(|_| entry(rng.usize(0..6), rng.usize(0..3))).collect();
            if rng.bool() {
                list.insert(0, ["1", "12", "\"n1\"", "null", "{}"][rng.usize(0..5)].to_owned());
            }
            decoded(&mut answer, &list);
        }
    }

    #[test]
    fn space_and_nothing_are_read() {
        let mut answer = Answer::default();
        for (body, says) in [
            (" [ {\"a\": 1} ,\n {\"b\":2}\t] \n", &["{\"a\": 1}", "{\"b\":2}"][..]),
            ("[{\"a\": 1},{\"b\":2}]", &["{\"a\": 1}", "{\"b\":2}"]),
            (" [ ] ", &[]),
            ("null\n", &[]),
        ] {
            answer.follow(Bytes::from_static(body.as_bytes()), decode).unwrap();
            assert_eq!(texts(&answer), says, "{body:?}");
        }
    }

    #[test]
    fn what_is_no_list_is_an_error_and_forgotten() {
        for body in [
            "",
            "{}",
            "[",
            "[1",
            "[{\"a\":1}",
            "[{\"a\":1},]",
            "[{\"a\":1}}",
            "[{\"a\":1},{\"b\"]",
            "[] []",
            "[1 2]",
        ] {
            let mut answer = Answer::default();
            answer.follow(Bytes::from_static(b"[{\"a\":1}]"), decode).unwrap();
            assert!(answer.follow(Bytes::from_static(body.as_bytes()), decode).is_err(), "{body:?}");
            assert!(texts(&answer).is_empty(), "{body:?}");
        }
    }
}
