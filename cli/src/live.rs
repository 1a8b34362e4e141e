//! [`Live`]: a service on a terminal, drawn anew at every change.

use std::collections::VecDeque;
use std::io::Write;
use std::time::SystemTime;

use callsign::Snapshot;

use crate::diff::diff;
use crate::exit::Failure;
use crate::output::{Paint, Size, Style, stdout};
use crate::table::instances;
use crate::watch::{describe, state};

/// How many of the last changes are shown.
const CHANGES: usize = 8;

/// Home, without clearing: what is drawn over flickers less.
const HOME: &str = "\x1b[H";
const CLEAR: &str = "\x1b[2J";
const CLEAR_LINE: &str = "\x1b[K";
const CLEAR_BELOW: &str = "\x1b[J";

pub(crate) struct Live {
    registry: String,
    style: Style,
    changes: VecDeque<String>,
    drawn: Option<Size>,
}

impl Live {
    /// For a registry, by its name for people.
    pub(crate) fn new(registry: String) -> Self {
        Self { registry, style: Style::of_stdout(), changes: VecDeque::new(), drawn: None }
    }

    /// Draws what is now, and what changed.
    pub(crate) fn show(&mut self, before: &Snapshot, now: &Snapshot) -> Result<(), Failure> {
        let at = SystemTime::now();
        self.remember(before, now, at);
        let size = Size::of_stdout();
        let mut screen = String::from(if self.drawn.replace(size) == Some(size) { HOME } else { CLEAR });
        if !screen.ends_with(HOME) {
            screen.push_str(HOME);
        }
        for line in self.frame(now, size) {
            screen.push_str(&line);
            screen.push_str(CLEAR_LINE);
            screen.push('\n');
        }
        screen.push_str(CLEAR_BELOW);
        let mut out = stdout();
        out.write_all(screen.as_bytes())?;
        Ok(out.flush()?)
    }

    fn remember(&mut self, before: &Snapshot, now: &Snapshot, at: SystemTime) {
        // The first list is shown by the table.
        if before.freshness().is_pending() && before.freshness().error().is_none() {
            return;
        }
        // As after a change of the size.
        if std::ptr::eq(before, now) {
            return;
        }
        let at = humantime::format_rfc3339_seconds(at).to_string();
        let time = at.get(11..19).unwrap_or_default();
        let news = state(before.freshness(), now.freshness());
        let news = news.filter(|_| before.freshness().is_fresh() != now.freshness().is_fresh());
        let changes = diff(before, now);
        let lines = changes.iter().rev().take(CHANGES).rev().map(|change| change.line(self.style));
        for line in news.map(|state| format!("! {state}")).into_iter().chain(lines) {
            self.changes.push_back(format!("{time} {line}"));
        }
        while self.changes.len() > CHANGES {
            self.changes.pop_front();
        }
    }

    /// At most as many lines as fit, the last of the terminal left free.
    fn frame(&self, now: &Snapshot, size: Size) -> Vec<String> {
        let (state, paint) = describe(now.freshness());
        let head = format!("{} in {}: {} listed, ", now.service(), self.registry, now.len());
        let room = size.columns.saturating_sub(head.chars().count());
        let state: String = state.chars().take(room.max(8)).collect();
        let mut lines = vec![format!("{head}{}", self.style.paint(paint, state)), String::new()];
        let below = if self.changes.is_empty() { 0 } else { self.changes.len() + 1 };
        // The head of the table, and the line that says how many are not shown.
        let rows = size.rows.saturating_sub(lines.len() + below + 3).max(1);
        if !now.is_empty() {
            lines.extend(instances(now.iter().take(rows)).lines(self.style, Some(size.columns)));
        }
        if now.len() > rows {
            lines.push(format!("... and {} more", now.len() - rows));
        }
        if now.skipped() > 0 {
            let text = format!("{} entries left out: they cannot be understood", now.skipped());
            lines.push(self.style.paint(Paint::Unsure, text).to_string());
        }
        if below > 0 {
            lines.push(String::new());
            lines.extend(self.changes.iter().map(|line| clip(line, size.columns)));
        }
        lines.truncate(size.rows.saturating_sub(1).max(1));
        lines
    }
}

/// As much of a coloured line as has room, its colour ended.
fn clip(line: &str, columns: usize) -> String {
    let (mut left, mut escape, mut clipped) = (columns, false, String::new());
    for c in line.chars() {
        escape |= c == '\x1b';
        if !escape {
            if left == 0 {
                continue;
            }
            left -= 1;
        }
        escape &= c != 'm';
        clipped.push(c);
    }
    clipped
}

#[cfg(test)]
mod tests {
    use callsign::Instance;

    use super::*;
    use crate::testing::snapshot;

    async fn some(ports: std::ops::Range<u16>) -> std::sync::Arc<Snapshot> {
        snapshot(
            "book",
            ports.map(|port| Instance::new("book", format!("10.0.0.1:{port}")).unwrap()).collect(),
        )
        .await
    }

    #[tokio::test]
    async fn the_frame_fits_the_screen_and_says_what_does_not() {
        let mut live = Live { style: Style::Plain, ..Live::new("memory:x".to_owned()) };
        let (before, now) = (some(10..14).await, some(11..31).await);
        live.remember(&before, &now, SystemTime::UNIX_EPOCH);
        let size = Size { rows: 20, columns: 40 };
        let lines = live.frame(&now, size);
        assert!(lines.len() < size.rows, "{lines:#?}");
        assert!(lines.iter().all(|line| line.chars().count() <= size.columns), "{lines:#?}");
        assert_eq!(lines[0], "book in memory:x: 20 listed, fresh");
        assert_eq!(lines[2], "ADDRESS      STATE  WEIGHT");
        assert!(lines.iter().any(|line| line.starts_with("... and ")), "{lines:#?}");
        assert_eq!(lines.last().unwrap(), "00:00:00 + 10.0.0.1:30 10.0.0.1:30");
    }

    #[test]
    fn a_clipped_line_keeps_its_colours() {
        assert_eq!(clip("12 \x1b[32mabcdef\x1b[0m", 5), "12 \x1b[32mab\x1b[0m");
        assert_eq!(clip("abc", 5), "abc");
    }
}
