//! Writes the page of benchmarks from what the programs have measured: `page FIGURES PAGE README|- ABOUT...`.
//!
//! FIGURES is the folder that has picks.json, rpc.json and simulate.json. The plots are put into a folder beside PAGE that has
//! its name. README gets the short table, between two marks. Each ABOUT is a line that says where and when.

mod goals;
mod plot;
mod sections;
mod table;

use std::fs;
use std::path::Path;

use callsign_bench_figures::{Figures, Result};

/// All that was measured.
pub(crate) struct Measured {
    pub(crate) picks: Figures,
    pub(crate) rpc: Figures,
    pub(crate) simulated: Figures,
}

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [figures, page, readme, about @ ..] = &args[..] else {
        return Err("usage: page FIGURES PAGE README|- ABOUT...".into());
    };
    let read = |name: &str| Figures::read(&Path::new(figures).join(name));
    let measured =
        Measured { picks: read("picks.json")?, rpc: read("rpc.json")?, simulated: read("simulate.json")? };
    let page = Path::new(page);
    let plots = page.with_extension("");
    fs::create_dir_all(&plots)?;
    let goals = goals::goals(&measured);
    fs::write(page, sections::page(&measured, &goals, about, &plots)?)?;
    if readme != "-" {
        put(Path::new(readme), &goals::short(&measured))?;
    }
    let (short, all) = (goals.iter().filter(|goal| goal.holds() == Some(false)).count(), goals.len());
    println!("{}: of {all} ratios {short} fall short of their goals", page.display());
    Ok(())
}

const BEGIN: &str = "<!-- by scripts/bench -->\n";
const END: &str = "<!-- end -->";

/// Puts a text between the marks of a file.
fn put(file: &Path, text: &str) -> Result<()> {
    let old = fs::read_to_string(file)?;
    let marks = old.split_once(BEGIN).and_then(|(before, rest)| Some((before, rest.split_once(END)?.1)));
    let (before, after) = marks.ok_or_else(|| format!("{} has no marks", file.display()))?;
    Ok(fs::write(file, format!("{before}{BEGIN}{text}{END}{after}"))?)
}
