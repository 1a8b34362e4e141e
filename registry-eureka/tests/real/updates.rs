//! Updates that are refused.

use callsign_testkit::wait::ok;
use tokio::time::{sleep, timeout};

use crate::front::{Does, Front};
use crate::{instance, open, secs, start};

/// What is refused for a while costs no renewal.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_update_keeps_the_entry_alive() {
    let (server, raw, _) = start(&[]).await;
    for (weight, refused) in [(2, 429), (3, 503), (4, 403)] {
        let front = Front::start(server.addr()).await;
        let registry = open(&format!("eureka://{}/eureka?ttl=4s&drain=100ms", front.addr()));
        let registration = ok(registry.register(instance(1)).await, "register");
        front.does(move |method, _| if method == "POST" { Does::Refuse(refused) } else { Does::Pass });
        front.seen();
        let update = registration.update(instance(1).with_weight(weight));
        assert!(!matches!(timeout(secs(5), update).await, Ok(Ok(()))), "{refused}: it was not refused");
        sleep(secs(3)).await;
        let seen = front.seen();
        let count = |method| seen.iter().filter(move |seen| seen.method == method);
        assert!(count("POST").count() > 0 && count("PUT").count() > 1, "{refused}: {seen:?}");
        assert!(count("PUT").all(|seen| seen.status == 200), "{refused}: a renewal was refused: {seen:?}");
        front.does(|_, _| Does::Pass);
        ok(registration.update(instance(1).with_weight(weight + 10)).await, "update");
        let told = raw.instances("book").await.unwrap().remove(0);
        assert_eq!(told["metadata"]["weight"], (weight + 10).to_string(), "{told}");
        ok(registration.deregister().await, "deregister");
    }
}
