//! [`Token`]: the ACL token that goes with every request.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use callsign_core::{CredentialProvider, Error, Result, Secret};

/// Where the token comes from.
#[derive(Clone, Default)]
pub(crate) enum Token {
    /// There is none.
    #[default]
    None,
    /// It does not change.
    Fixed(Secret),
    /// In a file, read anew for every request, as it may be replaced at any time.
    File(PathBuf),
    /// Whoever knows it: the password of the credentials.
    Provider(Arc<dyn CredentialProvider>),
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("None"),
            Self::Fixed(_) | Self::Provider(_) => f.write_str("***"),
            Self::File(path) => write!(f, "{path:?}"),
        }
    }
}

impl Token {
    pub(crate) async fn read(&self) -> Result<Option<Secret>> {
        match self {
            Self::None => Ok(None),
            Self::Fixed(token) => Ok(Some(token.clone())),
            Self::Provider(provider) => {
                let credentials = provider.credentials().await.map_err(|error| error.context("ACL token"))?;
                Ok(Some(credentials.password().clone()))
            }
            Self::File(path) => {
                let (path, shown) = (path.clone(), path.display().to_string());
                let read = tokio::task::spawn_blocking(move || std::fs::read_to_string(path)).await;
                let text = read
                    .map_err(std::io::Error::other)
                    .and_then(|read| read)
                    .map_err(|error| Error::invalid(format!("token file {shown} cannot be read: {error}")))?;
                match text.trim() {
                    "" => Err(Error::invalid(format!("token file {shown} is empty: it holds the ACL token"))),
                    token => Ok(Some(Secret::new(token))),
                }
            }
        }
    }
}
