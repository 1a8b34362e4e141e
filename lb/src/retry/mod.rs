//! [`Retry`]: makes a call, and makes it again elsewhere if it failed in a way that allows it. Go kit's
//! `lb.Retry`.

mod budget;
mod error;

use std::error::Error as StdError;
use std::fmt::{self, Debug};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until, timeout_at};

pub use self::budget::Budget;
pub use self::error::{Attempt, AttemptError, RetryError};
use crate::balancer::Balancer;
use crate::call::Call;
use crate::endpointer::Backoff;
use crate::error::PickError;
use crate::picked::Picked;
use crate::policy::Policy;
use crate::stats::Outcome;

/// The bounds of the pauses before an instance is tried that has just failed, and before the next look where
/// there was no endpoint.
const PAUSES: Backoff = Backoff { first: Duration::from_millis(25), most: Duration::from_secs(1) };

/// A budget is not cut into smaller pieces than this, nor into more than [`SHARES`].
const LEAST: Duration = Duration::from_millis(1);
const SHARES: usize = 8;

/// Which failed attempts may be repeated. Every `Fn(&AttemptError<X>) -> bool` says so.
pub trait Decide<X> {
    /// Whether a call that failed so may be made again.
    fn repeats(&self, error: &AttemptError<X>) -> bool;

    /// What a failed attempt says of the instance that was tried, which balancers heed whose policy minds failures:
    /// that it failed. Where an error may be the answer to a wrong question, as "not found", `call` had better
    /// [report](Picked::report) the success itself, before it returns.
    fn outcome(&self, _: &AttemptError<X>) -> Outcome {
        Outcome::Failure
    }

    /// Whether repeating a call that failed so takes from the [budget](Retry::budget): unless there was nothing to try.
    /// What no server has seen loads none, so that whoever knows it of `X` may say no.
    fn costs(&self, error: &AttemptError<X>) -> bool {
        !matches!(error, AttemptError::NoEndpoint(_))
    }
}

impl<X, F: Fn(&AttemptError<X>) -> bool> Decide<X> for F {
    fn repeats(&self, error: &AttemptError<X>) -> bool {
        self(error)
    }
}

/// The default: only what provably [was never sent](crate::is_never_sent), which is safe to repeat whatever it does.
/// Where the registry lists nothing that could be called, nothing is repeated.
#[derive(Debug, Clone, Copy, Default)]
pub struct NeverSentOnly {}

impl<X: StdError + 'static> Decide<X> for NeverSentOnly {
    fn repeats(&self, error: &AttemptError<X>) -> bool {
        match error {
            AttemptError::NoEndpoint(PickError::Empty { .. } | PickError::Closed { .. }) => false,
            error => error.is_never_sent(),
        }
    }

    fn costs(&self, error: &AttemptError<X>) -> bool {
        !error.is_never_sent()
    }
}

/// Makes calls through a [`Balancer`], up to [`max`](Self::max) attempts each within
/// [`timeout`](Self::timeout). An instance that has just failed is left out while another is there.
///
/// It is shared by reference or cloned; each call takes its turn. An endpoint is lent to several calls at once, so
/// that one which serves one call at a time, as a connection of a line protocol, brings its own lock:
///
/// ```no_run
/// # async fn example(registry: callsign_core::Registry) -> Result<(), Box<dyn std::error::Error>> {
/// use std::io;
/// use std::sync::Arc;
/// use std::time::Duration;
///
/// use callsign_core::Instance;
/// use callsign_lb::{Balancer, Endpointer, NeverSent, Retry, RoundRobin};
/// use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
/// use tokio::net::TcpStream;
/// use tokio::sync::Mutex;
///
/// type Line = Mutex<BufReader<TcpStream>>;
///
/// async fn connect(instance: Arc<Instance>) -> io::Result<Line> {
///     let address = (instance.address().host(), instance.address().port());
///     Ok(Mutex::new(BufReader::new(TcpStream::connect(address).await?)))
/// }
///
/// async fn ask(line: &Line, question: &str) -> io::Result<String> {
///     let mut line = line.lock().await;
///     // Nothing of the question has left if not even its first byte could be written.
///     let sent = line.get_mut().write(question.as_bytes()).await;
///     let sent = sent.map_err(|error| io::Error::other(NeverSent(error.into())))?;
///     line.get_mut().write_all(&question.as_bytes()[sent..]).await?;
///     let mut answer = String::new();
///     line.read_line(&mut answer).await.map(|_| answer)
/// }
///
/// let endpoints = Endpointer::new(registry.watch(&"time".parse()?), connect);
/// let clock = Retry::new(Balancer::new(endpoints, RoundRobin::default())).timeout(Duration::from_secs(2));
/// let answer = clock
///     .call(|line| async move {
///         let answer = ask(&line, "what time is it?\n").await;
///         // A stream that failed once is of no more use: another is made in its place.
///         answer.inspect_err(|_| line.report_closed())
///     })
///     .await?;
/// # Ok(())
/// # }
/// ```
pub struct Retry<E, P: Policy, W = NeverSentOnly> {
    balancer: Balancer<E, P>,
    max: usize,
    timeout: Option<Duration>,
    attempt_timeout: Option<Duration>,
    budget: Option<Budget>,
    when: W,
}

impl<E, P: Policy> Retry<E, P> {
    /// Up to three attempts, without a limit of time, and only for calls that were never sent.
    pub fn new(balancer: Balancer<E, P>) -> Self {
        Self {
            balancer,
            max: 3,
            timeout: None,
            attempt_timeout: None,
            budget: Some(Budget::default()),
            when: NeverSentOnly {},
        }
    }
}

impl<E, P: Policy, W> Retry<E, P, W> {
    /// How many attempts are made in all, the first one included, 1 at least; 3.
    #[must_use]
    pub fn max(mut self, attempts: usize) -> Self {
        self.max = attempts.max(1);
        self
    }

    /// How long all attempts may take together; for ever.
    #[must_use]
    pub fn timeout(mut self, within: Duration) -> Self {
        self.timeout = Some(within);
        self
    }

    /// How long one attempt may take. By default all the time that is left; but where
    /// [`when`](Self::when) repeats attempts that timed out, an equal share of it for each attempt left, so that
    /// one instance that hangs does not use up the time of all.
    #[must_use]
    pub fn attempt_timeout(mut self, within: Duration) -> Self {
        self.attempt_timeout = Some(within);
        self
    }

    /// How many attempts may be repeats, over all calls: clones, and whatever is given a clone of `budget`, share it. A
    /// fifth of the calls and ten a second, of which calls that were never sent take nothing by default.
    #[must_use]
    pub fn budget(mut self, budget: Budget) -> Self {
        self.budget = Some(budget);
        self
    }

    /// As many repeats as there is a reason for.
    #[must_use]
    pub fn without_budget(mut self) -> Self {
        self.budget = None;
        self
    }

    /// Which failed attempts may be repeated; those that were never sent. This takes the place of that, so that whoever
    /// adds to it says `is_never_sent()`, too, and repeats of those then count for the [budget](Self::budget). It is also asked
    /// beforehand about an attempt that times out.
    ///
    /// ```
    /// use std::io;
    ///
    /// use callsign_lb::AttemptError;
    ///
    /// let when = |failed: &AttemptError<io::Error>| match failed {
    ///     AttemptError::Failed(error) if error.kind() == io::ErrorKind::WouldBlock => true,
    ///     failed => failed.is_never_sent(),
    /// };
    /// # assert!(!when(&AttemptError::Failed(io::ErrorKind::NotFound.into())));
    /// ```
    #[must_use]
    pub fn when<X, F: Fn(&AttemptError<X>) -> bool>(self, repeats: F) -> Retry<E, P, F> {
        self.decide(repeats)
    }

    /// The same by a [`Decide`], which may also say what a failure says of its instance, and what repeats cost.
    #[must_use]
    pub fn decide<D>(self, how: D) -> Retry<E, P, D> {
        Retry {
            balancer: self.balancer,
            max: self.max,
            timeout: self.timeout,
            attempt_timeout: self.attempt_timeout,
            budget: self.budget,
            when: how,
        }
    }

    /// Makes a call: `call` is given the endpoint, which dereferences to what the factory made, and knows its
    /// [`instance`](Picked::instance). Clients whose
    /// methods want `&mut self` are cloned first:
    /// `|books| async move { books.clone().get_book_info(request).await }`.
    ///
    /// Dropping the future gives the call up.
    ///
    /// # Errors
    /// Every attempt with its instance and its error.
    pub async fn call<T, X, F, Fut>(&self, call: F) -> Result<T, RetryError<X>>
    where
        F: FnMut(Picked<E>) -> Fut,
        Fut: Future<Output = Result<T, X>>,
        W: Decide<X>,
    {
        self.call_for(Call::new(), call).await
    }

    /// The same for a call with a [key](Call::with_key), or one that has tried instances already.
    ///
    /// # Errors
    /// Every attempt with its instance and its error.
    pub async fn call_for<T, X, F, Fut>(&self, mut ask: Call, mut call: F) -> Result<T, RetryError<X>>
    where
        F: FnMut(Picked<E>) -> Fut,
        Fut: Future<Output = Result<T, X>>,
        W: Decide<X>,
    {
        let deadline = self.timeout.and_then(|within| Instant::now().checked_add(within));
        let mut balancer = self.balancer.clone();
        if let Some(budget) = &self.budget {
            budget.deposit();
        }
        let mut attempts = Vec::new();
        let mut pauses = 0;
        loop {
            let attempt = match self.pick(&mut balancer, &ask, deadline, &mut pauses).await {
                Err(error) => Attempt { instance: None, error: AttemptError::NoEndpoint(error) },
                // A request is sent by being polled, also one whose time is up.
                Ok(_) if passed(deadline) => {
                    let timeout = self.timeout.unwrap_or_default();
                    return Err(RetryError::DeadlineExceeded { timeout, attempts });
                }
                Ok(mut picked) => {
                    ask.avoid(&picked);
                    let instance = Some(Arc::clone(picked.instance()));
                    let begun = Instant::now();
                    let until = self.attempt_until(begun, deadline, self.max - attempts.len());
                    let witness = picked.watch();
                    if let Some(until) = until {
                        witness.allow(until.saturating_duration_since(begun));
                    }
                    let answer = match until {
                        Some(until) => timeout_at(until, call(picked)).await.ok(),
                        None => Some(call(picked).await),
                    };
                    let error = match answer {
                        Some(Ok(answer)) => {
                            // What was picked may be in the answer, and live on.
                            witness.answered();
                            witness.report(Outcome::Success);
                            return Ok(answer);
                        }
                        Some(Err(error)) => AttemptError::Failed(error),
                        None => AttemptError::TimedOut(begun.elapsed()),
                    };
                    witness.report(self.when.outcome(&error));
                    Attempt { instance, error }
                }
            };
            let (repeats, costs) = (self.when.repeats(&attempt.error), self.when.costs(&attempt.error));
            let no_endpoint = matches!(attempt.error, AttemptError::NoEndpoint(_));
            attempts.push(attempt);
            if let (Some(timeout), true) = (self.timeout, passed(deadline)) {
                return Err(RetryError::DeadlineExceeded { timeout, attempts });
            }
            if !repeats || attempts.len() >= self.max {
                return Err(RetryError::Failed { attempts });
            }
            if costs && self.budget.as_ref().is_some_and(|budget| !budget.withdraw()) {
                return Err(RetryError::OverBudget { attempts });
            }
            // A repeat takes no turn, and goes anywhere: the next in line must not have all that one which fails cannot take.
            balancer = self.balancer.fork();
            if no_endpoint {
                let until = pause(&mut pauses, deadline);
                // Whether something came up or not, the next pick tells.
                let _ = timeout_at(until, balancer.endpoints().wait_for(|set| !set.is_empty())).await;
            }
        }
    }

    /// Picks, after a pause if there is only what has just failed.
    async fn pick(
        &self,
        balancer: &mut Balancer<E, P>,
        ask: &Call,
        deadline: Option<Instant>,
        pauses: &mut u32,
    ) -> Result<Picked<E>, PickError> {
        let picked = balancer.ready_for(ask, deadline).await?;
        if !ask.avoids(picked.number()) {
            return Ok(picked);
        }
        drop(picked);
        sleep_until(pause(pauses, deadline)).await;
        balancer.ready_for(ask, deadline).await
    }

    /// When the attempt that begins now is given up.
    fn attempt_until<X>(&self, now: Instant, deadline: Option<Instant>, left: usize) -> Option<Instant>
    where
        W: Decide<X>,
    {
        let own = match (self.attempt_timeout, deadline) {
            (Some(within), _) => now.checked_add(within),
            (None, Some(deadline)) => {
                let remaining = deadline.saturating_duration_since(now);
                let shares = u32::try_from(left.clamp(1, SHARES)).unwrap_or(1);
                let share = (remaining / shares).max(LEAST);
                let splits = shares > 1 && self.when.repeats(&AttemptError::<X>::TimedOut(share));
                splits.then_some(now + share)
            }
            (None, None) => None,
        };
        [own, deadline].into_iter().flatten().min()
    }
}

fn passed(deadline: Option<Instant>) -> bool {
    deadline.is_some_and(|deadline| Instant::now() >= deadline)
}

/// The end of the next pause.
fn pause(pauses: &mut u32, deadline: Option<Instant>) -> Instant {
    *pauses = pauses.saturating_add(1);
    // A pause of next to nothing would make a tight loop of a run of small random numbers.
    let until = Instant::now() + PAUSES.pause(*pauses, &mut fastrand::Rng::new()).max(LEAST);
    deadline.map_or(until, |deadline| until.min(deadline))
}

impl<E, P: Policy, W: Clone> Clone for Retry<E, P, W> {
    fn clone(&self) -> Self {
        Self {
            balancer: self.balancer.clone(),
            max: self.max,
            timeout: self.timeout,
            attempt_timeout: self.attempt_timeout,
            budget: self.budget.clone(),
            when: self.when.clone(),
        }
    }
}

impl<E, P: Policy, W> Debug for Retry<E, P, W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Retry")
            .field("balancer", &self.balancer)
            .field("max", &self.max)
            .field("timeout", &self.timeout)
            .field("attempt_timeout", &self.attempt_timeout)
            .field("budget", &self.budget)
            .finish_non_exhaustive()
    }
}
