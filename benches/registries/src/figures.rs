//! [`Watcher`]: the child that watches, and what the system tells of it; [`Figures`]: what was measured.

use std::error::Error;
use std::time::Duration;
use std::{fmt, io};

use callsign_testkit::process::Program;

use crate::Result;

/// The most that a watcher may take for anything: some list ten thousand instances one by one.
const WAITS: Duration = Duration::from_secs(60);

/// What was measured of one watcher. What could not be is no number.
#[derive(Debug)]
pub(crate) struct Figures {
    pub(crate) latencies: Vec<f64>,
    pub(crate) cpu: Vec<f64>,
    pub(crate) bytes: f64,
    pub(crate) listed: Vec<f64>,
    pub(crate) rss: f64,
    /// How often it did not list or see a change within a minute.
    pub(crate) failures: usize,
}

impl Default for Figures {
    fn default() -> Self {
        let (latencies, cpu, listed) = (Vec::new(), Vec::new(), Vec::new());
        Self { latencies, cpu, bytes: f64::NAN, listed, rss: f64::NAN, failures: 0 }
    }
}

impl Figures {
    pub(crate) fn latency(&self, quantile: f64) -> f64 {
        of(&self.latencies, quantile)
    }

    pub(crate) fn cpu(&self) -> f64 {
        of(&self.cpu, 0.5)
    }

    pub(crate) fn listed(&self) -> f64 {
        of(&self.listed, 0.5)
    }
}

fn of(figures: &[f64], quantile: f64) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = (sorted.len().saturating_sub(1) as f64 * quantile) as usize;
    sorted.get(at).copied().unwrap_or(f64::NAN)
}

/// A watcher said nothing in time, or ended.
#[derive(Debug)]
pub(crate) struct Silent(io::Error);

impl fmt::Display for Silent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Error for Silent {}

#[derive(Debug)]
pub(crate) struct Watcher(pub(crate) Program);

impl Watcher {
    /// The number that its next line of this kind says.
    async fn wait(&mut self, what: &str) -> Result<u128> {
        Ok(self.0.says(what, WAITS).await.map_err(Silent)?.parse()?)
    }

    /// The milliseconds until the service was listed.
    pub(crate) async fn listed(&mut self) -> Result<f64> {
        Ok(self.wait("listed ").await? as f64 / 1000.0)
    }

    /// When what was written at `sent` was seen: what it saw before was something else.
    pub(crate) async fn seen(&mut self, sent: u128) -> Result<u128> {
        loop {
            let seen = self.wait("seen ").await?;
            if seen >= sent {
                return Ok(seen);
            }
        }
    }

    /// Nanoseconds on a processor so far, over all threads.
    pub(crate) fn cpu(&self) -> Result<u64> {
        let mut sum = 0;
        for task in std::fs::read_dir(format!("/proc/{}/task", self.0.process.id()))? {
            let stat = std::fs::read_to_string(task?.path().join("schedstat"))?;
            sum += stat.split(' ').next().and_then(|nanos| nanos.parse::<u64>().ok()).unwrap_or(0);
        }
        Ok(sum)
    }

    pub(crate) fn rss(&self) -> Result<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.0.process.id()))?;
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).ok_or("no VmRSS")?;
        Ok(line.split_whitespace().nth(1).ok_or("no VmRSS")?.parse::<f64>()? / 1024.0)
    }
}
