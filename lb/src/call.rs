//! [`Call`]: what a pick has to know of the call that it is for; [`Key`]: what calls that belong together share.

use twox_hash::XxHash64;

/// What calls that belong together share, such as a user or a session: policies that hash send them to the same
/// instance. It is the XXH64 of some bytes, as in gRPC's and Envoy's ring hash.
///
/// ```
/// # use callsign_lb::Key;
/// assert_eq!(Key::new("user-7"), Key::new(b"user-7"));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key(u64);

impl Key {
    /// The key that these bytes make.
    #[must_use]
    pub fn new(bytes: impl AsRef<[u8]>) -> Self {
        Self(XxHash64::oneshot(0, bytes.as_ref()))
    }

    /// A key that was hashed elsewhere. Its bits should be as good as random.
    #[must_use]
    pub fn from_hash(hash: u64) -> Self {
        Self(hash)
    }

    /// Its hash.
    #[must_use]
    pub fn hash(self) -> u64 {
        self.0
    }
}

/// What a pick has to know of the call that it is for: which instances the call has tried, and its key.
///
/// It is held inline, and remembers the last eight instances.
#[derive(Debug, Clone, Default)]
pub struct Call {
    tried: [u64; 8],
    count: usize,
    key: Option<Key>,
}

impl Call {
    /// A call that has tried nothing yet, and has no key.
    #[must_use]
    pub const fn new() -> Self {
        Self { tried: [0; 8], count: 0, key: None }
    }

    /// The same with a key, for policies that hash.
    #[must_use]
    pub fn with_key(mut self, key: Key) -> Self {
        self.key = Some(key);
        self
    }

    /// Its key.
    #[must_use]
    #[inline]
    pub fn key(&self) -> Option<Key> {
        self.key
    }

    /// Avoids an instance from now on, whichever connection it is picked with, because the call has tried it.
    pub fn avoid<E>(&mut self, picked: &crate::Picked<E>) {
        self.avoid_number(picked.number());
    }

    /// Avoids the member with a number, as in [`Choice::new`](crate::Choice::new).
    pub fn avoid_number(&mut self, number: u64) {
        if !self.avoids(number) {
            self.tried[self.count % self.tried.len()] = number;
            self.count += 1;
        }
    }

    /// Whether it avoids nothing.
    #[inline]
    pub(crate) fn allows_all(&self) -> bool {
        self.count == 0
    }

    pub(crate) fn avoids(&self, number: u64) -> bool {
        self.tried[..self.count.min(self.tried.len())].contains(&number)
    }

    /// The same with nothing to avoid.
    pub(crate) fn anywhere(&self) -> Self {
        Self { key: self.key, ..Self::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The values that the reference implementation prints (xxHash, `xxhsum` and its test vectors).
    #[test]
    fn keys_are_xxh64() {
        assert_eq!(Key::new("").hash(), 0xef46_db37_51d8_e999);
        assert_eq!(Key::new("a").hash(), 0xd24e_c4f1_a98c_6e5b);
        assert_eq!(Key::new("abc").hash(), 0x44bc_2cf5_ad77_0999);
    }

    #[test]
    fn remembers_the_last_eight() {
        let mut call = Call::new().with_key(Key::from_hash(3));
        for number in 0..10 {
            call.avoid_number(number);
            call.avoid_number(number);
        }
        assert!(!call.avoids(1) && call.avoids(2) && call.avoids(9));
        assert!(call.anywhere().allows_all() && call.anywhere().key() == Some(Key::from_hash(3)));
    }
}
