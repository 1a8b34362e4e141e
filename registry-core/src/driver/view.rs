//! [`View`]: what is listed of one service, with the mass-removal guard. Pure: updates and times in, a set out.
//!
//! A registry that was wiped, cut off or restarted looks like a service that lost most of its instances at
//! once. So unannounced losses within one `grace` are counted together, and from the moment that more than
//! half of what was there is gone, what goes stays listed, marked as held, until `grace` has passed. Within one
//! `grace` after that, or after an outage, no loss is believed, however small: owners return one by one, and who
//! reads the registry in between sees a part of them.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use rpds::RedBlackTreeMapSync;
use tokio::time::Instant;

use crate::backend::{Removal, Update};
use crate::model::{Instance, InstanceId, State};
use crate::snapshot::{Instances, Listed};
use crate::time::after;

/// An unannounced removal within the last `grace`.
#[derive(Debug, Clone)]
struct Loss {
    at: Instant,
    held: bool,
    /// More than half were gone by then.
    mass: bool,
}

#[derive(Debug)]
pub(crate) struct View {
    grace: Duration,
    /// What is published: the confirmed and the held.
    instances: Instances,
    /// How many of them the registry lists.
    confirmed: usize,
    losses: std::collections::HashMap<InstanceId, Loss>,
    /// Since when the registry has been readable without a break; `None` while it is not. Only readable time
    /// counts towards `grace`: in an outage nobody could have come back.
    readable_since: Option<Instant>,
    /// Whether it had been unreadable before that.
    had_outage: bool,
    /// When more than half were gone last, or some of them came back.
    mass_loss_at: Option<Instant>,
}

impl View {
    pub(crate) fn new(grace: Duration) -> Self {
        Self {
            grace,
            instances: RedBlackTreeMapSync::default(),
            confirmed: 0,
            losses: std::collections::HashMap::new(),
            readable_since: None,
            had_outage: false,
            mass_loss_at: None,
        }
    }

    pub(crate) fn instances(&self) -> &Instances {
        &self.instances
    }

    /// How many are listed only because the guard holds them.
    pub(crate) fn held(&self) -> usize {
        self.instances.size() - self.confirmed
    }

    /// The registry could not be read.
    pub(crate) fn unreadable(&mut self) {
        self.readable_since = None;
        // Before the first list there is nothing to lose.
        self.had_outage |= !self.instances.is_empty();
    }

    /// Takes in what a source read, and says whether what is listed has changed.
    pub(crate) fn apply(&mut self, update: Update, now: Instant) -> bool {
        self.readable_since.get_or_insert(now);
        match update {
            Update::Full(all) => {
                let present: HashSet<&InstanceId> = all.iter().map(Instance::id).collect();
                let gone: Vec<_> = self
                    .instances
                    .values()
                    .filter(|listed| !listed.is_held() && !present.contains(listed.id()))
                    .map(|listed| (listed.id().clone(), Removal::Expired))
                    .collect();
                drop(present);
                let removed = self.remove(gone, now);
                self.put(all, now) || removed
            }
            Update::Delta { put, gone } => {
                let removed = self.remove(gone, now);
                self.put(put, now) || removed
            }
        }
    }

    fn put(&mut self, instances: Vec<Instance>, now: Instant) -> bool {
        let mut changed = false;
        for instance in instances {
            let before = self.instances.get(instance.id());
            let was_confirmed = before.is_some_and(|listed| !listed.is_held());
            if was_confirmed && before.is_some_and(|listed| **listed == instance) {
                continue;
            }
            changed = true;
            self.confirmed += usize::from(!was_confirmed);
            if self.losses.remove(instance.id()).is_some_and(|loss| loss.mass) {
                self.mass_loss_at = Some(now);
            }
            let id = instance.id().clone();
            self.instances.insert_mut(id, Listed::new(Arc::new(instance), false));
        }
        changed
    }

    fn remove(&mut self, gone: Vec<(InstanceId, Removal)>, now: Instant) -> bool {
        let mut changed = false;
        let mut lost = Vec::new();
        for (id, how) in gone {
            let Some(listed) = self.instances.get(&id) else { continue };
            let held = listed.is_held();
            if how == Removal::Announced || listed.state() != State::Up {
                self.instances.remove_mut(&id);
                self.losses.remove(&id);
                self.confirmed -= usize::from(!held);
                changed = true;
            } else if !held {
                lost.push(id);
            }
        }
        if lost.is_empty() {
            return changed;
        }
        // A source may tell twice of one that went.
        lost.sort_unstable();
        lost.dedup();
        let grace = self.grace;
        self.losses.retain(|_, loss| loss.held || now.saturating_duration_since(loss.at) < grace);
        let was = self.confirmed + self.losses.len();
        let after_outage = self.had_outage
            && self.readable_since.is_some_and(|since| now.saturating_duration_since(since) < grace);
        let after_mass_loss = self.mass_loss_at.is_some_and(|at| now.saturating_duration_since(at) < grace);
        let mass = (self.losses.len() + lost.len()) * 2 > was;
        if mass {
            self.mass_loss_at = Some(now);
        }
        let hold = !grace.is_zero() && (after_outage || after_mass_loss || mass);
        self.confirmed -= lost.len();
        for id in lost {
            if hold {
                if let Some(listed) = self.instances.get(&id) {
                    let held = Listed::new(Arc::clone(listed.instance()), true);
                    self.instances.insert_mut(id.clone(), held);
                }
            } else {
                self.instances.remove_mut(&id);
            }
            if !grace.is_zero() {
                self.losses.insert(id, Loss { at: now, held: hold, mass });
            }
        }
        true
    }

    /// When the next held instance is to be let go; `None` while there is none, or in an outage.
    pub(crate) fn due(&self) -> Option<Instant> {
        let since = self.readable_since?;
        self.losses.values().filter(|loss| loss.held).map(|loss| after(loss.at.max(since), self.grace)).min()
    }

    /// Lets go of what was held for long enough, and returns it.
    pub(crate) fn expire(&mut self, now: Instant) -> Vec<InstanceId> {
        let Some(since) = self.readable_since else { return Vec::new() };
        let due: Vec<_> = self
            .losses
            .iter()
            .filter(|(_, loss)| loss.held && after(loss.at.max(since), self.grace) <= now)
            .map(|(id, _)| id.clone())
            .collect();
        for id in &due {
            self.losses.remove(id);
            self.instances.remove_mut(id);
        }
        due
    }
}

#[cfg(test)]
#[path = "view_tests.rs"]
mod tests;
