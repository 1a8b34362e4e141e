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
    // Not what is known by now, which may be a list already: that is news then.
    let mut before = Arc::new(Snapshot::pending(args.service.clone()));
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
            Self::Json | Self::Lines if !is_news(before, now) => {}
            Self::Json => json::line(stdout(), SystemTime::now(), now)?,
            Self::Lines => lines(before, now)?,
            Self::Live(live) => live.show(before, now)?,
        }
        Ok(())
    }
}

/// Whether there is anything to say of it: that nothing is known yet is not, nor is what was said before.
fn is_news(before: &Snapshot, now: &Snapshot) -> bool {
    !std::ptr::eq(before, now) && !matches!(now.freshness(), Freshness::Pending { error: None })
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

#[cfg(test)]
mod tests {
    use callsign::Instance;

    use super::*;
    use crate::testing::snapshot;

    #[tokio::test]
    async fn what_is_known_before_the_first_look_is_news_once() {
        let nothing = Snapshot::pending("web".parse().unwrap());
        let listed = snapshot("web", vec![Instance::new("web", "127.0.0.1:80").unwrap()]).await;
        assert!(!is_news(&nothing, &nothing));
        assert!(!is_news(&nothing, &Snapshot::pending("web".parse().unwrap())));
        assert!(is_news(&nothing, &listed));
        assert!(!is_news(&listed, &listed));
    }
}
