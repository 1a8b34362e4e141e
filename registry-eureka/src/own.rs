//! [`Own`]: our entry, as a server has it.

use callsign_core::{Kept, Result};
use http::Method;

use crate::ask::Ask;
use crate::servers::Servers;
use crate::wire::{Entry, read};

#[derive(Debug)]
pub(crate) struct Own {
    pub(crate) servers: Servers,
    pub(crate) app: String,
    pub(crate) key: String,
    pub(crate) what: String,
    /// Whose entry it is; from the first claim on.
    pub(crate) mark: Option<String>,
}

impl Own {
    pub(crate) fn mark(&self) -> &str {
        self.mark.as_deref().unwrap_or_default()
    }

    pub(crate) fn ask(&self, method: Method) -> Ask {
        Ask::new(method, &["apps", &self.app, &self.key])
    }

    /// What is there under the id, unless it has expired; and by which server.
    pub(crate) async fn found(&self) -> Result<(Option<Entry>, usize)> {
        let answered = self.servers.ask(&self.what, &self.ask(Method::GET)).await?;
        let by = answered.by;
        if answered.is_absent() {
            return Ok((None, by));
        }
        let answered = self.servers.checked(&self.what, answered)?;
        let say = |why: String| self.servers.malformed(&self.what, answered.by, why);
        let entries = read(&answered.answer.body).map_err(say)?;
        match entries.into_iter().next() {
            Some(Ok(entry)) => Ok((Some(entry), by)),
            // It is somebody's, whatever it is.
            Some(Err(_)) => Ok((Some(Entry::default()), by)),
            None => Err(say("it has no instance".to_owned())),
        }
    }

    pub(crate) fn is_ours(&self, entry: &Entry) -> bool {
        self.mark.is_some() && entry.incarnation() == self.mark.as_deref()
    }

    /// What became of our entry. A server that has not heard of it has what was there before, which is nobody's any more.
    pub(crate) fn judge(&self, found: Option<&Entry>) -> Kept {
        match found {
            None => Kept::Lost,
            Some(entry) if self.is_ours(entry) => Kept::Kept,
            Some(entry) if entry.is_before(self.mark()) => Kept::Lost,
            Some(_) => Kept::Superseded,
        }
    }
}
