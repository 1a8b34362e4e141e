//! [`Port`]: a free loopback port that stays ours while its server is down.

use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};

/// Below what the system hands out to outgoing connections, so that none of them takes the port of a server that
/// is down at the moment.
const RANGE: std::ops::Range<u16> = 12_000..32_000;

/// A port of 127.0.0.1, reserved among all test processes of this machine for as long as it is held.
#[derive(Debug)]
pub struct Port {
    port: u16,
    // The lock on it is the reservation, which the system ends if this process is killed.
    _reservation: File,
}

impl Port {
    /// Reserves one that nobody listens on.
    ///
    /// # Errors
    /// No reservation can be written, or no port is free.
    pub fn reserve() -> io::Result<Self> {
        let folder = std::env::temp_dir().join("callsign-test-ports");
        std::fs::create_dir_all(&folder)?;
        let mut refused = None;
        for _ in 0..200 {
            let port = fastrand::u16(RANGE);
            let reservation = match File::create(folder.join(port.to_string())) {
                Ok(file) => file,
                Err(error) => {
                    refused = Some(error);
                    continue;
                }
            };
            if reservation.try_lock().is_ok() && TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
                return Ok(Self { port, _reservation: reservation });
            }
        }
        Err(refused.unwrap_or_else(|| io::Error::other("no free port found in 200 tries")))
    }

    /// The port.
    #[must_use]
    pub fn number(&self) -> u16 {
        self.port
    }

    /// The port on 127.0.0.1.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_reserved_is_not_given_again() {
        let held: Vec<_> = (0..50).map(|_| Port::reserve().unwrap()).collect();
        let mut numbers: Vec<_> = held.iter().map(Port::number).collect();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), 50);
    }
}
