//! [`NamedPolicy`]: a policy by its name, for command lines and configuration.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use super::{
    BoundedLoad, Choice, Maglev, Members, P2cPending, P3cEwma, Policy, Random, Rendezvous, RingHash,
    RoundRobin, WeightedRandom, WeightedRoundRobin,
};
use crate::ewma::Ewma;

/// There is no policy of that name.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("no policy is called {name:?}: it is one of {}", NamedPolicy::NAMES.join(", "))]
#[non_exhaustive]
pub struct UnknownPolicy {
    /// What was asked for.
    pub name: String,
}

macro_rules! named {
    ($($(#[$doc:meta])* $variant:ident($policy:ty, $value:expr) = $name:literal $(| $alias:literal)*,)*) => {
        /// One of the policies that there are, with its defaults, by name.
        ///
        /// ```
        /// use callsign_lb::NamedPolicy;
        ///
        /// let policy: NamedPolicy = "ewma".parse()?;
        /// assert_eq!(policy.to_string(), "p3c_ewma");
        /// let error = "fastest".parse::<NamedPolicy>().unwrap_err();
        /// assert!(error.to_string().starts_with("no policy is called \"fastest\": it is one of p3c_ewma, "));
        /// # Ok::<(), callsign_lb::UnknownPolicy>(())
        /// ```
        #[derive(Debug, Clone, Copy)]
        #[non_exhaustive]
        pub enum NamedPolicy {
            $($(#[$doc])* $variant($policy),)*
        }

        /// The table of a [`NamedPolicy`].
        #[derive(Debug)]
        pub struct NamedTable(Table);

        #[derive(Debug)]
        enum Table {
            $($variant(<$policy as Policy>::Table),)*
        }

        /// What a handle of a [`NamedPolicy`] carries.
        #[derive(Debug)]
        pub struct NamedLocal(Local);

        #[derive(Debug)]
        enum Local {
            $($variant(<$policy as Policy>::Local),)*
        }

        impl NamedPolicy {
            /// What they are called.
            pub const NAMES: &'static [&'static str] = &[$($name),*];

            fn named(name: &str) -> Option<Self> {
                match name {
                    $($name $(| $alias)* => Some(Self::$variant($value)),)*
                    _ => None,
                }
            }

            fn name(&self) -> &'static str {
                match self {
                    $(Self::$variant(_) => $name,)*
                }
            }
        }

        impl Policy for NamedPolicy {
            type Table = NamedTable;
            type Local = NamedLocal;

            fn build(&self, members: &Members<'_, NamedTable>) -> NamedTable {
                NamedTable(match self {
                    $(Self::$variant(policy) => {
                        let before = match members.before() {
                            Some(NamedTable(Table::$variant(table))) => Some(table),
                            _ => None,
                        };
                        Table::$variant(policy.build(&members.with_before(before)))
                    })*
                })
            }

            fn local(&self, seed: u64) -> NamedLocal {
                NamedLocal(match self {
                    $(Self::$variant(policy) => Local::$variant(policy.local(seed)),)*
                })
            }

            fn ewma(&self) -> Option<Ewma> {
                match self {
                    $(Self::$variant(policy) => policy.ewma(),)*
                }
            }

            #[inline]
            fn pick(&self, table: &NamedTable, local: &mut NamedLocal, choice: &Choice<'_>) -> Option<usize> {
                match (self, &table.0, &mut local.0) {
                    $((Self::$variant(policy), Table::$variant(table), Local::$variant(local)) => {
                        policy.pick(table, local, choice)
                    })*
                    // A policy is given what it made itself.
                    _ => None,
                }
            }
        }
    };
}

named! {
    /// `p3c_ewma` or `ewma`: [`P3cEwma`].
    P3cEwma(P3cEwma, P3cEwma::default()) = "p3c_ewma" | "ewma",
    /// `peak_ewma`: [`P3cEwma::peak`].
    PeakEwma(P3cEwma, P3cEwma::peak()) = "peak_ewma",
    /// `p2c`, `p2c_pending` or `least_request`: [`P2cPending`].
    P2cPending(P2cPending, P2cPending::default()) = "p2c" | "p2c_pending" | "least_request",
    /// `round_robin` or `rr`: [`RoundRobin`].
    RoundRobin(RoundRobin, RoundRobin::default()) = "round_robin" | "rr",
    /// `weighted_round_robin` or `wrr`: [`WeightedRoundRobin`].
    WeightedRoundRobin(WeightedRoundRobin, WeightedRoundRobin::default()) = "weighted_round_robin" | "wrr",
    /// `random`: [`Random`].
    Random(Random, Random::default()) = "random",
    /// `weighted_random`: [`WeightedRandom`].
    WeightedRandom(WeightedRandom, WeightedRandom::default()) = "weighted_random",
    /// `maglev`: [`Maglev`].
    Maglev(Maglev, Maglev::default()) = "maglev",
    /// `ring_hash` or `ketama`: [`RingHash`].
    RingHash(RingHash, RingHash::default()) = "ring_hash" | "ketama",
    /// `rendezvous` or `hrw`: [`Rendezvous`].
    Rendezvous(Rendezvous, Rendezvous::default()) = "rendezvous" | "hrw",
    /// `bounded_load`: [`BoundedLoad`].
    BoundedLoad(BoundedLoad, BoundedLoad::default()) = "bounded_load",
}

impl Default for NamedPolicy {
    /// [`P3cEwma`].
    fn default() -> Self {
        Self::P3cEwma(P3cEwma::default())
    }
}

impl FromStr for NamedPolicy {
    type Err = UnknownPolicy;

    /// Takes `-` for `_`, as command lines have it.
    fn from_str(name: &str) -> Result<Self, UnknownPolicy> {
        Self::named(&name.replace('-', "_")).ok_or_else(|| UnknownPolicy { name: name.to_owned() })
    }
}

impl fmt::Display for NamedPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Scene, keeps_the_contract};
    use super::*;
    use crate::call::Call;

    #[test]
    fn every_name_is_read_back_and_works() {
        assert_eq!(NamedPolicy::NAMES.len(), 11);
        for name in NamedPolicy::NAMES {
            let policy: NamedPolicy = name.parse().unwrap();
            assert_eq!(policy.to_string(), *name);
            keeps_the_contract(&policy);
            assert!(Scene::new(policy, &[1, 2, 3]).pick(&Call::new()).is_some());
        }
        assert_eq!("round-robin".parse::<NamedPolicy>().unwrap().to_string(), "round_robin");
        assert_eq!(NamedPolicy::default().to_string(), "p3c_ewma");
        assert!(
            NamedPolicy::default().ewma().is_some() && "p2c".parse::<NamedPolicy>().unwrap().ewma().is_none()
        );
    }

    #[test]
    fn an_unknown_name_is_told_what_there_is() {
        assert_eq!(
            "Fastest".parse::<NamedPolicy>().unwrap_err().to_string(),
            "no policy is called \"Fastest\": it is one of p3c_ewma, peak_ewma, p2c, round_robin, \
             weighted_round_robin, random, weighted_random, maglev, ring_hash, rendezvous, bounded_load"
        );
    }
}
