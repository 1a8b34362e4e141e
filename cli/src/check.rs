//! `check`: what can be done with the registry, and what exactly is refused. `deregister`: removes one entry.

use std::io::Write;
use std::time::{Duration, SystemTime};

use callsign::{Error, ErrorKind, Finding, Registry, Report};
use serde::Serialize;
use tokio::time::timeout;

use crate::args::{CheckArgs, DeregisterArgs};
use crate::escape::Escaped;
use crate::exit::{FAILED, Failure, OK, fix};
use crate::json::Time;
use crate::output::{Paint, Style, note, stdout};

/// How long all of it may take, with every server of a cluster tried.
const WITHIN: Duration = Duration::from_secs(30);

pub(crate) async fn run(args: &CheckArgs, registry: &Registry) -> Result<u8, Failure> {
    let report = timeout(WITHIN, registry.check()).await.map_err(|_| late(registry))?;
    let mut out = stdout();
    if args.json {
        let line = Line {
            at: Time(SystemTime::now()),
            registry: format!("{registry:?}"),
            ok: report.is_ok(),
            reach: tried(&report.reach),
            read: tried(&report.read),
            write: tried(&report.write),
        };
        serde_json::to_writer(&mut out, &line).map_err(std::io::Error::from)?;
        writeln!(out)?;
    } else {
        writeln!(out, "registry  {registry:?}")?;
        for (what, outcome) in parts(&report) {
            say(&mut out, what, outcome, Style::of_stdout())?;
        }
    }
    out.flush()?;
    Ok(if report.is_ok() { OK } else { FAILED })
}

pub(crate) async fn deregister(args: &DeregisterArgs, registry: &Registry) -> Result<u8, Failure> {
    timeout(WITHIN, registry.remove(&args.service, &args.id)).await.map_err(|_| late(registry))??;
    note(format_args!(
        "removed {}/{} from {registry:?}; an owner that is alive registers again",
        args.service, args.id
    ));
    Ok(OK)
}

fn late(registry: &Registry) -> Error {
    Error::new(ErrorKind::Timeout, format!("no answer from {registry:?} within {WITHIN:?}"))
}

fn parts(report: &Report) -> [(&'static str, &Finding); 3] {
    [("reach", &report.reach), ("read", &report.read), ("write", &report.write)]
}

fn say(out: &mut impl Write, what: &str, outcome: &Finding, style: Style) -> std::io::Result<()> {
    let (word, paint) = match outcome {
        Finding::Works(_) => ("ok", Paint::Good),
        Finding::Refused(_) => ("refused", Paint::Bad),
        _ => ("not tried", Paint::Unsure),
    };
    let tried = tried(outcome);
    write!(out, "{what:<8}  {}", style.paint(paint, word))?;
    if let Some(text) = tried.error.or(tried.says).filter(|text| !text.is_empty()) {
        write!(out, ": {}", Escaped(&text))?;
    }
    writeln!(out)?;
    if let Some(fix) = tried.fix {
        writeln!(out, "{:<8}  fix: {fix}", "")?;
    }
    Ok(())
}

#[derive(Serialize)]
struct Line {
    at: Time,
    registry: String,
    ok: bool,
    reach: Tried,
    read: Tried,
    write: Tried,
}

#[derive(Default, Serialize)]
struct Tried {
    outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    says: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fix: Option<&'static str>,
}

fn tried(outcome: &Finding) -> Tried {
    match outcome {
        Finding::Works(says) => Tried { outcome: "ok", says: Some(says.clone()), ..Tried::default() },
        Finding::Refused(error) => {
            Tried { outcome: "refused", error: Some(error.chain()), fix: fix(error), ..Tried::default() }
        }
        Finding::NotTried(why) => Tried { outcome: "not_tried", says: Some(why.clone()), ..Tried::default() },
        // A later kind of outcome is not one that works.
        other => Tried { outcome: "not_tried", says: Some(other.to_string()), ..Tried::default() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_refused_says_why_and_what_mends_it() {
        let refused = Finding::Refused(Error::new(ErrorKind::PermissionDenied, "no \u{1b}[31m"));
        let mut out = Vec::new();
        say(&mut out, "read", &refused, Style::Plain).unwrap();
        say(&mut out, "write", &Finding::NotTried("unreachable".to_owned()), Style::Plain).unwrap();
        say(&mut out, "reach", &Finding::Works(String::new()), Style::Plain).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "read      refused: no \\u{1b}[31m\n          fix: grant the user what was refused, or name a user who \
             may\nwrite     not tried: unreachable\nreach     ok\n"
        );
        assert_eq!(
            serde_json::to_string(&tried(&Finding::Works("etcd".to_owned()))).unwrap(),
            r#"{"outcome":"ok","says":"etcd"}"#
        );
    }
}
