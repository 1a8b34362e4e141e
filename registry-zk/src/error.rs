//! From what ZooKeeper and its client library say to our errors.

use callsign_core::{Error, ErrorKind};
use zookeeper_client::Error as Client;

/// An error as ours: said of `what`, by the ensemble that is called `name`.
pub(crate) fn map(what: &str, name: &str, error: &Client) -> Error {
    let kind = kind(error);
    let hint = match error {
        Client::NoAuth => {
            ": the node's ACL allows it to others only, or user and password are not those it knows (ZooKeeper does not \
             tell which)"
        }
        Client::AuthFailed => {
            ": the servers do not take what they are told of who we are, or want to be told it by SASL, which is not \
             spoken here (enforce.auth.schemes)"
        }
        Client::NoHosts => ": none of them grants a session",
        Client::SessionExpired => ": the session ended, and a new one is opened",
        Client::QuotaExceeded => ": its quota is used up (setquota in zkCli.sh)",
        Client::Unimplemented => ": it is older than 3.6, which is the oldest that can be watched",
        Client::InvalidAcl => ": acl=creator takes a user and a password in the URL",
        Client::NoChildrenForEphemerals => ": a node above it is ephemeral, and can have none below",
        Client::NotEmpty => ": there are nodes below it, so that it is no instance",
        _ => "",
    };
    Error::new(kind, format!("ZooKeeper at {name}, {what}: {error}{hint}"))
}

pub(crate) fn kind(error: &Client) -> ErrorKind {
    match error {
        Client::NoNode => ErrorKind::NotFound,
        Client::NoAuth => ErrorKind::PermissionDenied,
        Client::AuthFailed => ErrorKind::Unauthenticated,
        Client::QuotaExceeded | Client::Throttled => ErrorKind::Exhausted,
        Client::Unimplemented => ErrorKind::Unsupported,
        Client::InvalidAcl | Client::BadArguments(_) | Client::NoChildrenForEphemerals | Client::NotEmpty => {
            ErrorKind::Invalid
        }
        Client::UnmarshalError { .. } | Client::MarshallingError => ErrorKind::Malformed,
        Client::Timeout => ErrorKind::Timeout,
        // A server that hangs shows as an error of the library's own making.
        Client::NoHosts
        | Client::ConnectionLoss
        | Client::SessionExpired
        | Client::SessionMoved
        | Client::ClientClosed
        | Client::NotReadOnly
        | Client::Custom(_) => ErrorKind::Unavailable,
        _ => ErrorKind::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_zookeeper_says_has_its_kind() {
        for (error, is) in [
            (Client::NoNode, ErrorKind::NotFound),
            (Client::NoAuth, ErrorKind::PermissionDenied),
            (Client::AuthFailed, ErrorKind::Unauthenticated),
            (Client::SessionExpired, ErrorKind::Unavailable),
            (Client::ConnectionLoss, ErrorKind::Unavailable),
            (Client::QuotaExceeded, ErrorKind::Exhausted),
            (Client::Unimplemented, ErrorKind::Unsupported),
            (Client::UnexpectedErrorCode(-5), ErrorKind::Other),
        ] {
            let mapped = map("list of book", "h:1", &error);
            assert_eq!(mapped.kind(), is, "{error}");
            assert!(mapped.to_string().contains("h:1, list of book"), "{mapped}");
        }
    }
}
