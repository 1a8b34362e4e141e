//! [`race`]: contestants in turn, in many short batches, on one thread or on two that pick at the same time.

use std::hint::spin_loop;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::contestants::{Contestant, Handle};

/// About as long as the handle is left alone, so that what is done around it costs next to nothing.
const GRAIN: Duration = Duration::from_nanos(500);
const GRAINS: u32 = 16;
const CHUNKS: u32 = 6;
/// What a contestant needs was thrown out of the caches by the others: it gets so many instances back, for so long at most.
const WARMTH: Duration = Duration::from_millis(4);
/// Batches of one contestant in one round, and how long those of two threads may take where another program has a processor.
const BATCHES: usize = 3;
const PATIENCE: Duration = Duration::from_millis(20);

/// A runner and how many picks fill a grain.
struct Lane {
    handle: Handle,
    grain: u32,
}

impl Lane {
    fn new(contestant: &Contestant, threads: usize) -> Self {
        let mut handle = (contestant.handle)(threads);
        // Twice: what is built at the first pick is not to count.
        let mut grain = 1;
        for _ in 0..2 {
            handle(64);
            let begun = Instant::now();
            handle(64);
            let each = begun.elapsed() / 64;
            grain = (GRAIN.as_nanos() / each.as_nanos().max(1)).clamp(1, 256) as u32;
        }
        Self { handle, grain }
    }

    fn grain(&mut self) {
        (self.handle)(self.grain);
    }

    /// Picks each of so many instances once, if by turns.
    fn warm(&mut self, instances: usize) {
        let begun = Instant::now();
        let mut picks = 0;
        while picks < instances && begun.elapsed() < WARMTH {
            self.grain();
            picks += self.grain as usize;
        }
    }
}

/// On a cache line of its own.
#[repr(align(128))]
#[derive(Default)]
struct Apart<T>(T);

/// Where two threads meet before each step, and what the second tells the first.
#[derive(Default)]
struct Track {
    arrived: Apart<AtomicUsize>,
    /// How many grains the second has run.
    grains: Apart<AtomicU64>,
    enough: Apart<AtomicBool>,
}

impl Track {
    fn meet(&self, times: &mut usize) {
        *times += 2;
        self.arrived.0.fetch_add(1, Ordering::AcqRel);
        while self.arrived.0.load(Ordering::Acquire) < *times {
            thread::yield_now();
        }
    }

    /// Waits until the other thread picks.
    fn is_met(&self, until: Instant) -> bool {
        let before = self.grains.0.load(Ordering::Relaxed);
        while self.grains.0.load(Ordering::Relaxed) == before {
            if Instant::now() > until {
                return false;
            }
            spin_loop();
        }
        true
    }
}

/// The nanoseconds of a pick in each batch, for each contestant. The clock drifts and others use the machine, so nobody
/// runs for long: all take turns.
pub(crate) fn race(
    contestants: &[&Contestant],
    instances: usize,
    threads: usize,
    rounds: usize,
) -> Vec<Vec<f64>> {
    let lanes = || contestants.iter().map(|contestant| Lane::new(contestant, threads)).collect::<Vec<_>>();
    let (first, second) = (lanes(), lanes());
    if threads == 1 { alone(first, instances, rounds) } else { together(first, second, instances, rounds) }
}

fn alone(mut lanes: Vec<Lane>, instances: usize, rounds: usize) -> Vec<Vec<f64>> {
    let mut samples = vec![Vec::new(); lanes.len()];
    for _ in 0..rounds {
        for (lane, samples) in lanes.iter_mut().zip(&mut samples) {
            lane.warm(instances);
            for _ in 0..BATCHES {
                let begun = Instant::now();
                for _ in 0..CHUNKS * GRAINS {
                    lane.grain();
                }
                samples.push(each(begun.elapsed(), lane.grain));
            }
        }
    }
    samples
}

fn together(mut first: Vec<Lane>, mut second: Vec<Lane>, instances: usize, rounds: usize) -> Vec<Vec<f64>> {
    let track = Track::default();
    let mut samples = vec![Vec::new(); first.len()];
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut times = 0;
            for _ in 0..rounds {
                for lane in &mut second {
                    track.meet(&mut times);
                    while !track.enough.0.load(Ordering::Acquire) {
                        lane.grain();
                        track.grains.0.fetch_add(1, Ordering::Relaxed);
                    }
                    track.meet(&mut times);
                }
            }
        });
        let mut times = 0;
        for _ in 0..rounds {
            for (lane, samples) in first.iter_mut().zip(&mut samples) {
                track.enough.0.store(false, Ordering::Release);
                track.meet(&mut times);
                lane.warm(instances);
                let until = Instant::now() + PATIENCE;
                let mut counted = 0;
                while counted < BATCHES && Instant::now() < until && track.is_met(until) {
                    if let Some(sample) = beside(lane, &track) {
                        samples.push(sample);
                        counted += 1;
                    }
                }
                track.enough.0.store(true, Ordering::Release);
                track.meet(&mut times);
            }
        }
    });
    samples
}

/// A batch, which counts only if the other thread has got on during each part of it.
fn beside(lane: &mut Lane, track: &Track) -> Option<f64> {
    let begun = Instant::now();
    let mut before = track.grains.0.load(Ordering::Relaxed);
    for _ in 0..CHUNKS {
        for _ in 0..GRAINS {
            lane.grain();
        }
        let now = track.grains.0.load(Ordering::Relaxed);
        if now == before {
            return None;
        }
        before = now;
    }
    Some(each(begun.elapsed(), lane.grain))
}

fn each(time: Duration, grain: u32) -> f64 {
    time.as_nanos() as f64 / f64::from(CHUNKS * GRAINS * grain)
}
