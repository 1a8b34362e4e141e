//! Where the servers are that `scripts/testbed` has got, and which images are the same.

use std::env;
use std::io;
use std::path::PathBuf;

use crate::container::Image;

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

/// The version that a `go.mod` requires of a module, without its `v`.
///
/// # Panics
/// It requires no such module.
#[must_use]
pub fn version<'a>(go_mod: &'a str, module: &str) -> &'a str {
    let required = go_mod.lines().find_map(|line| line.split_once(module)?.1.strip_prefix(" v"));
    required.and_then(|rest| rest.split_whitespace().next()).expect("the module is required")
}

/// The image that `variable` names, or the `official` one.
#[must_use]
pub fn image(variable: &str, official: impl FnOnce() -> String) -> Image {
    Image::new(env::var(variable).ok().filter(|name| !name.is_empty()).unwrap_or_else(official))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_that_of_the_very_module() {
        let go_mod = "require (\n\texample.org/a/b v2.0.0\n\texample.org/a v1.2.3 // indirect\n)\n";
        assert_eq!(version(go_mod, "example.org/a"), "1.2.3");
        assert_eq!(version(go_mod, "example.org/a/b"), "2.0.0");
    }
}
