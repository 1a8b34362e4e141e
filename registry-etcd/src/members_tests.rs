use super::*;

fn members(count: u16) -> Members {
    let addresses: Vec<_> = (1..=count).map(|port| Address::new("127.0.0.1", port.into()).unwrap()).collect();
    let connector = Connector::new(None, &[]).unwrap();
    Members::new(addresses, 0, Duration::from_secs(6), connector, None, Handle::current())
}

#[tokio::test(start_paused = true)]
async fn what_failed_is_asked_last_for_a_while() {
    let members = members(3);
    assert_eq!(members.order(), [0, 1, 2]);
    members.bad(0);
    assert_eq!(members.order(), [1, 2, 0]);
    members.bad(2);
    assert_eq!(members.order(), [1, 2, 0]);
    members.bad(1);
    members.good(0);
    assert_eq!(members.order(), [0, 1, 2]);
    tokio::time::advance(SHUNNED).await;
    assert_eq!(members.order(), [0, 1, 2]);
}

#[tokio::test(start_paused = true)]
async fn a_hanging_member_takes_its_share_and_loses_its_place() {
    let members = members(3);
    let started = Instant::now();
    let asked = Mutex::new(0);
    let answer = members.ask("list", Repeat::Safe, |_| {
        let nth = std::mem::replace(&mut *asked.lock().unwrap(), 1);
        async move {
            if nth == 0 {
                std::future::pending::<()>().await;
            }
            Ok(7)
        }
    });
    assert_eq!(answer.await.unwrap(), (1, 7));
    assert_eq!(started.elapsed(), LEAST_SHARE);
    assert_eq!(members.order(), [1, 2, 0]);
}

#[tokio::test(start_paused = true)]
async fn a_change_of_unknown_outcome_is_not_repeated() {
    let members = members(2);
    let asked = Mutex::new(0);
    let hang = |_| {
        *asked.lock().unwrap() += 1;
        std::future::pending::<Result<(), etcd_client::Error>>()
    };
    let error = members.ask("write", Repeat::Unsent, hang).await.unwrap_err();
    assert_eq!((error.kind(), *asked.lock().unwrap()), (ErrorKind::Timeout, 1));
    assert!(error.to_string().contains("127.0.0.1:1"), "{error}");
    // The next one goes elsewhere.
    assert_eq!(members.order(), [1, 0]);
}

#[tokio::test(start_paused = true)]
async fn who_gives_up_on_a_hanging_member_marks_it() {
    let members = members(2);
    let hang = members.ask("list", Repeat::Safe, |_| std::future::pending::<Result<(), _>>());
    assert!(timeout(Duration::from_millis(1500), hang).await.is_err());
    assert_eq!(members.order(), [1, 0]);
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_died_is_replaced_once() {
    let members = members(1);
    let asked = Mutex::new(0);
    let dies = |times: i32| {
        *asked.lock().unwrap() = 0;
        let asked = &asked;
        move |_| {
            let nth = {
                let mut asked = asked.lock().unwrap();
                *asked += 1;
                *asked
            };
            async move {
                match nth <= times {
                    true => Err(etcd_client::Error::GRpcStatus(tonic::Status::unknown("h2 protocol error"))),
                    false => Ok(nth),
                }
            }
        }
    };
    assert_eq!(members.ask("list", Repeat::Safe, dies(1)).await.unwrap(), (0, 2));
    assert_eq!(members.ask("list", Repeat::Safe, dies(2)).await.unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(*asked.lock().unwrap(), 2);
    // It may have been carried out.
    assert!(members.ask("claim", Repeat::Unsent, dies(1)).await.is_err());
    assert_eq!(*asked.lock().unwrap(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_final() {
    let members = members(2);
    let refuse = |_| async {
        Err::<(), _>(etcd_client::Error::GRpcStatus(tonic::Status::permission_denied(
            "etcdserver: permission denied",
        )))
    };
    let error = members.ask("list", Repeat::Safe, refuse).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied);
    assert_eq!(members.order(), [0, 1]);
}
