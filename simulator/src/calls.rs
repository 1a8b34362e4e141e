//! [`Calls`]: the calls whose clients still wait.

use std::time::Duration;

use callsign_lb::Picked;

/// A call that was made.
#[derive(Debug)]
pub(crate) struct Open {
    pub(crate) begun: Duration,
    pub(crate) picked: Picked<usize>,
}

/// Which call. The place of one that has ended is used again, by a later one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CallId {
    place: usize,
    number: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Calls {
    places: Vec<(u64, Option<Open>)>,
    free: Vec<usize>,
    made: u64,
}

impl Calls {
    pub(crate) fn open(&mut self, call: Open) -> CallId {
        self.made += 1;
        let place = self.free.pop().unwrap_or_else(|| {
            self.places.push((0, None));
            self.places.len() - 1
        });
        self.places[place] = (self.made, Some(call));
        CallId { place, number: self.made }
    }

    /// Ends a call, unless it has ended.
    pub(crate) fn close(&mut self, id: CallId) -> Option<Open> {
        let (number, call) = self.places.get_mut(id.place)?;
        let call = (*number == id.number).then(|| call.take()).flatten()?;
        self.free.push(id.place);
        Some(call)
    }
}
