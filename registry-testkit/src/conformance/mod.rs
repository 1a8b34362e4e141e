//! What every backend must do, written once. [`conformance!`](macro@crate::conformance) makes one test of each case.

pub mod contract;
pub mod data;
pub mod lease;
pub mod leave;
pub mod outage;
pub mod raw;
pub mod register;
pub mod resources;
pub mod safety;
pub mod watch;

pub use contract::{expiry, recovery};
pub use watch::following as follow;

use std::time::Duration;

use callsign_core::{ErrorKind, Instance, InstanceId, Registry, ServiceName};

use crate::fixture::{Fixture, Group, Tuning};
use crate::wait::ok;

/// Expands to one `#[tokio::test]` for each conformance case. The crate that uses it needs `tokio` with its macros and
/// its multi-threaded runtime among its dev-dependencies.
///
/// Each group of cases is named, with `run` or with the reason why it cannot apply. A group that does not apply
/// shows as ignored tests, and the fixture's [`Caps`](crate::fixture::Caps) must say so too: one more test
/// compares the two.
///
/// ```ignore
/// callsign_testkit::conformance! {
///     fixture: UrlFixture::memory(callsign::open),
///     registering: run,
///     leasing: ignore "an entry lives as long as its owner",
///     raw: ignore "nobody else can write here",
///     outage: ignore "there is no server",
/// }
/// ```
#[macro_export]
macro_rules! conformance {
    (
        fixture: $fixture:expr,
        registering: $registering:ident $($registering_why:literal)?,
        leasing: $leasing:ident $($leasing_why:literal)?,
        raw: $raw:ident $($raw_why:literal)?,
        outage: $outage:ident $($outage_why:literal)? $(,)?
    ) => {
        #[::tokio::test]
        async fn what_is_left_out_is_declared() {
            let left_out = [
                $crate::__left_out!(Registering $registering),
                $crate::__left_out!(Leasing $leasing),
                $crate::__left_out!(Raw $raw),
                $crate::__left_out!(Outage $outage),
            ];
            let left_out: ::std::vec::Vec<_> = left_out.into_iter().flatten().collect();
            $crate::conformance::left_out(&$fixture, &left_out).await;
        }
        $crate::__cases! { $fixture; run; watch:
            pending_then_fresh, cancelled_waits_leak_nothing, closed_says_so, ends_with_its_last_subscriber,
        }
        $crate::__cases! { $fixture; $registering $($registering_why)?; register:
            seen_with_its_content_then_gone, equal_content_is_no_change, updated_in_place,
            another_identity_is_no_update, second_claim, services_are_apart, removed_by_hand_is_back,
            kept_registered_from_the_start, dropped_halfway_leaves_nothing,
        }
        $crate::__cases! { $fixture; $registering $($registering_why)?; leave:
            in_two_phases, drop_withdraws, within_its_bound, close_releases_all_and_revives_nothing,
            a_superseded_one_leaves_the_other,
        }
        $crate::__cases! { $fixture; $registering $($registering_why)?; data:
            every_field, addresses, ids, metadata_of_64_kilobytes, what_cannot_be_called_is_refused,
        }
        $crate::__cases! { $fixture; $registering $($registering_why)?; follow:
            created_later, late_and_slow_subscribers, written_in_the_gap,
        }
        $crate::__cases! { $fixture; $registering $($registering_why)?; safety:
            random_changes,
        }
        $crate::__cases! { $fixture; $registering $($registering_why)?; contract:
            what_is_ours_and_what_is_absent, what_is_anothers_is_left_alone, dropped_calls_come_to_nothing,
            lists_first_and_when_told_to, next_loses_nothing_when_dropped,
        }
        $crate::__cases! { $fixture; $leasing $($leasing_why)?; expiry:
            what_is_not_renewed_expires,
        }
        $crate::__cases! { $fixture; $outage $($outage_why)?; recovery:
            lists_after_an_error,
        }
        $crate::__cases! { $fixture; $leasing $($leasing_why)?; lease:
            ten_idle_ttls, forgotten_by_the_registry,
        }
        $crate::__cases! { $fixture; $raw $($raw_why)?; raw:
            found_and_gone, malformed_entries_are_skipped, deleted_behind_its_back, nothing_is_left_behind,
        }
        $crate::__cases! { $fixture; $outage $($outage_why)?; outage:
            down_at_start, killed_and_back, silent_and_back, down_for_ten_ttls, wiped, missed_changes,
            ambiguous_create, leaving_is_bounded, crashed_owner_expires, random_faults,
        }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __left_out {
    ($group:ident run) => {
        ::std::option::Option::None::<$crate::fixture::Group>
    };
    ($group:ident ignore) => {
        ::std::option::Option::Some($crate::fixture::Group::$group)
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __cases {
    ($fixture:expr; run; $module:ident: $($case:ident),* $(,)?) => {
        mod $module {
            #[allow(unused_imports)]
            use super::*;
            $(
                #[::tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $case() {
                    let fixture = $fixture;
                    $crate::conformance::bounded($crate::conformance::$module::$case(&fixture)).await;
                }
            )*
        }
    };
    ($fixture:expr; ignore $why:literal; $module:ident: $($case:ident),* $(,)?) => {
        mod $module {
            $(
                #[test]
                #[ignore = $why]
                fn $case() {
                    panic!($why);
                }
            )*
        }
    };
}

/// Checks that a test leaves out what its fixture says that it lacks, no less and no more, and that the fixture
/// indeed cannot do it.
pub async fn left_out(fixture: &impl Fixture, left_out: &[Group]) {
    let caps = fixture.caps();
    assert_eq!(caps.lacks, left_out, "the groups that the fixture lacks, and those that the test leaves out");
    let unsupported = |result: callsign_core::Result<()>| {
        assert_eq!(result.unwrap_err().kind(), ErrorKind::Unsupported);
    };
    let (service, id) = (service(), InstanceId::new("i").unwrap());
    for group in left_out {
        match group {
            Group::Watching => panic!("every registry can be watched"),
            Group::Registering => {
                let registry = open(fixture);
                unsupported(registry.register(instance(&service, 1)).await.map(drop));
                unsupported(registry.remove(&service, &id).await);
            }
            Group::Leasing => {
                assert_eq!(caps.ttl, None);
                unsupported(fixture.revoke(&service, &id).await);
            }
            Group::Raw => unsupported(fixture.inject(&service, &id, "10.0.0.1:1").await),
            Group::Outage => unsupported(fixture.kill().await),
        }
    }
}

/// Runs a case, and fails it if it hangs.
pub async fn bounded(case: impl Future<Output = ()>) {
    let most = Duration::from_secs(if full() { 1800 } else { 240 });
    assert!(tokio::time::timeout(most, case).await.is_ok(), "the case did not end within {most:?}");
}

/// A name that no other case uses.
pub(crate) fn service() -> ServiceName {
    ServiceName::new(&format!("s-{:012x}", fastrand::u64(..) & 0xffff_ffff_ffff)).unwrap()
}

/// One of many instances of a service.
pub(crate) fn instance(service: &ServiceName, n: u16) -> Instance {
    Instance::new(service, format!("127.0.0.1:{}", 10_000 + n)).unwrap()
}

/// Short enough to wait for.
pub(crate) const DRAIN: Duration = Duration::from_millis(300);

/// What most cases open: with a drain delay that is short enough to wait for.
pub(crate) fn tuning(fixture: &impl Fixture) -> Tuning {
    Tuning { drain: Some(DRAIN), ttl: fixture.caps().ttl, ..Tuning::default() }
}

pub(crate) fn open(fixture: &impl Fixture) -> Registry {
    ok(fixture.open(&tuning(fixture)), "open")
}

/// Whether the long forms are wanted: a minute's outage a minute long, every seed.
#[must_use]
pub fn full() -> bool {
    std::env::var_os("CALLSIGN_TEST_FULL").is_some_and(|value| value == "1")
}
