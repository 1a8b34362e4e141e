//! The two background loops of the workspace: [`watch`] follows a service for all of its subscribers, [`lease`]
//! keeps a registration alive. Everything that is the same for every registry is decided here.

pub(crate) mod backoff;
pub(crate) mod inbox;
pub(crate) mod lease;
pub(crate) mod pace;
pub(crate) mod view;
pub(crate) mod watch;

#[cfg(test)]
pub(crate) mod script;
