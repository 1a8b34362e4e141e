//! [`owner`]: which process is at the other end of a connection, by what Linux tells of sockets.

use std::io;
use std::net::SocketAddr;
use std::path::Path;

/// Which of `processes` holds the end `from` of a connection to `to`, both on this machine; `None` if none does.
///
/// # Errors
/// The system does not tell.
pub fn owner(from: SocketAddr, to: SocketAddr, processes: &[u32]) -> io::Result<Option<usize>> {
    let table = std::fs::read_to_string("/proc/net/tcp")?;
    let Some(inode) = inode(&table, from.port(), to.port()) else { return Ok(None) };
    let socket = format!("socket:[{inode}]");
    for (n, process) in processes.iter().enumerate() {
        // One that has ended holds nothing.
        let Ok(files) = std::fs::read_dir(format!("/proc/{process}/fd")) else { continue };
        let mut links = files.filter_map(|file| std::fs::read_link(file.ok()?.path()).ok());
        if links.any(|link| link == Path::new(&socket)) {
            return Ok(Some(n));
        }
    }
    Ok(None)
}

/// The inode of the socket that is connected from one local port to another.
fn inode(table: &str, from: u16, to: u16) -> Option<&str> {
    let port = |address: &str| u16::from_str_radix(address.rsplit_once(':')?.1, 16).ok();
    table.lines().skip(1).find_map(|line| {
        let columns: Vec<_> = line.split_whitespace().collect();
        let matches = port(columns.get(1)?) == Some(from) && port(columns.get(2)?) == Some(to);
        // Zero: nobody holds it any more.
        columns.get(9).copied().filter(|inode| matches && *inode != "0")
    })
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener, TcpStream};

    use super::*;

    #[test]
    fn tells_whose_a_connection_is() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let to = listener.local_addr().unwrap();
        let stream = TcpStream::connect(to).unwrap();
        let from = stream.local_addr().unwrap();
        let (nobody, own) = (u32::MAX, std::process::id());
        assert_eq!(owner(from, to, &[nobody, own]).unwrap(), Some(1));
        assert_eq!(owner(from, to, &[nobody]).unwrap(), None);
        assert_eq!(owner(to, to, &[own]).unwrap(), None);
    }
}
