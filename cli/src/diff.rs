//! What came, went and changed from one snapshot to the next: [`diff`].

use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::fmt;

use callsign::{Listed, Snapshot};

use crate::escape::cell;
use crate::output::{Paint, Style};

/// What became of one instance.
#[derive(Debug)]
pub(crate) enum Change<'a> {
    Came(&'a Listed),
    Went(&'a Listed),
    Changed { before: &'a Listed, after: &'a Listed },
}

/// All changes, sorted by id.
pub(crate) fn diff<'a>(before: &'a Snapshot, after: &'a Snapshot) -> Vec<Change<'a>> {
    let mut changes = Vec::new();
    // Both are sorted by id.
    let (mut old, mut new) = (before.iter().peekable(), after.iter().peekable());
    loop {
        let order = match (old.peek(), new.peek()) {
            (None, None) => return changes,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(old), Some(new)) => old.id().cmp(new.id()),
        };
        match order {
            Ordering::Less => changes.extend(old.next().map(Change::Went)),
            Ordering::Greater => changes.extend(new.next().map(Change::Came)),
            Ordering::Equal => {
                if let (Some(before), Some(after)) = (old.next(), new.next())
                    && before != after
                {
                    changes.push(Change::Changed { before, after });
                }
            }
        }
    }
}

impl Change<'_> {
    /// The line of it.
    pub(crate) fn line(&self, style: Style) -> String {
        match self {
            Self::Came(listed) => {
                let more = [
                    listed.is_held().then_some("held"),
                    (listed.state() != callsign::State::Up).then(|| listed.state().as_str()),
                ];
                let more: String = more.into_iter().flatten().flat_map(|word| [" ", word]).collect();
                let line = format!("+ {} {}{more}", cell(listed.id().as_str()), listed.address());
                style.paint(Paint::Good, line).to_string()
            }
            Self::Went(listed) => {
                style.paint(Paint::Bad, format!("- {}", cell(listed.id().as_str()))).to_string()
            }
            Self::Changed { before, after } => {
                let line = format!("~ {} {}", cell(after.id().as_str()), what_changed(before, after));
                style.paint(Paint::Unsure, line).to_string()
            }
        }
    }
}

fn what_changed(before: &Listed, after: &Listed) -> String {
    let mut parts = Vec::new();
    match (before.is_held(), after.is_held()) {
        (false, true) => parts.push("held".to_owned()),
        (true, false) => parts.push("confirmed".to_owned()),
        _ => {}
    }
    let mut compare = |what: fmt::Arguments<'_>, before: Option<&str>, after: Option<&str>| {
        if before != after {
            let shown = |value: Option<&str>| value.map_or_else(|| "none".to_owned(), cell);
            parts.push(format!("{what} {} -> {}", shown(before), shown(after)));
        }
    };
    compare(format_args!("state"), Some(before.state().as_str()), Some(after.state().as_str()));
    let text = |listed: &Listed| (listed.address().to_string(), listed.weight().to_string());
    let ((old_address, old_weight), (new_address, new_weight)) = (text(before), text(after));
    compare(format_args!("address"), Some(&old_address), Some(&new_address));
    compare(format_args!("weight"), Some(&old_weight), Some(&new_weight));
    compare(format_args!("protocol"), before.protocol(), after.protocol());
    compare(format_args!("zone"), before.zone(), after.zone());
    compare(format_args!("version"), before.version(), after.version());
    let keys: BTreeSet<_> = before.metadata().keys().chain(after.metadata().keys()).collect();
    for key in keys {
        let value = |listed: &Listed| listed.metadata().get(key).cloned();
        let (old, new) = (value(before), value(after));
        compare(format_args!("metadata.{}", cell(key)), old.as_deref(), new.as_deref());
    }
    parts.join(", ")
}

#[cfg(test)]
mod tests {
    use callsign::{Instance, State};

    use super::*;
    use crate::testing::snapshot;

    fn one(port: u16) -> Instance {
        Instance::new("book", format!("127.0.0.1:{port}")).unwrap()
    }

    async fn lines(before: Vec<Instance>, after: Vec<Instance>) -> Vec<String> {
        let (before, after) = (snapshot("book", before).await, snapshot("book", after).await);
        diff(&before, &after).iter().map(|change| change.line(Style::Plain)).collect()
    }

    #[tokio::test]
    async fn came_went_changed() {
        let draining = one(5).with_state(State::Draining);
        assert_eq!(
            lines(vec![one(1), one(3), one(4)], vec![one(2), one(3), one(4).with_weight(5), draining]).await,
            [
                "- 127.0.0.1:1",
                "+ 127.0.0.1:2 127.0.0.1:2",
                "~ 127.0.0.1:4 weight 1 -> 5",
                "+ 127.0.0.1:5 127.0.0.1:5 draining"
            ]
        );
        assert!(lines(vec![one(1)], vec![one(1)]).await.is_empty());
    }

    #[tokio::test]
    async fn every_field_is_compared_and_escaped() {
        let before = one(1).with_id("x").unwrap().with_metadata("k", "\u{1b}[2J").unwrap();
        let before = before.with_metadata("gone", "1").unwrap().with_zone("a").unwrap();
        let after = one(2).with_id("x").unwrap().with_state(State::Down).with_metadata("k", "v").unwrap();
        let after = after.with_zone("b").unwrap().with_version("2").unwrap().with_protocol("http").unwrap();
        assert_eq!(
            lines(vec![before], vec![after]).await,
            [
                "~ x state up -> down, address 127.0.0.1:1 -> 127.0.0.1:2, protocol none -> http, zone a -> b, \
              version none -> 2, metadata.gone 1 -> none, metadata.k \\u{1b}[2J -> v"
            ]
        );
    }
}
