use std::sync::Mutex;

use tokio::time::sleep;

use crate::fake::{Asked, BAD_VERSION, DELETE, EXISTS, SESSION, grant, listen, serve, session, stat};

use super::*;

fn left(session: &Session) -> Left {
    let left = Left { path: "/a".to_owned(), sessions: vec![SESSION] };
    session.owners.leave(left.clone());
    left
}

/// Asks for a client, which tidies, of a server that answers so. Returns what came of it, and what was asked.
async fn tidied(
    server: &tokio::net::TcpListener,
    session: &Session,
    mut answer: impl FnMut(&Asked) -> Result<Vec<u8>, i32>,
) -> (Result<()>, Vec<Asked>) {
    let asked = Mutex::new(Vec::new());
    let serving = serve(server, |request| {
        asked.lock().unwrap().push(request.clone());
        answer(request)
    });
    let tidied = tokio::select! {
        client = session.client() => client.map(drop),
        () = serving => unreachable!(),
    };
    (tidied, asked.into_inner().unwrap())
}

async fn gone(client: &Client) {
    while client.state() == SessionState::SyncConnected {
        sleep(Duration::from_millis(1)).await;
    }
}

/// It would lose its connection to who asks.
#[tokio::test]
async fn a_client_that_returned_by_itself_is_waited_for_longer() {
    let server = listen().await;
    let session = session(&server);
    let client = tokio::select! {
        client = session.client() => client.unwrap(),
        () = serve(&server, |_| Ok(Vec::new())) => unreachable!(),
    };
    gone(&client).await;
    // It is about to be let in, and takes its time.
    let returning = server.accept().await.unwrap();
    assert!(!session.has_ended(&client).await, "it has only just left");
    sleep(PROBE).await;
    let asks = async {
        let asking = server.accept().await.unwrap();
        let mut stream = returning.0;
        grant(&mut stream, SESSION).await;
        (asking, stream)
    };
    let (ended, (_asking, stream)) = tokio::join!(session.has_ended(&client), asks);
    assert!(!ended && client.state() == SessionState::SyncConnected);
    drop(stream);
    gone(&client).await;
    let _returning = server.accept().await.unwrap();
    for _ in 0..3 {
        assert!(!session.has_ended(&client).await);
        sleep(PROBE * 3 / 4).await;
    }
    assert!(timeout(PROBE / 10, server.accept()).await.is_err(), "nobody asks");
}

/// It is in the place of what was left, and of the same session.
#[tokio::test]
async fn what_was_claimed_meanwhile_is_not_tidied_away() {
    let server = listen().await;
    let session = session(&server);
    left(&session);
    let (tidied, asked) = tidied(&server, &session, |(what, _)| {
        assert_eq!(*what, EXISTS);
        session.owners.take("/a", session.owners.serial());
        Ok(stat(0))
    })
    .await;
    tidied.unwrap();
    assert_eq!(asked, [(EXISTS, "/a".to_owned())]);
    assert!(session.owners.left().is_empty());
}

/// That concerns nobody who asks for a client.
#[tokio::test]
async fn what_has_changed_meanwhile_is_looked_at_again() {
    let server = listen().await;
    let session = session(&server);
    left(&session);
    let mut versions = [0, 1].into_iter();
    let mut deletes = [Err(BAD_VERSION), Ok(Vec::new())].into_iter();
    let (tidied, asked) = tidied(&server, &session, |(what, _)| match *what {
        EXISTS => Ok(stat(versions.next().unwrap())),
        _ => deletes.next().unwrap(),
    })
    .await;
    tidied.unwrap();
    assert_eq!(asked.iter().map(|(what, _)| *what).collect::<Vec<_>>(), [EXISTS, DELETE, EXISTS, DELETE]);
    assert!(session.owners.left().is_empty());
}
