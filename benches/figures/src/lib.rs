//! [`Figure`]: one thing that was measured, with its spread; [`Figures`]: all that a program has measured, in a file.

mod clock;

use std::error::Error;
use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

pub use clock::{process_time, thread_time};

pub type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// One thing that was measured of one contestant.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Figure {
    /// What was measured, as `pick`.
    pub what: String,
    /// Under which circumstances, as `3 instances, 1 thread`.
    pub case: String,
    pub who: String,
    pub unit: String,
    pub median: f64,
    /// Of the samples a quarter is below the first, and a quarter above the second.
    pub quarters: (f64, f64),
    pub samples: usize,
}

/// All that one program has measured.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Figures(pub Vec<Figure>);

impl Figures {
    /// Adds the median of some samples. What could not be measured is left out.
    pub fn add(&mut self, what: &str, case: &str, who: &str, unit: &str, samples: &[f64]) {
        if samples.is_empty() {
            eprintln!("{what}, {case}: {who} was not measured");
            return;
        }
        let median = quantile(samples, 0.5);
        let quarters = (quantile(samples, 0.25), quantile(samples, 0.75));
        eprintln!(
            "{what}, {case}: {who} {median:.3} {unit} ({:.3} to {:.3}, {} samples)",
            quarters.0,
            quarters.1,
            samples.len()
        );
        let [what, case, who, unit] = [what, case, who, unit].map(str::to_owned);
        self.0.push(Figure { what, case, who, unit, median, quarters, samples: samples.len() });
    }

    /// Adds what was counted, and has no spread.
    pub fn count(&mut self, what: &str, case: &str, who: &str, unit: &str, number: f64) {
        self.add(what, case, who, unit, &[number]);
    }

    pub fn find(&self, what: &str, case: &str, who: &str) -> Option<&Figure> {
        self.0.iter().find(|figure| figure.what == what && figure.case == case && figure.who == who)
    }

    /// Writes a file that [`read`](Self::read) reads.
    pub fn write(&self, path: &Path) -> Result<()> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        Ok(fs::write(path, serde_json::to_vec_pretty(self)?)?)
    }

    pub fn read(path: &Path) -> Result<Self> {
        let file = fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(serde_json::from_slice(&file)?)
    }
}

/// The sample that this share of all is below.
pub fn quantile(samples: &[f64], share: f64) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = (sorted.len().saturating_sub(1) as f64 * share).round() as usize;
    sorted.get(at).copied().unwrap_or(f64::NAN)
}
