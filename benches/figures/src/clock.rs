//! Time on a processor, to the nanosecond, which is finer than `getrusage` tells it.

use std::time::Duration;

use rustix::thread::ClockId;
use rustix::time::clock_gettime;

fn read(clock: ClockId) -> Duration {
    let time = clock_gettime(clock);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// What all threads of this process have had.
pub fn process_time() -> Duration {
    read(ClockId::ProcessCPUTime)
}

/// What this thread has had.
pub fn thread_time() -> Duration {
    read(ClockId::ThreadCPUTime)
}
