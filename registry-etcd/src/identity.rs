//! [`Identity`]: who we say we are, and what keeps a wrong password from being tried too often.
//!
//! etcd's tokens expire, and die when a password changes. Each member gives its own, asked for when the first request
//! needs one and whenever one is refused; the client library would do so for single requests and not for watches.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use callsign_core::{CredentialProvider, Error, ErrorKind, Result};
use etcd_client::Client;
use tokio::time::Instant;
use tracing::debug;

use crate::error;

/// How long a refusal is taken for the answer to whoever else would ask. Checking a password is made expensive, and a
/// process may have a thousand registrations.
const REFUSED: Duration = Duration::from_secs(1);

pub(crate) struct Identity {
    provider: Arc<dyn CredentialProvider>,
    refused: Mutex<Option<(Instant, Error)>>,
}

impl Identity {
    pub(crate) fn new(provider: Arc<dyn CredentialProvider>) -> Self {
        Self { provider, refused: Mutex::default() }
    }

    /// Gets a token from a member. Where authentication is switched off there is none to be had, and none needed.
    pub(crate) async fn authenticate(&self, client: &mut Client, member: &str) -> Result<()> {
        if let Some(refused) = self.refused_lately() {
            return Err(refused);
        }
        let credentials =
            self.provider.credentials().await.map_err(|error| error.context("credentials for etcd"))?;
        let (user, password) = (credentials.user().to_owned(), credentials.password().expose().to_owned());
        let what = format!("authentication of {user:?}");
        debug!(member, user, "asking etcd for a token");
        match client.update_user(Some((user, password))).await {
            Ok(()) => {}
            Err(error) if error::needs_no_identity(&error) => drop(client.update_user(None).await),
            Err(error) => {
                let error = error::map(&what, member, &error);
                if error.kind() == ErrorKind::Unauthenticated {
                    *self.lock() = Some((Instant::now(), error.clone()));
                }
                return Err(error);
            }
        }
        Ok(())
    }

    fn refused_lately(&self) -> Option<Error> {
        let refused = self.lock();
        refused.as_ref().filter(|(at, _)| at.elapsed() < REFUSED).map(|(_, error)| error.clone())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<(Instant, Error)>> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
