//! [`Words`]: what can be done about a connection that fails, in the terms of whoever has set it up.

/// What can be done. Each is the end of a sentence.
#[derive(Debug)]
pub(super) struct Words {
    /// How TLS is asked for: the end of "asked for".
    pub(super) with_tls: &'static str,
    /// How it is not asked for.
    #[cfg(feature = "tls")]
    pub(super) without_tls: &'static str,
    /// How an authority is named.
    #[cfg(feature = "tls")]
    pub(super) ca: &'static str,
    /// How a name is expected in the server's certificate.
    #[cfg(feature = "tls")]
    pub(super) server_name: &'static str,
    /// How our own certificate is named.
    #[cfg(feature = "tls")]
    pub(super) identity: &'static str,
    /// Which one is our own.
    #[cfg(feature = "tls")]
    pub(super) certificate: &'static str,
}

/// For a registry, which is set up by its URL.
pub(super) static REGISTRY: Words = Words {
    with_tls: "with +tls in the URL's scheme",
    #[cfg(feature = "tls")]
    without_tls: "leave +tls out of the URL's scheme",
    #[cfg(feature = "tls")]
    ca: "name the authority that signed it by ca=FILE",
    #[cfg(feature = "tls")]
    server_name: "connect by a name that it is for, or expect one by server_name=NAME",
    #[cfg(feature = "tls")]
    identity: "name one by cert=FILE and key=FILE",
    #[cfg(feature = "tls")]
    certificate: "the certificate of cert=FILE",
};

/// For an instance of a service, which is set up by its registration and the program that calls it.
pub(super) static INSTANCE: Words = Words {
    with_tls: "by the protocol grpcs in its registration, or for all instances",
    #[cfg(feature = "tls")]
    without_tls: "register it without the protocol grpcs, and do not ask for TLS to all instances",
    #[cfg(feature = "tls")]
    ca: "name the authority that signed it by Tls::ca",
    #[cfg(feature = "tls")]
    server_name: "register a name that it is for, or expect one by Tls::server_name",
    #[cfg(feature = "tls")]
    identity: "name one by Tls::identity",
    #[cfg(feature = "tls")]
    certificate: "the certificate of Tls::identity",
};
