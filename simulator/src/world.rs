//! [`run`]: the events of a simulation, in their order.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::f64::consts::TAU;
use std::time::Duration;

use callsign_lb::Outcome;
use tokio::runtime::Builder;

use crate::Error;
use crate::calls::{CallId, Calls, Open};
use crate::clients::{Client, Contender, clients};
use crate::clock::Clock;
use crate::report::Report;
use crate::scenario::Scenario;
use crate::servers::{CORES, Job, Server, WORK};

/// How long a call may take.
const DEADLINE: Duration = Duration::from_secs(1);
/// From a client to a server, and back.
const WAY: Duration = Duration::from_micros(250);
/// Calls before that are not reported.
const LEARNT: Duration = Duration::from_secs(2);

/// What happens next.
#[derive(Debug, Clone, Copy)]
enum Event {
    /// Some client makes a call.
    Ask,
    /// A call has reached its server.
    Reach(usize, CallId),
    /// A server has done a job.
    Done(usize, Job),
    /// A server that had stopped goes on.
    Resume(usize),
    /// The answer has reached the client.
    Answer(CallId, Outcome),
    /// The client waits no longer.
    Expire(CallId),
}

struct World {
    now: Duration,
    /// Told apart by their order of making where they are at the same time, so that runs are alike.
    events: BinaryHeap<Reverse<(Duration, u64, Slot)>>,
    made: u64,
    scenario: Scenario,
    servers: Vec<Server>,
    clients: Vec<Client>,
    calls: Calls,
    rng: fastrand::Rng,
    /// From one call to the next, on average, in seconds.
    apart: f64,
    failing: Option<(usize, Duration, Duration)>,
    report: Report,
}

/// An event in the heap, which is ordered by what stands before it.
struct Slot(Event);

impl PartialEq for Slot {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Slot {}

impl PartialOrd for Slot {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Slot {
    fn cmp(&self, _: &Self) -> std::cmp::Ordering {
        std::cmp::Ordering::Equal
    }
}

/// Runs a scenario from its beginning to its end, on this thread and a runtime of its own.
///
/// # Errors
/// The runtime or the registry could not be made.
pub fn run(scenario: &Scenario, contender: &Contender, seed: u64) -> Result<Report, Error> {
    let runtime = Builder::new_current_thread().enable_time().start_paused(true).build()?;
    runtime.block_on(async {
        let mut rng = fastrand::Rng::with_seed(seed);
        let clients = clients(contender, scenario.servers, scenario.clients, &mut rng).await?;
        let report = World::new(scenario, clients, rng).run().await;
        Ok(report)
    })
}

impl World {
    fn new(scenario: &Scenario, clients: Vec<Client>, rng: fastrand::Rng) -> Self {
        let servers: Vec<_> = (0..scenario.servers).map(|number| Server::new(scenario, number)).collect();
        let most = (scenario.servers * CORES) as f64 / WORK.as_secs_f64();
        let failing = (0..servers.len()).find_map(|at| scenario.failing(at).map(|(from, to)| (at, from, to)));
        Self {
            now: Duration::ZERO,
            events: BinaryHeap::new(),
            made: 0,
            servers,
            clients,
            calls: Calls::default(),
            rng,
            apart: 1.0 / (most * scenario.load),
            failing,
            report: Report::default(),
            scenario: scenario.clone(),
        }
    }

    async fn run(mut self) -> Report {
        let mut clock = Clock::default();
        self.at(Duration::ZERO, Event::Ask);
        for server in 0..self.servers.len() {
            if let Some(at) = self.servers[server].resumes() {
                self.at(at, Event::Resume(server));
            }
        }
        // Until the last call has ended: nobody asks after the end.
        while let Some(Reverse((at, _, Slot(event)))) = self.events.pop() {
            self.now = at;
            clock.advance(at).await;
            self.happens(event);
        }
        self.report.finish()
    }

    fn at(&mut self, at: Duration, event: Event) {
        self.made += 1;
        self.events.push(Reverse((at, self.made, Slot(event))));
    }

    fn after(&mut self, time: Duration, event: Event) {
        self.at(self.now + time, event);
    }

    fn happens(&mut self, event: Event) {
        match event {
            Event::Ask => {
                self.ask();
                let next = self.exponential(self.apart);
                if self.now + next < self.scenario.lasts {
                    self.after(next, Event::Ask);
                }
            }
            Event::Reach(server, call) if self.servers[server].fails(self.now) => {
                self.after(WAY, Event::Answer(call, Outcome::Failure));
            }
            Event::Reach(server, call) => {
                self.servers[server].enqueue(call);
                self.work(server);
            }
            Event::Resume(server) => self.work(server),
            Event::Done(server, job) => match self.servers[server].end(job, self.now) {
                Some((job, at)) => self.at(at, Event::Done(server, job)),
                None => {
                    self.after(WAY, Event::Answer(job.call, Outcome::Success));
                    self.work(server);
                }
            },
            Event::Answer(call, outcome) => self.answer(call, outcome),
            Event::Expire(call) => self.expire(call),
        }
    }

    fn ask(&mut self) {
        let client = self.rng.usize(..self.clients.len());
        let counts = self.now >= LEARNT;
        self.report.calls += u64::from(counts);
        let Ok(picked) = self.clients[client].pick() else {
            self.report.unplaced += u64::from(counts);
            return;
        };
        picked.allow(DEADLINE);
        let server = *picked;
        if let Some((failing, from, to)) = self.failing
            && (from..to).contains(&self.now)
        {
            self.report.while_failing += 1;
            self.report.to_failing += u64::from(server == failing);
        }
        let call = self.calls.open(Open { begun: self.now, picked });
        self.after(WAY, Event::Reach(server, call));
        self.after(DEADLINE, Event::Expire(call));
    }

    /// Lets a server begin what it can.
    fn work(&mut self, server: usize) {
        while let Some(job) = self.servers[server].begin(self.now) {
            let work = self.lognormal(WORK.as_secs_f64()) * self.antagonism(server);
            let takes = self.servers[server].takes(work);
            self.after(takes, Event::Done(server, job));
        }
    }

    fn answer(&mut self, call: CallId, outcome: Outcome) {
        let Some(open) = self.calls.close(call) else { return };
        open.picked.report(outcome);
        if open.begun < LEARNT {
            return;
        }
        match outcome {
            Outcome::Success => self.report.took(self.now - open.begun),
            _ => self.report.errors += 1,
        }
    }

    fn expire(&mut self, call: CallId) {
        let Some(open) = self.calls.close(call) else { return };
        open.picked.report(Outcome::Failure);
        if open.begun >= LEARNT {
            self.report.timeouts += 1;
            self.report.took(DEADLINE);
        }
    }

    /// How many times as long work takes on a server because of somebody else's.
    fn antagonism(&self, server: usize) -> f64 {
        let Some(antagonist) = self.scenario.antagonist else { return 1.0 };
        let round = self.now.as_nanos() / antagonist.stays.as_nanos().max(1);
        let width = (self.servers.len() as f64 * antagonist.share) as usize;
        let first = round as usize * width;
        let distance = (server + self.servers.len() - first % self.servers.len()) % self.servers.len();
        if distance < width { antagonist.slower } else { 1.0 }
    }

    fn exponential(&mut self, mean: f64) -> Duration {
        Duration::from_secs_f64(-mean * (1.0 - self.rng.f64()).ln())
    }

    /// With a standard deviation as large as its mean.
    fn lognormal(&mut self, mean: f64) -> f64 {
        let variance = std::f64::consts::LN_2;
        // Box and Muller's.
        let normal = (-2.0 * (1.0 - self.rng.f64()).ln()).sqrt() * (TAU * self.rng.f64()).cos();
        mean * (variance.sqrt() * normal - variance / 2.0).exp()
    }
}
