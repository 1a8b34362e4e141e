//! [`Identity`]: who we say we are, and what keeps a wrong password from being tried too often.
//!
//! etcd's tokens expire, and die when a password changes. Each member gives its own, asked for when the first request
//! needs one and whenever one is refused; the client library would do so for single requests and not for watches.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use callsign_core::{CredentialProvider, Credentials, Error, ErrorKind, Result};
use etcd_client::Client;
use tokio::time::{Instant, timeout};
use tracing::debug;

use crate::error;

/// How long a refusal is taken for the answer to whoever else would ask with the same password: at first, and at the
/// most. Checking a password is made expensive, and a process may have a thousand registrations.
const REFUSED: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(5));
/// The most that a provider may take to say what it knows.
const PROVIDES: Duration = Duration::from_secs(10);
/// The most that etcd may take to check a password.
const CHECKS: Duration = Duration::from_secs(10);

pub(crate) struct Identity {
    provider: Arc<dyn CredentialProvider>,
    refused: Mutex<Option<Refusal>>,
}

/// A refusal, and how long it counts.
struct Refusal {
    until: Instant,
    pause: Duration,
    /// What was refused; `None` where the provider itself failed.
    credentials: Option<Credentials>,
    error: Error,
}

impl Identity {
    pub(crate) fn new(provider: Arc<dyn CredentialProvider>) -> Self {
        Self { provider, refused: Mutex::default() }
    }

    /// Gets a token from a member. Where authentication is switched off there is none to be had, and none needed.
    pub(crate) async fn authenticate(&self, client: &mut Client, member: &str) -> Result<()> {
        let credentials = self.credentials().await?;
        let (user, password) = (credentials.user().to_owned(), credentials.password().expose().to_owned());
        let what = format!("authentication of {user:?}");
        debug!(member, user, "asking etcd for a token");
        match timeout(CHECKS, client.update_user(Some((user, password)))).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) if error::needs_no_identity(&error) => drop(client.update_user(None).await),
            Ok(Err(error)) => {
                let error = error::map(&what, member, &error);
                if error.kind() == ErrorKind::Unauthenticated {
                    self.note(Some(credentials), &error);
                }
                return Err(error);
            }
            Err(_) => {
                let text = format!("etcd at {member} did not answer the {what} within {CHECKS:?}");
                return Err(Error::new(ErrorKind::Timeout, text));
            }
        }
        *self.lock() = None;
        Ok(())
    }

    /// What the provider knows, unless it was refused a moment ago.
    async fn credentials(&self) -> Result<Credentials> {
        if let Some(error) = self.refused_lately(None) {
            return Err(error);
        }
        let provided = timeout(PROVIDES, self.provider.credentials()).await;
        let failed = match provided {
            Ok(Ok(credentials)) => {
                return match self.refused_lately(Some(&credentials)) {
                    Some(error) => Err(error),
                    None => Ok(credentials),
                };
            }
            Ok(Err(error)) => {
                Error::new(ErrorKind::Unavailable, "there are no credentials for etcd").with_source(error)
            }
            Err(_) => {
                let text =
                    format!("whoever knows the credentials for etcd did not say them within {PROVIDES:?}");
                Error::new(ErrorKind::Timeout, text)
            }
        };
        self.note(None, &failed);
        Err(failed)
    }

    fn refused_lately(&self, credentials: Option<&Credentials>) -> Option<Error> {
        let refused = self.lock();
        let lately = refused.as_ref().filter(|refusal| Instant::now() < refusal.until);
        lately
            .filter(|refusal| refusal.credentials.as_ref() == credentials)
            .map(|refusal| refusal.error.clone())
    }

    /// Each refusal of the same counts for twice as long as the last.
    fn note(&self, credentials: Option<Credentials>, error: &Error) {
        let mut refused = self.lock();
        let again = refused.as_ref().filter(|before| before.credentials == credentials);
        let pause = again.map_or(REFUSED.0, |before| (before.pause * 2).min(REFUSED.1));
        let until = Instant::now() + pause.mul_f64(0.8 + 0.4 * fastrand::f64());
        *refused = Some(Refusal { until, pause, credentials, error: error.clone() });
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Refusal>> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
