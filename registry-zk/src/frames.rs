//! What is said to servers past the client library: the frames of ZooKeeper's protocol, and one question.

use std::io;
use std::time::Duration;

use callsign_core::{Address, Connector, Trouble};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

/// More than any of the frames that are read here has.
const MAX_FRAME: usize = 4096;
/// How long a server may take to answer the question.
const PATIENCE: Duration = Duration::from_secs(2);

/// Some bytes with their number before them.
pub(crate) fn frame(bytes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    [&length.to_be_bytes(), bytes].concat()
}

/// The bytes of the next frame, which is a short one.
pub(crate) async fn read_frame(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
    let length = from.read_u32().await? as usize;
    if length > MAX_FRAME {
        let text = format!("it does not speak ZooKeeper's protocol, or begins with {length} bytes");
        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
    }
    let mut bytes = vec![0; length];
    from.read_exact(&mut bytes).await?;
    Ok(bytes)
}

/// Why a server gives no answer, if it gives none: the client library knows that it failed and not why. It is asked for a
/// session that there cannot be, so that none comes of it.
pub(crate) async fn trouble_with(connector: &Connector, address: &Address) -> Option<String> {
    let question = [
        &[0; 4][..],
        // The last transaction seen, none; a timeout; the session, and its password.
        &[0; 8],
        &10_000_u32.to_be_bytes(),
        &1_u64.to_be_bytes(),
        &frame(&[0; 16]),
        &[0],
    ];
    let asked = async {
        let mut stream = connector.connect(address, &Trouble::default()).await?;
        stream.write_all(&frame(&question.concat())).await?;
        stream.flush().await?;
        read_frame(&mut stream).await
    };
    let why = match timeout(PATIENCE, asked).await {
        Ok(Ok(_)) => return None,
        Ok(Err(error)) if is_closed(&error) => {
            "it closes the connection without a word: it is no part of a quorum, has too many connections from here \
             (maxClientCnxns), or speaks TLS, which is asked for with zk+tls://"
                .to_owned()
        }
        Ok(Err(error)) => error.to_string(),
        Err(_) => format!("no answer within {PATIENCE:?}"),
    };
    Some(format!("{address}: {why}"))
}

fn is_closed(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionReset, UnexpectedEof};
    matches!(error.kind(), ConnectionReset | UnexpectedEof)
}
