//! A server that answers as it is told, for what no real one can be made to do in time.

use std::time::Duration;

use callsign_core::{Address, Connector};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;

use crate::frames::{frame, read_frame};
use crate::session::{Ensemble, Session};
use crate::way::Way;

/// The session that is granted.
pub(crate) const SESSION: i64 = 7;
pub(crate) const REQUEST: Duration = Duration::from_secs(5);

pub(crate) const DELETE: i32 = 2;
pub(crate) const EXISTS: i32 = 3;
pub(crate) const CREATE: i32 = 15;

pub(crate) const NO_NODE: i32 = -101;
pub(crate) const BAD_VERSION: i32 = -103;
pub(crate) const NODE_EXISTS: i32 = -110;

/// What is asked for of which node.
pub(crate) type Asked = (i32, String);

pub(crate) async fn listen() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").await.unwrap()
}

pub(crate) fn session(server: &TcpListener) -> Session {
    let address = Address::try_from(server.local_addr().unwrap().to_string().as_str()).unwrap();
    let connector = Connector::new(None, &[]).unwrap();
    let way = Way::new(vec![address], connector, false, REQUEST, Handle::current());
    Session::new(Ensemble { way, timeout: REQUEST * 2, request_timeout: REQUEST, credentials: None })
}

/// Answers the first request on a connection.
pub(crate) async fn let_in(server: &TcpListener, session: i64) -> TcpStream {
    let (mut stream, _) = server.accept().await.unwrap();
    grant(&mut stream, session).await;
    stream
}

/// The same, on one that is there already.
pub(crate) async fn grant(stream: &mut TcpStream, session: i64) {
    read_frame(stream).await.unwrap();
    let granted = [&[0; 4], &10_000_i32.to_be_bytes()[..], &session.to_be_bytes(), &frame(&[0; 16]), &[0]];
    stream.write_all(&frame(&granted.concat())).await.unwrap();
}

/// Lets somebody in and answers, by what `answer` says: the bytes, or the number of an error. Never ends by itself.
pub(crate) async fn serve(server: &TcpListener, mut answer: impl FnMut(&Asked) -> Result<Vec<u8>, i32>) {
    let mut stream = let_in(server, SESSION).await;
    while let Ok(request) = read_frame(&mut stream).await {
        let int = |at: usize| i32::from_be_bytes(request[at..at + 4].try_into().unwrap());
        let number = &request[..4];
        let said = if number == (-2_i32).to_be_bytes() {
            Ok(Vec::new())
        } else {
            let length = int(8).try_into().unwrap_or(0);
            let path = String::from_utf8_lossy(request.get(12..12 + length).unwrap_or_default());
            answer(&(int(4), path.into_owned()))
        };
        let (error, bytes) = said.map_or_else(|error| (error, Vec::new()), |bytes| (0, bytes));
        let answer = [number, &[0; 8], &error.to_be_bytes(), &bytes];
        stream.write_all(&frame(&answer.concat())).await.unwrap();
    }
    std::future::pending::<()>().await;
}

/// A node of [`SESSION`], as it is described.
pub(crate) fn stat(version: i32) -> Vec<u8> {
    [&[0; 8 * 4][..], &version.to_be_bytes(), &[0; 4 * 2], &SESSION.to_be_bytes(), &[0; 4 * 2 + 8]].concat()
}

/// What is said of one that was made.
pub(crate) fn created(path: &str) -> Vec<u8> {
    [frame(path.as_bytes()), stat(0)].concat()
}
