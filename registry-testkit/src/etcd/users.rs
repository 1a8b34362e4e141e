//! Users, roles and what these permit, by [`Gateway`].

use std::io;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::json;

use super::gateway::{Gateway, end_of};

/// What a role may do below a prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Permission {
    /// Read.
    Read,
    /// Read and write.
    ReadWrite,
}

impl Gateway {
    /// Switches authentication on, with a user `root` of this password, and returns the same calls as `root`.
    ///
    /// # Errors
    /// As [`put`](Self::put).
    pub async fn enable_auth(&self, password: &str) -> io::Result<Self> {
        self.add_user("root", password).await?;
        self.grant_role("root", "root").await?;
        self.enable_auth_again(password).await
    }

    /// The same once more, after it was switched off.
    ///
    /// # Errors
    /// As [`put`](Self::put).
    pub async fn enable_auth_again(&self, password: &str) -> io::Result<Self> {
        self.call("auth/enable", &json!({})).await?;
        self.login("root", password).await
    }

    /// Switches authentication off.
    ///
    /// # Errors
    /// As [`put`](Self::put).
    pub async fn disable_auth(&self) -> io::Result<()> {
        self.call("auth/disable", &json!({})).await.map(drop)
    }

    /// Adds a user.
    ///
    /// # Errors
    /// As [`put`](Self::put).
    pub async fn add_user(&self, user: &str, password: &str) -> io::Result<()> {
        self.call("auth/user/add", &json!({ "name": user, "password": password })).await.map(drop)
    }

    /// Changes a password, which ends all of the user's tokens.
    ///
    /// # Errors
    /// As [`put`](Self::put).
    pub async fn change_password(&self, user: &str, password: &str) -> io::Result<()> {
        self.call("auth/user/changepw", &json!({ "name": user, "password": password })).await.map(drop)
    }

    /// Adds a role that may do something below some prefixes.
    ///
    /// # Errors
    /// As [`put`](Self::put).
    pub async fn add_role(&self, role: &str, may: &[(&str, Permission)]) -> io::Result<()> {
        self.call("auth/role/add", &json!({ "name": role })).await?;
        for (prefix, permission) in may {
            let kind = if *permission == Permission::Read { "READ" } else { "READWRITE" };
            let (key, end) = (BASE64.encode(prefix), BASE64.encode(end_of(prefix)));
            let permission = json!({ "permType": kind, "key": key, "range_end": end });
            self.call("auth/role/grant", &json!({ "name": role, "perm": permission })).await?;
        }
        Ok(())
    }

    /// Gives a user a role.
    ///
    /// # Errors
    /// As [`put`](Self::put).
    pub async fn grant_role(&self, user: &str, role: &str) -> io::Result<()> {
        if role == "root" {
            self.call("auth/role/add", &json!({ "name": role })).await?;
        }
        self.call("auth/user/grant", &json!({ "user": user, "role": role })).await.map(drop)
    }

    /// Takes a role from a user.
    ///
    /// # Errors
    /// As [`put`](Self::put).
    pub async fn revoke_role(&self, user: &str, role: &str) -> io::Result<()> {
        self.call("auth/user/revoke", &json!({ "name": user, "role": role })).await.map(drop)
    }
}
