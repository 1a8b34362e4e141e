//! [`page`]: the page itself, and its plots.

use std::fs;
use std::path::Path;

use callsign_bench_figures::{Figures, Result};

use crate::Measured;
use crate::goals::Goal;
use crate::plot::{Bar, bars};
use crate::table::{contestants, table};

/// Writes the plots into a folder, and returns the page.
pub(crate) fn page(measured: &Measured, goals: &[Goal], about: &[String], plots: &Path) -> Result<String> {
    let folder = plots.file_name().and_then(|name| name.to_str()).ok_or("the page has no name")?;
    let plot = |name: &str, title: &str, groups: &[(&str, Vec<Bar<'_>>)]| -> Result<String> {
        fs::write(plots.join(name), bars(title, groups))?;
        Ok(format!("![{title}]({folder}/{name})\n\n"))
    };
    let mut text = "# Benchmarks\n\nWritten by `scripts/bench`, which measures everything in one run: what counts are the ratios.\n\n".to_owned();
    for line in about {
        text += &format!("- {line}\n");
    }
    text += "\n## Ratios\n\n| what | goal | measured | |\n|---|---|---|---|\n";
    text.extend(goals.iter().map(Goal::row));
    text += RATIOS;
    text += PICKS;
    text += &plot(
        "pick.svg",
        "A pick among 100 instances, ns",
        &[
            ("one thread", group(&measured.picks, "pick", "100 instances, 1 threads")),
            ("two threads at once", group(&measured.picks, "pick", "100 instances, 2 threads")),
        ],
    )?;
    text += &table(
        &measured.picks,
        "ns; threads, instances:",
        &[
            ("1, 3", "pick", "3 instances, 1 threads"),
            ("1, 100", "pick", "100 instances, 1 threads"),
            ("1, 10,000", "pick", "10000 instances, 1 threads"),
            ("2, 3", "pick", "3 instances, 2 threads"),
            ("2, 100", "pick", "100 instances, 2 threads"),
            ("2, 10,000", "pick", "10000 instances, 2 threads"),
            ("instructions", "instructions of a pick", "100 instances"),
            ("allocations", "allocations of a pick", "100 instances"),
        ],
    );
    text += UPDATES;
    let many = "10000 instances";
    text += &plot(
        "change.svg",
        "Work of one change among 10,000 instances, µs",
        &[("a weight", group(&measured.picks, "work of a change of weight", many))],
    )?;
    text += &table(
        &measured.picks,
        "µs",
        &[
            ("a weight: work", "work of a change of weight", many),
            ("a new one: work", "work of a new instance", many),
            ("until it can be picked", "from the news of an instance to its first pick", many),
            ("dials for a weight", "dials of a change of weight", many),
            ("dials for a new one", "dials of a new instance", many),
        ],
    );
    text += "\nPicks by round robin on another thread, in batches of 16, ns each:\n\n";
    let (quiet, changes) = ("10000 instances, quiet", "10000 instances, changes");
    text += &table(
        &measured.picks,
        "",
        &[
            ("nothing changes: median", "median of picks", quiet),
            ("p99.9", "p99.9 of picks", quiet),
            ("a change every 2 ms: median", "median of picks", changes),
            ("p99.9", "p99.9 of picks", changes),
        ],
    );
    text += CALLS;
    let (one, two, tasks) = ("one at a time, one thread", "one at a time, two threads", "64 tasks");
    text += &plot(
        "call.svg",
        "Work of a unary call in the client, µs on a processor",
        &[
            (one, group(&measured.rpc, "work of a call", one)),
            (two, group(&measured.rpc, "work of a call", two)),
            ("64 tasks on one channel", group(&measured.rpc, "work of a call", tasks)),
        ],
    )?;
    text += &plot(
        "throughput.svg",
        "Throughput, a second",
        &[
            ("calls of 64 tasks on one channel", group(&measured.rpc, "calls", tasks)),
            ("messages on one stream, there and back", group(&measured.rpc, "messages of a stream", one)),
        ],
    )?;
    for (head, case) in [("One at a time, one thread", one), ("One at a time, two threads", two)] {
        text += &format!("{head}:\n\n");
        let mut columns = vec![
            ("work, µs", "work of a call", case),
            ("p50, µs", "p50 of a call", case),
            ("p99, µs", "p99 of a call", case),
            ("stream: messages/s", "messages of a stream", case),
            ("work of a message, µs", "work of a message", case),
        ];
        if case == one {
            columns.push(("instructions of a call", "instructions of a call", case));
        }
        text += &table(&measured.rpc, "", &columns);
        text += "\n";
    }
    text += "64 tasks on one channel, two threads:\n\n";
    text += &table(&measured.rpc, "", &[("calls/s", "calls", tasks), ("work, µs", "work of a call", tasks)]);
    text += SIMULATED;
    text += &simulated(&measured.simulated, &plot)?;
    text += REGISTRIES;
    Ok(text)
}

type Plot<'a> = &'a dyn Fn(&str, &str, &[(&str, Vec<Bar<'_>>)]) -> Result<String>;

fn simulated(figures: &Figures, plot: Plot<'_>) -> Result<String> {
    let (few, many) = ("C, 20 clients", "C, 200 clients");
    let mut text = String::new();
    for (name, title, what) in [
        ("p99.svg", "Simulated p99, ms", "simulated p99"),
        ("failing.svg", "Simulated share of the failing server, %", "simulated share of the failing"),
    ] {
        let groups = [few, many].map(|case| (&case[3..], group(figures, what, case)));
        text += &plot(name, title, &groups)?;
    }
    for (head, case) in [
        ("20 servers, 20 clients", few),
        ("20 servers, 200 clients", many),
        ("100 servers, 100 clients, somebody else's work wanders", "wandering, 100 clients"),
    ] {
        if !figures.0.iter().any(|figure| figure.case == case) {
            continue;
        }
        text += &format!("{head}:\n\n");
        let mut columns = vec![
            ("p50, ms", "simulated p50", case),
            ("p99, ms", "simulated p99", case),
            ("p99.9, ms", "simulated p99.9", case),
            ("errors, %", "simulated errors", case),
            ("timeouts, %", "simulated timeouts", case),
        ];
        let what = "simulated share of the failing";
        if figures.0.iter().any(|figure| figure.case == case && figure.what == what) {
            columns.push(("to the failing one, %", what, case));
        }
        text += &table(figures, "", &columns);
        text += "\n";
    }
    Ok(text)
}

fn group<'a>(figures: &'a Figures, what: &str, case: &str) -> Vec<Bar<'a>> {
    let names = contestants(figures, what).into_iter();
    names.filter_map(|who| Some((who, is_ours(what, who), figures.find(what, case, who)?.median))).collect()
}

/// In what was simulated, what is recommended.
fn is_ours(what: &str, who: &str) -> bool {
    match what {
        what if what.starts_with("simulated") => who == "P3cEwma + ejection",
        what if what.starts_with("work of a change") => {
            !who.starts_with("Go kit") && !who.starts_with("pingora")
        }
        _ => who.starts_with("callsign"),
    }
}

const RATIOS: &str = "
Where a ratio is over several numbers of instances it is the worst of them. That a pick takes no lock is not measured: there is
none in it. Goals that are no ratios, as what becomes of calls while real processes fail, are held by the tests.

In the tables the second number of a cell is how far a half of the samples is from the median at most.
";

const PICKS: &str = "
## A pick

Everybody takes turns in batches of some 50 µs, with warm caches; medians. On two threads only batches count during which the other
thread got on. *Choice alone* finds where a call would go and reads one field of it, which is what Go kit's way does when it reads
in place. All other lines of callsign's are a whole call: the pick, which holds the endpoint and counts the call as in flight, its
report and its end. Go kit's way is its list, lock and counter in Rust; tower's balancer picks for one thread only; tonic's way is what
its channel does around a call that costs nothing: tower's balancer without a load, boxed, behind a buffer, whose worker is on
the same thread where there is one. `P3cEwma` and tower's PeakEwma read the clock.

";

const UPDATES: &str = "
## A change

Of ten thousand instances one gets another weight, or one joins. Work is time on a processor of the thread that keeps the endpoints, all of
it, from the news to the set that is picked from; no pick waits for it. A set this large that grows is published once in 10 ms at most. Go
kit's way sorts and copies the list; pingora reads all of it anew.

";

const CALLS: &str = "
## A gRPC call

Beneath the same generated client, 100 bytes there and back over loopback, to one server of tonic's in a process of its own on the same
machine. Work is time on a processor of all threads of the client. Raw hyper is its `SendRequest` on one connection, with one box for
its future; callsign stands on `h2`, as hyper does. Most of a call that is alone is the kernel's. On a stream 64 messages are under way.

";

const SIMULATED: &str = "
## Servers that are slow, fail or stop

Simulated by `simulator/`, which drives the real policies and ejection in virtual time; other random numbers in each run. Each
server works on four calls at a time, 10 ms each on average (lognormal); calls have a second. Of twenty servers, at 60 % load for a minute, three are three
times slower, one answers everything with an error for 20 s, and one does nothing for 5 s. Errors are left out of latencies,
timeouts count as a second. Nothing is repeated or hedged. Of a hundred servers, at 70 % load for 20 s, a fifth is twice as slow, another fifth
every 2 s. The test `bounds` of `simulator/` holds the first two to their bounds.

";

const REGISTRIES: &str = "## A change in a registry

How soon it is seen, and what that costs, is measured by `scripts/bench --registries`: [the figures](../benches/README.md#registries).
";
