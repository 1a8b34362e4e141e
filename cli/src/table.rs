//! Tables that a person likes to read: [`Table`], and that of instances: [`instances`].

use std::fmt::Write;

use callsign::{Listed, State};

use crate::escape::{cell, cut};
use crate::output::{Paint, Style};

/// Rows of cells. Columns that say nothing in any row are left out.
#[derive(Debug)]
pub(crate) struct Table {
    head: Vec<&'static str>,
    rows: Vec<Vec<(String, Paint)>>,
}

impl Table {
    pub(crate) fn new(head: &[&'static str]) -> Self {
        Self { head: head.to_vec(), rows: Vec::new() }
    }

    /// Adds a row, of as many cells as the head has.
    pub(crate) fn row(&mut self, cells: Vec<(String, Paint)>) {
        self.rows.push(cells);
    }

    /// The lines, each cut to `width` characters if there is a width.
    pub(crate) fn lines(&self, style: Style, width: Option<usize>) -> Vec<String> {
        let used = |column: usize| {
            self.rows.iter().any(|row| row.get(column).is_some_and(|(text, _)| !text.is_empty()))
        };
        let columns: Vec<_> =
            (0..self.head.len()).filter(|&column| self.rows.is_empty() || used(column)).collect();
        let head = self.head.iter().map(|text| ((*text).to_owned(), Paint::Head)).collect();
        let rows: Vec<&Vec<_>> = std::iter::once(&head).chain(&self.rows).collect();
        let length = |row: &[(String, Paint)], column: usize| {
            row.get(column).map_or(0, |(text, _)| text.chars().count())
        };
        let widths: Vec<_> = columns
            .iter()
            .map(|&column| rows.iter().map(|row| length(row, column)).max().unwrap_or(0))
            .collect();
        rows.iter()
            .map(|row| {
                let (mut line, mut left) = (String::new(), width.unwrap_or(usize::MAX));
                for (n, (&column, &wide)) in columns.iter().zip(&widths).enumerate() {
                    let Some((text, paint)) = row.get(column) else { continue };
                    let shown: String = text.chars().take(left).collect();
                    left -= shown.chars().count();
                    // Nothing behind the last one.
                    let pad = if n + 1 == columns.len() { 0 } else { wide + 2 - length(row, column) };
                    let pad = pad.min(left);
                    left -= pad;
                    // Writing to a string cannot fail.
                    let _ = write!(line, "{}{:pad$}", style.paint(*paint, shown), "");
                }
                line.truncate(line.trim_end().len());
                line
            })
            .collect()
    }
}

/// The table of some instances.
pub(crate) fn instances<'a>(listed: impl Iterator<Item = &'a Listed>) -> Table {
    let mut table = Table::new(&["ADDRESS", "ID", "STATE", "WEIGHT", "ZONE", "VERSION", "METADATA"]);
    for listed in listed {
        let plain = |text: String| (text, Paint::None);
        let address = listed.address().to_string();
        let id = if listed.id().as_str() == address { String::new() } else { cell(listed.id().as_str()) };
        let metadata: Vec<_> =
            listed.metadata().iter().map(|(key, value)| format!("{}={}", cell(key), cell(value))).collect();
        table.row(vec![
            plain(address),
            plain(id),
            state(listed),
            plain(listed.weight().to_string()),
            plain(listed.zone().map(cell).unwrap_or_default()),
            plain(listed.version().map(cell).unwrap_or_default()),
            plain(cut(metadata.join(" "))),
        ]);
    }
    table
}

fn state(listed: &Listed) -> (String, Paint) {
    let state = listed.state();
    match (state, listed.is_held()) {
        (_, true) => (format!("{state}, held"), Paint::Unsure),
        (State::Up, false) => (state.to_string(), Paint::Good),
        (State::Down, false) => (state.to_string(), Paint::Bad),
        _ => (state.to_string(), Paint::Unsure),
    }
}

#[cfg(test)]
mod tests {
    use callsign::Instance;

    use super::*;
    use crate::testing::snapshot;

    #[tokio::test]
    async fn golden() {
        let one = Instance::new("book", "127.0.0.1:50051").unwrap();
        let two = Instance::new("book", "[::1]:9").unwrap().with_id("two\u{202e}").unwrap();
        let two = two.with_state(State::Draining).with_weight(10).with_zone("eu-1").unwrap();
        let two = two.with_metadata("team", "\u{1b}[31mred").unwrap().with_metadata("a", "b").unwrap();
        let both = snapshot("book", vec![one.clone(), two]).await;
        assert_eq!(
            instances(both.iter()).lines(Style::Plain, None),
            [
                "ADDRESS          ID           STATE     WEIGHT  ZONE  METADATA",
                "127.0.0.1:50051               up        1",
                "[::1]:9          two\\u{202e}  draining  10      eu-1  a=b team=\\u{1b}[31mred",
            ]
        );
        // The id is the address, and nothing else is said.
        let alone = snapshot("book", vec![one]).await;
        assert_eq!(
            instances(alone.iter()).lines(Style::Plain, Some(20)),
            ["ADDRESS          STA", "127.0.0.1:50051  up"]
        );
        assert_eq!(
            instances(alone.iter()).lines(Style::Colours, None)[1],
            "127.0.0.1:50051  \x1b[32mup\x1b[0m     1"
        );
    }
}
