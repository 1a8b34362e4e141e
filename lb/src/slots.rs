//! [`Slots`]: what can be picked, in rows that sets share as long as nothing in them changes.

use std::fmt::{self, Debug};
use std::ops::Index;
use std::sync::Arc;

use crate::slot::Slot;

/// How many slots lie side by side: so many are copied when one changes.
const ROW: usize = 64;

/// Where a slot is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Seat(u32);

impl Seat {
    fn row(self) -> usize {
        self.0 as usize / ROW
    }

    fn place(self) -> usize {
        self.0 as usize % ROW
    }
}

/// In one piece, so that a walk through all of them is one through memory in order.
#[repr(align(64))]
struct Row<E>([Option<Slot<E>>; ROW]);

impl<E> Clone for Row<E> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<E> Row<E> {
    fn same(&self, other: &Self) -> bool {
        self.0.iter().zip(&other.0).all(|(a, b)| match (a, b) {
            (Some(a), Some(b)) => a.same(b),
            (None, None) => true,
            _ => false,
        })
    }
}

/// All slots that there are, each in a seat that it keeps.
pub(crate) struct Seats<E> {
    rows: Vec<Arc<Row<E>>>,
    /// Those that are free again.
    free: Vec<Seat>,
    /// How many were ever taken.
    taken: u32,
}

impl<E> Default for Seats<E> {
    fn default() -> Self {
        Self { rows: Vec::new(), free: Vec::new(), taken: 0 }
    }
}

impl<E> Seats<E> {
    /// Puts a slot into a seat that is free.
    pub(crate) fn take(&mut self, slot: Slot<E>) -> Seat {
        let seat = self.free.pop().unwrap_or_else(|| {
            let seat = Seat(self.taken);
            self.taken += 1;
            seat
        });
        if seat.row() == self.rows.len() {
            self.rows.push(Arc::new(Row([const { None }; ROW])));
        }
        self.put(seat, Some(slot));
        seat
    }

    /// Puts another slot in the place of one.
    pub(crate) fn renew(&mut self, seat: Seat, slot: Slot<E>) {
        self.put(seat, Some(slot));
    }

    /// Takes a slot out of its seat.
    pub(crate) fn leave(&mut self, seat: Seat) {
        self.put(seat, None);
        self.free.push(seat);
    }

    fn put(&mut self, seat: Seat, slot: Option<Slot<E>>) {
        if let Some(row) = self.rows.get_mut(seat.row()) {
            // Copied where some set has it.
            Arc::make_mut(row).0[seat.place()] = slot;
        }
    }

    /// The slots in some seats, as they are now, with their numbers.
    pub(crate) fn slots(&self, order: &Arc<[Seat]>, numbers: &Arc<[u64]>) -> Slots<E> {
        Slots { rows: self.rows.as_slice().into(), order: Arc::clone(order), numbers: Arc::clone(numbers) }
    }
}

/// The slots of a [`ReadySet`](crate::ReadySet), in its order. A clone is another handle of them.
pub struct Slots<E> {
    rows: Arc<[Arc<Row<E>>]>,
    order: Arc<[Seat]>,
    /// Of the instances, in the same order.
    numbers: Arc<[u64]>,
}

impl<E> Slots<E> {
    pub(crate) fn none() -> Self {
        Self { rows: Arc::new([]), order: Arc::new([]), numbers: Arc::new([]) }
    }

    /// What tells the instances from all others, in the order of the slots; the same for all connections of one.
    #[inline]
    pub(crate) fn numbers(&self) -> &[u64] {
        &self.numbers
    }

    /// How many there are.
    #[must_use]
    #[inline]
    pub fn len(&self) -> usize {
        self.order.len()
    }

    /// Whether there are none.
    #[must_use]
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// One of them.
    #[must_use]
    #[inline]
    pub fn get(&self, index: usize) -> Option<&Slot<E>> {
        let seat = *self.order.get(index)?;
        self.rows.get(seat.row())?.0[seat.place()].as_ref()
    }

    /// All of them.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Slot<E>> + Clone {
        (0..self.len()).filter_map(|index| self.get(index))
    }

    /// Whether all are the same, as far as that can be told from what two sets share: no, if one has changed that is in
    /// neither.
    pub(crate) fn same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.order, &other.order)
            && Arc::ptr_eq(&self.numbers, &other.numbers)
            && self.rows.len() == other.rows.len()
            && self.rows.iter().zip(&*other.rows).all(|(a, b)| Arc::ptr_eq(a, b) || a.same(b))
    }
}

impl<E> Index<usize> for Slots<E> {
    type Output = Slot<E>;

    /// One of them, as of a slice: panics if there are not so many.
    #[allow(clippy::expect_used, reason = "as a slice does")]
    fn index(&self, index: usize) -> &Slot<E> {
        self.get(index).expect("an index below the number of slots")
    }
}

impl<E> Clone for Slots<E> {
    fn clone(&self) -> Self {
        let Self { rows, order, numbers } = self;
        Self { rows: Arc::clone(rows), order: Arc::clone(order), numbers: Arc::clone(numbers) }
    }
}

impl<E> Debug for Slots<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}
