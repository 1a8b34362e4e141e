//! `etcd:` does what every registry does, in both formats that it writes.

use callsign_testkit::etcd::{EtcdFixture, Format};

mod grpc {
    use super::*;

    callsign_testkit::conformance! {
        fixture: EtcdFixture::start(callsign::open).await,
        registering: run,
        leasing: run,
        raw: run,
        outage: run,
    }
}
