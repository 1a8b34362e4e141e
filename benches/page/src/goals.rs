//! [`goals`]: what was to be reached, and what was; [`short`]: the few lines of README.

use callsign_bench_figures::Figures;

use crate::Measured;
use crate::table::number;

/// The bound of a figure.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Bound {
    Least(f64),
    Most(f64),
    /// It is told for comparison.
    None,
}

pub(crate) struct Goal {
    pub(crate) what: String,
    pub(crate) bound: Bound,
    /// `None`: it was not measured.
    pub(crate) measured: Option<f64>,
    unit: &'static str,
}

impl Goal {
    pub(crate) fn holds(&self) -> Option<bool> {
        match (self.bound, self.measured) {
            (Bound::Least(least), Some(measured)) => Some(measured >= least),
            (Bound::Most(most), Some(measured)) => Some(measured <= most),
            (Bound::Least(_) | Bound::Most(_), None) => Some(false),
            (Bound::None, _) => None,
        }
    }

    pub(crate) fn row(&self) -> String {
        let unit = self.unit;
        let bound = match self.bound {
            Bound::Least(least) => format!("at least {}{unit}", number(least)),
            Bound::Most(most) => format!("at most {}{unit}", number(most)),
            Bound::None => "–".to_owned(),
        };
        let measured = self.measured.map_or("not measured".to_owned(), |n| format!("{}{unit}", number(n)));
        let verdict = match self.holds() {
            Some(true) => "holds",
            Some(false) => "**falls short**",
            None => "",
        };
        format!("| {} | {bound} | {measured} | {verdict} |\n", self.what)
    }
}

const SIZES: [usize; 3] = [3, 100, 10_000];
const TURNS: &str = "callsign round robin, choice alone";
const HELD: &str = "callsign round robin";
const HEEDING: &str = "callsign P3cEwma";
const KIT: &str = "Go kit's way, read in place";
const KIT_HELD: &str = "Go kit's way, endpoint held";
const TOWER: &str = "tower p2c + PeakEwma";
const ALONE: &str = "one at a time, one thread";
const THREADS: &str = "one at a time, two threads";
const TASKS: &str = "64 tasks";
const OURS: &str = "callsign Channel";
const LIST: &str = "tonic balance_list";
const RAW: &str = "raw hyper";
const TONIC: &str = "tonic Channel";

fn of(figures: &Figures, what: &str, case: &str, who: &str) -> Option<f64> {
    figures.find(what, case, who).map(|figure| figure.median)
}

fn ratio(figures: &Figures, what: &str, case: &str, one: &str, other: &str) -> Option<f64> {
    Some(of(figures, what, case, one)? / of(figures, what, case, other)?)
}

/// The least of a ratio over the numbers of instances.
fn least(picks: &Figures, threads: usize, one: &str, other: &str) -> Option<f64> {
    let ratios =
        SIZES.map(|size| ratio(picks, "pick", &format!("{size} instances, {threads} threads"), one, other));
    ratios.into_iter().try_fold(f64::MAX, |least, ratio| Some(least.min(ratio?)))
}

fn flatness(picks: &Figures, threads: usize) -> Option<f64> {
    let at = |size: usize| of(picks, "pick", &format!("{size} instances, {threads} threads"), TURNS);
    Some(at(10_000)? / at(3)?)
}

fn most_allocations(picks: &Figures) -> Option<f64> {
    let ours = picks.0.iter().filter(|figure| figure.what == "allocations of a pick");
    ours.filter(|figure| figure.who.starts_with("callsign")).map(|figure| figure.median).reduce(f64::max)
}

pub(crate) fn goals(measured: &Measured) -> Vec<Goal> {
    let Measured { picks, rpc, simulated } = measured;
    let goal = |what: &str, bound, measured| Goal { what: what.to_owned(), bound, measured, unit: "" };
    let with = |unit, goal: Goal| Goal { unit, ..goal };
    let change = |what: &str, who: &str| of(picks, what, "10000 instances", who);
    let mut goals = vec![
        goal(
            "pick, round robin, one thread: Go kit's way / callsign, choice alone",
            Bound::Least(3.0),
            least(picks, 1, KIT, TURNS),
        ),
        goal("the same, two threads at once", Bound::Least(20.0), least(picks, 2, KIT, TURNS)),
        goal(
            "the same with the endpoint held and the call counted, one thread",
            Bound::None,
            least(picks, 1, KIT_HELD, HELD),
        ),
        goal("the same, two threads at once", Bound::None, least(picks, 2, KIT_HELD, HELD)),
        // What is flat is not said anywhere: half as much again may be a cache.
        goal("choice by round robin, one thread: 10,000 instances / 3", Bound::Most(1.5), flatness(picks, 1)),
        goal("the same, two threads at once", Bound::Most(1.5), flatness(picks, 2)),
        goal(
            "pick and end with latency: tower's PeakEwma / callsign's P3cEwma",
            Bound::Least(15.0),
            least(picks, 1, TOWER, HEEDING),
        ),
        goal(
            "the same in instructions, 100 instances",
            Bound::Least(15.0),
            ratio(picks, "instructions of a pick", "100 instances", TOWER, HEEDING),
        ),
        goal("allocations of a pick, any policy", Bound::Most(0.0), most_allocations(picks)),
        goal(
            "unary call, processor time, two threads: callsign / raw hyper",
            Bound::Most(1.1),
            ratio(rpc, "work of a call", THREADS, OURS, RAW),
        ),
        goal("the same, all on one thread", Bound::Most(1.1), ratio(rpc, "work of a call", ALONE, OURS, RAW)),
        goal(
            "the same in instructions",
            Bound::Most(1.1),
            ratio(rpc, "instructions of a call", ALONE, OURS, RAW),
        ),
        goal(
            "unary call, processor time, two threads: callsign / tonic's balance_list",
            Bound::Most(0.6),
            ratio(rpc, "work of a call", THREADS, OURS, LIST),
        ),
        goal(
            "the same, all on one thread",
            Bound::Most(0.6),
            ratio(rpc, "work of a call", ALONE, OURS, LIST),
        ),
        goal(
            "the same in instructions",
            Bound::Most(0.6),
            ratio(rpc, "instructions of a call", ALONE, OURS, LIST),
        ),
        goal(
            "the same in instructions, of raw hyper",
            Bound::None,
            ratio(rpc, "instructions of a call", ALONE, RAW, LIST),
        ),
        goal(
            "calls a second of 64 tasks on one channel: callsign / tonic Channel",
            Bound::Least(1.5),
            ratio(rpc, "calls", TASKS, OURS, TONIC),
        ),
        goal(
            "the same for each second of a processor that the client takes; the server takes the rest",
            Bound::None,
            ratio(rpc, "work of a call", TASKS, TONIC, OURS),
        ),
        with(
            " µs",
            goal(
                "all work of a change among 10,000, off the path of picks, round robin",
                Bound::Most(200.0),
                change("work of a change of weight", "round robin"),
            ),
        ),
        goal(
            "dials of a new instance among 10,000",
            Bound::Most(1.0),
            change("dials of a new instance", "round robin"),
        ),
        goal(
            "dials of a change of weight",
            Bound::Most(0.0),
            change("dials of a change of weight", "round robin"),
        ),
    ];
    for clients in [20, 200] {
        let case = format!("C, {clients} clients");
        let of = |what: &str| of(simulated, what, &case, "P3cEwma + ejection");
        let named = |what: &str| format!("simulated, {clients} clients, P3cEwma + ejection: {what}");
        goals.push(with(
            " %",
            goal(
                &named("share of the failing server"),
                Bound::Most(0.5),
                of("simulated share of the failing"),
            ),
        ));
        goals.push(with(" ms", goal(&named("p99"), Bound::Most(75.0), of("simulated p99"))));
        let failed =
            of("simulated errors").zip(of("simulated timeouts")).map(|(errors, timeouts)| errors + timeouts);
        goals.push(with(" %", goal(&named("errors and timeouts, nothing repeated"), Bound::None, failed)));
    }
    goals
}

/// The table of README.
pub(crate) fn short(measured: &Measured) -> String {
    let Measured { picks, rpc, simulated } = measured;
    let pick =
        |threads: usize, who: &str| of(picks, "pick", &format!("100 instances, {threads} threads"), who);
    let simulated = |what: &str, who: &str| of(simulated, what, "C, 200 clients", who);
    let row = |what: &str, ours: Option<f64>, others: &[(&str, Option<f64>)]| {
        let shown = |n: Option<f64>| n.map_or("–".to_owned(), number);
        let others: Vec<_> = others.iter().map(|(who, n)| format!("{who} {}", shown(*n))).collect();
        format!("| {what} | {} | {} |\n", shown(ours), others.join(", "))
    };
    let mut text = "| | callsign | others |\n|---|---|---|\n".to_owned();
    text +=
        &row("choose one of 100 by turns, ns, one thread", pick(1, TURNS), &[("Go kit's way", pick(1, KIT))]);
    text += &row("the same, two threads at once", pick(2, TURNS), &[("Go kit's way", pick(2, KIT))]);
    text += &row(
        "pick by latency and load, and end, ns",
        pick(1, HEEDING),
        &[("tower's PeakEwma", pick(1, TOWER)), ("tonic's way", pick(1, "tonic's way, p2c behind a buffer"))],
    );
    for (what, figure, case) in [
        ("a gRPC call, µs on a processor", "work of a call", THREADS),
        ("calls a second of 64 tasks", "calls", TASKS),
    ] {
        let of = |who: &str| of(rpc, figure, case, who);
        let others =
            [RAW, TONIC, LIST].map(|who| (if who == LIST { "tonic's balance_list" } else { who }, of(who)));
        text += &row(what, of(OURS), &others);
    }
    let peers =
        |what: &str| [("round robin", simulated(what, "RoundRobin")), ("P2C", simulated(what, "P2cPending"))];
    text += &row(
        "3 of 20 slow, one failing, one stopped: p99, ms",
        simulated("simulated p99", "P3cEwma + ejection"),
        &peers("simulated p99"),
    );
    text += &row(
        "calls that the failing one gets, %",
        simulated("simulated share of the failing", "P3cEwma + ejection"),
        &peers("simulated share of the failing"),
    );
    text
}
