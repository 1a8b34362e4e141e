//! [`Credentials`]: user and password, and who knows them: [`CredentialProvider`].

use std::future::Future;
use std::path::{Path, PathBuf};

use async_trait::async_trait;

use crate::error::{Error, Result};
use crate::secret::Secret;

/// A user's name and password. The password is not shown by `Debug`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credentials {
    user: String,
    password: Secret,
}

impl Credentials {
    /// Puts them together.
    ///
    /// # Errors
    /// [`Invalid`](crate::ErrorKind::Invalid): no user, or no password.
    pub fn new(user: impl Into<String>, password: Secret) -> Result<Self> {
        let user = user.into();
        if user.is_empty() {
            return Err(Error::invalid("a password is given and no user: write USER:PASSWORD"));
        }
        if password.expose().is_empty() {
            return Err(Error::invalid(format!(
                "user {user:?} has no password: write {user}:PASSWORD, or name a file by password_file"
            )));
        }
        Ok(Self { user, password })
    }

    /// The user's name.
    #[must_use]
    pub fn user(&self) -> &str {
        &self.user
    }

    /// The password.
    #[must_use]
    pub fn password(&self) -> &Secret {
        &self.password
    }
}

/// Who knows user and password. Asked at the first connection and whenever the registry refuses what it was told last,
/// so that a password can be changed while the program runs.
///
/// [`Credentials`] themselves are one that never changes, [`PasswordFile`] reads a file, and any closure that returns a
/// future of `Result<Credentials>` asks whatever keeps secrets:
///
/// ```
/// # use callsign_core::{Credentials, CredentialProvider, Result, Secret};
/// async fn from_the_vault() -> Result<Secret> {
///     Ok(Secret::new("s3cret"))
/// }
/// let provider = || async { Credentials::new("book", from_the_vault().await?) };
/// # fn takes(_: impl CredentialProvider) {}
/// # takes(provider);
/// ```
#[async_trait]
pub trait CredentialProvider: Send + Sync + 'static {
    /// The credentials as of now.
    ///
    /// # Errors
    /// Whatever keeps the provider from knowing; it shows as the error of what needed them, and is asked again.
    async fn credentials(&self) -> Result<Credentials>;
}

#[async_trait]
impl CredentialProvider for Credentials {
    async fn credentials(&self) -> Result<Credentials> {
        Ok(self.clone())
    }
}

#[async_trait]
impl<F, Fut> CredentialProvider for F
where
    F: Fn() -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Credentials>> + Send,
{
    async fn credentials(&self) -> Result<Credentials> {
        self().await
    }
}

/// A password in a file, as Kubernetes and systemd hand it over: read anew whenever it is asked for. One line break at
/// the end is no part of it.
#[derive(Debug, Clone)]
pub struct PasswordFile {
    user: String,
    path: PathBuf,
}

impl PasswordFile {
    /// A user whose password is in a file.
    ///
    /// # Errors
    /// [`Invalid`](crate::ErrorKind::Invalid): no user.
    pub fn new(user: impl Into<String>, path: impl AsRef<Path>) -> Result<Self> {
        let (user, path) = (user.into(), path.as_ref().to_owned());
        if user.is_empty() {
            return Err(Error::invalid(format!("password file {} is given and no user", path.display())));
        }
        Ok(Self { user, path })
    }

    /// Reads it, now.
    ///
    /// # Errors
    /// [`Invalid`](crate::ErrorKind::Invalid): it cannot be read, or is empty.
    pub fn read(&self) -> Result<Credentials> {
        let path = self.path.display();
        let text = std::fs::read_to_string(&self.path)
            .map_err(|error| Error::invalid(format!("password file {path} cannot be read: {error}")))?;
        let text = text.strip_suffix('\n').map_or(&*text, |text| text.strip_suffix('\r').unwrap_or(text));
        if text.is_empty() {
            return Err(Error::invalid(format!("password file {path} is empty: it holds the password")));
        }
        Credentials::new(&self.user, Secret::new(text))
    }
}

#[async_trait]
impl CredentialProvider for PasswordFile {
    async fn credentials(&self) -> Result<Credentials> {
        let file = self.clone();
        let read = tokio::task::spawn_blocking(move || file.read());
        read.await
            .unwrap_or_else(|error| Err(Error::invalid("a password file was not read").with_source(error)))
    }
}
