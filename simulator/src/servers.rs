//! [`Server`]: four calls at a time, first come, first served.

use std::collections::VecDeque;
use std::time::Duration;

use crate::calls::CallId;
use crate::scenario::Scenario;

/// How many calls a server works on at a time.
pub(crate) const CORES: usize = 4;
/// How long it takes for one, on average.
pub(crate) const WORK: Duration = Duration::from_millis(10);

/// What a server works on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Job {
    pub(crate) call: CallId,
    /// When it was begun, by a server that has not stopped since.
    since: Duration,
}

#[derive(Debug)]
pub(crate) struct Server {
    busy: usize,
    queue: VecDeque<CallId>,
    slowness: f64,
    failing: Option<(Duration, Duration)>,
    pause: Option<(Duration, Duration)>,
}

impl Server {
    pub(crate) fn new(scenario: &Scenario, number: usize) -> Self {
        Self {
            busy: 0,
            queue: VecDeque::new(),
            slowness: scenario.slowness(number),
            failing: scenario.failing(number),
            pause: scenario.pause(number),
        }
    }

    /// Whether it answers with an error now, without looking.
    pub(crate) fn fails(&self, now: Duration) -> bool {
        within(self.failing, now)
    }

    /// When it goes on that has stopped.
    pub(crate) fn resumes(&self) -> Option<Duration> {
        self.pause.map(|(_, to)| to)
    }

    pub(crate) fn enqueue(&mut self, call: CallId) {
        self.queue.push_back(call);
    }

    /// The next call to begin, if it is at work and has a core free.
    pub(crate) fn begin(&mut self, now: Duration) -> Option<Job> {
        if self.busy == CORES || within(self.pause, now) {
            return None;
        }
        let call = self.queue.pop_front()?;
        self.busy += 1;
        Some(Job { call, since: now })
    }

    /// How long a piece of work takes here that takes `work` elsewhere.
    pub(crate) fn takes(&self, work: f64) -> Duration {
        Duration::from_secs_f64(work * self.slowness)
    }

    /// A job should be done now. Where the server stopped meanwhile it takes so much longer, and is returned with its new end.
    pub(crate) fn end(&mut self, job: Job, now: Duration) -> Option<(Job, Duration)> {
        if let Some((from, to)) = self.pause
            && job.since < from
            && from <= now
        {
            return Some((Job { since: to, ..job }, now + (to - from)));
        }
        self.busy -= 1;
        None
    }
}

fn within(window: Option<(Duration, Duration)>, now: Duration) -> bool {
    window.is_some_and(|(from, to)| from <= now && now < to)
}
