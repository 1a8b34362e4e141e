//! What Eureka has: [`Entry`], one instance as any of its clients wrote it.

use std::collections::BTreeMap;

/// What an instance, or an operator, says of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Status {
    Down,
    OutOfService,
    Starting,
    /// Also whatever else somebody says.
    #[default]
    Unknown,
    Up,
}

impl Status {
    /// In the order of their names, which is also that above.
    pub(crate) const ALL: [Self; 5] =
        [Self::Down, Self::OutOfService, Self::Starting, Self::Unknown, Self::Up];

    pub(crate) fn parse(text: &str) -> Self {
        match text {
            "UP" => Self::Up,
            "DOWN" => Self::Down,
            "STARTING" => Self::Starting,
            "OUT_OF_SERVICE" => Self::OutOfService,
            _ => Self::Unknown,
        }
    }

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Up => "UP",
            Self::Down => "DOWN",
            Self::Starting => "STARTING",
            Self::OutOfService => "OUT_OF_SERVICE",
            Self::Unknown => "UNKNOWN",
        }
    }
}

/// What a delta says of an instance. In whole lists it means nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Action {
    #[default]
    Put,
    Deleted,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Port {
    pub(crate) number: i64,
    pub(crate) enabled: bool,
}

/// One instance.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Empty where it was registered without: then it is called by its host's name.
    pub(crate) instance_id: String,
    pub(crate) app: String,
    pub(crate) host_name: String,
    pub(crate) ip_addr: String,
    pub(crate) vip: String,
    pub(crate) status: Status,
    pub(crate) overridden: Status,
    pub(crate) port: Option<Port>,
    pub(crate) secure_port: Option<Port>,
    pub(crate) metadata: BTreeMap<String, String>,
    /// When it was changed last, by its own clock; 0 if it does not say.
    pub(crate) dirty: i64,
    /// When the server that answers was told of it first; 0 if it does not say.
    pub(crate) registered: i64,
    pub(crate) action: Action,
}

impl Entry {
    /// What it is called by in Eureka.
    pub(crate) fn key(&self) -> &str {
        if self.instance_id.is_empty() { &self.host_name } else { &self.instance_id }
    }

    pub(crate) fn meta(&self, key: &str) -> Option<&str> {
        self.metadata.get(key).map(String::as_str)
    }
}

/// An entry that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Bad {
    /// The application's name, in upper case.
    pub(crate) app: String,
    pub(crate) name: String,
    pub(crate) why: String,
}

/// An entry, or one that cannot be read.
pub(crate) type Read = Result<Entry, Bad>;
