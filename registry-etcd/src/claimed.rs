//! [`Claimed`]: which lease is ours, and what the state of the key means by it. Pure.

use callsign_core::Kept;
use etcd_client::KeyValue;

/// What was read of the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Found {
    /// The lease that it is bound to; 0 if to none.
    pub(crate) lease: i64,
    /// When it was written.
    pub(crate) revision: i64,
}

impl Found {
    pub(crate) fn of(kv: &KeyValue) -> Self {
        Self { lease: kv.lease(), revision: kv.mod_revision() }
    }
}

/// Which lease is ours, and whether the key is to be there.
#[derive(Debug, Default)]
pub(crate) struct Claimed {
    /// Our lease, or one whose grant was broken off. The key is in order if it is bound to this.
    pub(crate) lease: Option<i64>,
    /// Leases that etcd called dead. Some versions do so in error, and the key is then still bound to one: to be
    /// claimed again, and nobody else's.
    pub(crate) called_dead: Vec<i64>,
    /// Whether we have taken the key away ourselves, and keep the lease.
    pub(crate) withdrawn: bool,
    /// When we wrote the key last, as far as etcd has confirmed it.
    pub(crate) written: i64,
}

impl Claimed {
    /// What the state of the key means.
    pub(crate) fn judge(&self, found: Option<Found>) -> Kept {
        match found {
            None if self.withdrawn => Kept::Kept,
            None => Kept::Lost,
            Some(found) if Some(found.lease) == self.lease => Kept::Kept,
            Some(found) if self.called_dead.contains(&found.lease) || self.is_older(found) => Kept::Lost,
            Some(_) => Kept::Superseded,
        }
    }

    /// Whether what was found is older than what we wrote, so that etcd was restored from a backup. Its owner is gone,
    /// as a rule, and its lease expires. One that has no lease stays, and is somebody's.
    pub(crate) fn is_older(&self, found: Found) -> bool {
        found.lease != 0 && found.revision <= self.written && !self.is_ours(found)
    }

    /// Whether it is bound to a lease of ours.
    pub(crate) fn is_ours(&self, found: Found) -> bool {
        Some(found.lease) == self.lease || self.called_dead.contains(&found.lease)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(lease: i64, revision: i64) -> Option<Found> {
        Some(Found { lease, revision })
    }

    #[test]
    fn judges_by_lease_and_age() {
        let claimed = Claimed { lease: Some(7), called_dead: vec![5], withdrawn: false, written: 100 };
        assert_eq!(claimed.judge(None), Kept::Lost);
        assert_eq!(claimed.judge(found(7, 100)), Kept::Kept);
        // By a write whose answer was lost.
        assert_eq!(claimed.judge(found(7, 120)), Kept::Kept);
        assert_eq!(claimed.judge(found(5, 101)), Kept::Lost);
        assert_eq!(claimed.judge(found(8, 101)), Kept::Superseded);
        // Of a backup that was made before we claimed the key.
        assert_eq!(claimed.judge(found(8, 40)), Kept::Lost);
        // Put by hand, without any lease, whenever it was.
        assert_eq!(claimed.judge(found(0, 101)), Kept::Superseded);
        assert_eq!(claimed.judge(found(0, 40)), Kept::Superseded);
        let withdrawn = Claimed { withdrawn: true, ..claimed };
        assert_eq!(withdrawn.judge(None), Kept::Kept);
        assert_eq!(withdrawn.judge(found(8, 101)), Kept::Superseded);
    }
}
