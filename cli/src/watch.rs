//! `watch`: follows a service until told to end, through every outage.

use std::io::Write;
use std::sync::Arc;
use std::time::SystemTime;

use callsign::{Freshness, Registry, Snapshot};

use crate::args::WatchArgs;
use crate::diff::diff;
use crate::escape::Escaped;
use crate::exit::{Failure, is_input};
use crate::live::Live;
use crate::output::{self, Paint, Style, stdout};
use crate::{json, signals};

pub(crate) async fn run(args: &WatchArgs, registry: &Registry) -> Result<u8, Failure> {
    let mut watch = registry.watch(&args.service);
    let mut shows = match (args.json, output::is_screen()) {
        (true, _) => Shows::Json,
        (false, true) => Shows::Live(Live::new(format!("{registry:?}"))),
        (false, false) => Shows::Lines,
    };
    let mut before = watch.snapshot();
    shows.show(&before, &before)?;
    let mut resized = signals::Resized::listen();
    let mut unread = std::pin::pin!(output::unread());
    loop {
        let snapshot = tokio::select! {
            () = &mut unread => return Err(Failure::Unread),
            () = resized.next() => Arc::clone(&before),
            snapshot = watch.changed() => snapshot?,
        };
        // That this can never be a registry is not worth waiting for; all else may be mended while we watch.
        if let Freshness::Pending { error: Some(error) } = snapshot.freshness()
            && is_input(error)
        {
            return Err(error.clone().into());
        }
        shows.show(&before, &snapshot)?;
        before = snapshot;
    }
}

/// How it is shown.
enum Shows {
    Json,
    Lines,
    Live(Live),
}

impl Shows {
    fn show(&mut self, before: &Snapshot, now: &Snapshot) -> Result<(), Failure> {
        match self {
            // The first one says nothing yet, and is no news again.
            Self::Json | Self::Lines if std::ptr::eq(before, now) => {}
            Self::Json => json::line(stdout(), SystemTime::now(), now)?,
            Self::Lines => lines(before, now)?,
            Self::Live(live) => live.show(before, now)?,
        }
        Ok(())
    }
}

/// What changed, a line each.
fn lines(before: &Snapshot, now: &Snapshot) -> Result<(), Failure> {
    let mut out = stdout();
    if let Some(line) = state(before.freshness(), now.freshness()) {
        writeln!(out, "! {line}")?;
    }
    for change in diff(before, now) {
        writeln!(out, "{}", change.line(Style::Plain))?;
    }
    if before.skipped() != now.skipped() {
        writeln!(out, "! {} entries left out: they cannot be understood", now.skipped())?;
    }
    Ok(out.flush()?)
}

/// What is said of the freshness, if that is news.
pub(crate) fn state(before: &Freshness, now: &Freshness) -> Option<String> {
    match now {
        // That the first list came shows by what it lists.
        Freshness::Fresh if before.error().is_none() => None,
        _ => Some(describe(now).0),
    }
}

/// The freshness in words.
pub(crate) fn describe(freshness: &Freshness) -> (String, Paint) {
    match freshness {
        Freshness::Fresh => ("fresh".to_owned(), Paint::Good),
        Freshness::Pending { error: None } => ("not listed yet".to_owned(), Paint::Unsure),
        Freshness::Pending { error: Some(error) } => {
            (format!("not listed yet: {}", Escaped(&error.chain())), Paint::Bad)
        }
        Freshness::Stale { since, error } => (
            format!("stale since {}: {}", humantime::format_rfc3339_millis(*since), Escaped(&error.chain())),
            Paint::Bad,
        ),
    }
}
