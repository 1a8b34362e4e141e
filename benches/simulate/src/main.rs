//! Policies beside each other under simulated load, each with and without ejection: `simulate FIGURES [--quick]`.

use std::path::Path;

use callsign_bench_figures::{Figures, Result};
use callsign_lb::{Ejection, NamedPolicy};
use callsign_simulator::{Contender, Report, Scenario, run};

/// Their names, and what they are called in `NamedPolicy`.
const POLICIES: [(&str, &str); 5] = [
    ("RoundRobin", "round_robin"),
    ("Random", "random"),
    ("P2cPending", "p2c"),
    ("P3cEwma::peak", "peak_ewma"),
    ("P3cEwma", "p3c_ewma"),
];
/// Runs of each, with other random numbers.
const SEEDS: u64 = 5;

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let file = args.first().ok_or("usage: simulate FIGURES [--quick]")?;
    let quick = args.iter().any(|arg| arg == "--quick");
    let mut scenarios =
        vec![("C, 20 clients", Scenario::troubled(20)), ("C, 200 clients", Scenario::troubled(200))];
    if !quick {
        scenarios.push(("wandering, 100 clients", Scenario::wandering()));
    }
    let mut figures = Figures::default();
    for (case, scenario) in &scenarios {
        for (name, policy) in POLICIES {
            let plain = Contender::new(policy.parse::<NamedPolicy>()?);
            let ejecting = plain.clone().with_ejection(Ejection::default());
            for (who, contender) in [(name.to_owned(), plain), (format!("{name} + ejection"), ejecting)] {
                let seeds = if quick { 1 } else { SEEDS };
                let reports = (1..=seeds).map(|seed| run(scenario, &contender, seed));
                let reports = reports.collect::<Result<Vec<_>>>()?;
                let mut add = |what: &str, unit: &str, of: &dyn Fn(&Report) -> f64| {
                    let samples: Vec<_> = reports.iter().map(of).collect();
                    figures.add(what, case, &who, unit, &samples);
                };
                for (what, quantile) in
                    [("simulated p50", 0.5), ("simulated p99", 0.99), ("simulated p99.9", 0.999)]
                {
                    add(what, "ms", &|report| report.latency(quantile).as_secs_f64() * 1000.0);
                }
                add("simulated errors", "%", &|report| report.error_share() * 100.0);
                add("simulated timeouts", "%", &|report| report.timeout_share() * 100.0);
                if reports.iter().any(|report| report.while_failing > 0) {
                    add("simulated share of the failing", "%", &|report| report.failing_share() * 100.0);
                }
            }
        }
    }
    figures.write(Path::new(file))
}
