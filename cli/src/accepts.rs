//! Whether anybody accepts connections at an address.

use std::convert::Infallible;
use std::io;
use std::time::Duration;

use callsign::Address;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

use crate::output::note;

/// How long one connection may take. A host that does not answer at all would take minutes.
const CONNECT: Duration = Duration::from_secs(1);
/// The pause between tries, at first and at most.
const PAUSE: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(250));
/// When it is said that it takes long.
const LONG: Duration = Duration::from_secs(5);

/// Whether a connection is accepted now.
pub(crate) async fn now(address: &Address) -> io::Result<()> {
    match timeout(CONNECT, TcpStream::connect((address.host(), address.port()))).await {
        Ok(connected) => connected.map(drop),
        Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {CONNECT:?}"))),
    }
}

/// Waits until one is; the reason of the last refusal if none is within `within`.
pub(crate) async fn within(address: &Address, within: Duration) -> Result<(), io::Error> {
    let (begun, mut said) = (Instant::now(), false);
    let mut last = io::Error::other("not tried");
    let trying = async {
        let mut pause = PAUSE.0;
        loop {
            match now(address).await {
                Ok(()) => return Ok::<(), Infallible>(()),
                Err(error) => last = error,
            }
            if begun.elapsed() >= LONG && !std::mem::replace(&mut said, true) {
                note(format_args!(
                    "waiting for {address} to accept connections: {last}; until {} have passed (--wait)",
                    humantime::format_duration(within)
                ));
            }
            sleep(pause).await;
            pause = (pause * 2).min(PAUSE.1);
        }
    };
    match timeout(within, trying).await {
        Ok(_) => Ok(()),
        Err(_) => Err(last),
    }
}
