//! `file:` does what every registry does.

use callsign_testkit::file::FileFixture;

callsign_testkit::conformance! {
    fixture: FileFixture::new(callsign::open),
    registering: run,
    leasing: ignore "an entry lives as long as its owner",
    raw: run,
    outage: ignore "there is no server",
}
