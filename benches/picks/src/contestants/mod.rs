//! [`Contestant`]: somebody who picks, among so many instances.

mod kit;
mod ours;
#[cfg(feature = "pingora")]
pub(crate) mod pingora;
mod towers;

use callsign_bench_figures::Result;
use tokio::runtime::Runtime;

/// Picks so many times. Each thread has its own.
pub(crate) type Handle = Box<dyn FnMut(u32) + Send>;

pub(crate) struct Contestant {
    pub(crate) name: &'static str,
    /// A handle for one of so many threads.
    pub(crate) handle: Box<dyn Fn(usize) -> Handle>,
    /// On how many threads at the same time it can pick at all, with one thing that they share.
    pub(crate) threads: usize,
}

impl Contestant {
    fn new(name: &'static str, handle: impl Fn(usize) -> Handle + 'static) -> Self {
        Self { name, handle: Box::new(handle), threads: 2 }
    }

    fn alone(name: &'static str, handle: impl Fn(usize) -> Handle + 'static) -> Self {
        Self { threads: 1, ..Self::new(name, handle) }
    }
}

/// All of them, those first that others are compared with.
pub(crate) fn all(runtime: &Runtime, instances: usize) -> Result<Vec<Contestant>> {
    let mut all = kit::contestants(instances);
    all.extend(towers::contestants(instances));
    #[cfg(feature = "pingora")]
    all.push(pingora::contestant(instances)?);
    all.extend(ours::contestants(runtime, instances)?);
    Ok(all)
}
