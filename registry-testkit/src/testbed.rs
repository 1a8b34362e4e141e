//! Where the servers are that `scripts/testbed` has got.

use std::env;
use std::io;
use std::path::PathBuf;

/// The folder of the testbed: `callsign-testbed` in `$XDG_CACHE_HOME`, by default `~/.cache`.
#[must_use]
pub fn folder() -> PathBuf {
    let cache = env::var_os("XDG_CACHE_HOME").filter(|path| !path.is_empty()).map(PathBuf::from);
    let cache =
        cache.unwrap_or_else(|| PathBuf::from(env::var_os("HOME").unwrap_or_default()).join(".cache"));
    cache.join("callsign-testbed")
}

/// A server's program: what `variable` names, or that of the testbed.
///
/// # Errors
/// There is none. A test that needs it fails by that: it does not pass without having run.
pub fn find(server: &str, variable: &str) -> io::Result<PathBuf> {
    let program = match env::var_os(variable) {
        Some(program) => PathBuf::from(program),
        None => folder().join("bin").join(server),
    };
    if program.is_file() {
        return Ok(program);
    }
    Err(io::Error::new(
        io::ErrorKind::NotFound,
        format!(
            "there is no {}: run `scripts/testbed {server}`, or let {variable} name one",
            program.display()
        ),
    ))
}
