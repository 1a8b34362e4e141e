//! `list`: what is registered now.

use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use callsign::{Error, ErrorKind, InstanceWatch, Registry, Snapshot, State};
use tokio::time::{Instant, timeout_at};

use crate::args::ListArgs;
use crate::exit::{FAILED, Failure, OK};
use crate::json;
use crate::output::{Paint, Style, note, stdout};
use crate::table::{Table, instances};

/// How long the registry may take.
const WITHIN: Duration = Duration::from_secs(5);
/// How many services are read at a time.
const AT_A_TIME: usize = 32;

pub(crate) async fn run(args: &ListArgs, registry: &Registry) -> Result<u8, Failure> {
    let by = Instant::now() + WITHIN;
    let Some(service) = &args.service else { return services(args, registry, by).await };
    let snapshot = first(&mut registry.watch(service), registry, by).await?;
    if args.json {
        json::line(stdout(), SystemTime::now(), &snapshot)?;
        return Ok(OK);
    }
    if snapshot.is_empty() {
        note(format_args!("nothing is registered under {service} in {registry:?}"));
    } else {
        print(&instances(snapshot.iter()))?;
    }
    if snapshot.skipped() > 0 {
        note(format_args!("{} entries are left out: they cannot be understood", snapshot.skipped()));
    }
    Ok(OK)
}

/// All services, by their instances.
async fn services(args: &ListArgs, registry: &Registry, by: Instant) -> Result<u8, Failure> {
    let names = timeout_at(by, registry.services()).await.map_err(|_| late("services", registry, None))??;
    let mut table = Table::new(&["SERVICE", "INSTANCES", "UP"]);
    let mut code = OK;
    for some in names.chunks(AT_A_TIME) {
        let mut watches: Vec<_> = some.iter().map(|name| registry.watch(name)).collect();
        for (name, watch) in some.iter().zip(&mut watches) {
            let found = first(watch, registry, by).await;
            if let Err(error) = &found {
                code = FAILED;
                note(format_args!("{name}: {}", error.chain()));
            }
            if args.json {
                // Of one that cannot be read, that it is pending, and why.
                json::line(stdout(), SystemTime::now(), &watch.snapshot())?;
                continue;
            }
            let (all, up) = found.map_or((String::from("?"), String::from("?")), |snapshot| {
                let up = snapshot.iter().filter(|listed| listed.state() == State::Up && !listed.is_held());
                (snapshot.len().to_string(), up.count().to_string())
            });
            let paint = if up == all { Paint::Good } else { Paint::Unsure };
            table.row(vec![(name.to_string(), Paint::None), (all, Paint::None), (up, paint)]);
        }
    }
    if names.is_empty() {
        note(format_args!("nothing is registered in {registry:?}"));
    } else if !args.json {
        print(&table)?;
    }
    Ok(code)
}

fn print(table: &Table) -> Result<(), Failure> {
    let mut out = stdout();
    for line in table.lines(Style::of_stdout(), None) {
        writeln!(out, "{line}")?;
    }
    Ok(out.flush()?)
}

/// The first list of a service; at once the error if waiting will not mend it.
async fn first(watch: &mut InstanceWatch, registry: &Registry, by: Instant) -> Result<Arc<Snapshot>, Error> {
    let listed = async {
        let mut snapshot = watch.snapshot();
        while snapshot.freshness().is_pending() {
            if let Some(error) = snapshot.freshness().error().filter(|error| error.is_permanent()) {
                return Err(error.clone());
            }
            snapshot = watch.changed().await?;
        }
        Ok(snapshot)
    };
    if let Ok(listed) = timeout_at(by, listed).await {
        return listed;
    }
    let snapshot = watch.snapshot();
    Err(late(snapshot.service().as_str(), registry, snapshot.freshness().error()))
}

fn late(what: &str, registry: &Registry, cause: Option<&Error>) -> Error {
    let error =
        Error::new(ErrorKind::Timeout, format!("no list of {what} from {registry:?} within {WITHIN:?}"));
    match cause {
        Some(cause) => error.with_source(cause.clone()),
        None => error,
    }
}
