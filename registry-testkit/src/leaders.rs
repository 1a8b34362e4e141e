//! Waiting until the members of a cluster take somebody for their leader, or nobody.

use std::io;
use std::time::Duration;

use tokio::time::{Instant, sleep};

/// Election timeouts are a second; some elections take several.
const ELECTION: Duration = Duration::from_secs(15);

/// Whom each member follows, by their numbers.
type Leaders = [Option<usize>];

/// Asks every member of `members` whom it follows, until all of it `holds`.
pub(crate) async fn until(
    members: usize,
    follows: impl AsyncFn(usize) -> io::Result<Option<usize>>,
    holds: impl Fn(&Leaders) -> bool,
) -> io::Result<()> {
    let begun = Instant::now();
    loop {
        let mut leaders = Vec::new();
        for member in 0..members {
            leaders.push(follows(member).await?);
        }
        if holds(&leaders) {
            return Ok(());
        }
        if begun.elapsed() > ELECTION {
            return Err(io::Error::other(format!("the members follow {leaders:?} after {ELECTION:?}")));
        }
        sleep(Duration::from_millis(20)).await;
    }
}

/// A member knows of no leader, and the others agree on one of them.
pub(crate) fn in_minority(leaders: &Leaders, member: usize) -> bool {
    let others: Vec<_> =
        leaders.iter().enumerate().filter(|(n, _)| *n != member).map(|(_, leader)| *leader).collect();
    let agreed = others.windows(2).all(|pair| pair[0] == pair[1]);
    leaders[member].is_none() && agreed && others[0].is_some_and(|leader| leader != member)
}

/// All agree on a leader.
pub(crate) fn whole(leaders: &Leaders) -> bool {
    leaders[0].is_some() && leaders.iter().all(|leader| *leader == leaders[0])
}
