//! Which registry is meant, and its opening: [`open`].

use std::time::Duration;

use callsign::Registry;

use crate::args::VARIABLE;
use crate::exit::Failure;
use crate::output::note;

/// Opens what `--registry` or the environment names, or else the directory of this user that the example programs use
/// too. `ttl` takes the place of the URL's own. Does no network I/O.
pub(crate) fn open(url: Option<&str>, ttl: Option<Duration>) -> Result<Registry, Failure> {
    // An empty variable counts as none.
    let url = match url.filter(|url| !url.is_empty()) {
        Some(url) => url.to_owned(),
        None => {
            let url = callsign::file::own_url();
            note(format_args!("using {url}: neither --registry nor {VARIABLE} names a registry"));
            url
        }
    };
    let opened = match ttl {
        None => callsign::open(&url),
        Some(ttl) => callsign::open(&with_ttl(&url, ttl))
            .map_err(|error| error.context(format_args!("--ttl {}", humantime::format_duration(ttl)))),
    };
    opened.map_err(Failure::from)
}

fn with_ttl(url: &str, ttl: Duration) -> String {
    let (rest, query) = url.split_once('?').unwrap_or((url, ""));
    let others = query.split('&').filter(|pair| !pair.is_empty() && !pair.starts_with("ttl="));
    let pairs: Vec<_> = others.map(str::to_owned).chain([format!("ttl={}ms", ttl.as_millis())]).collect();
    format!("{rest}?{}", pairs.join("&"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ttl_takes_the_place_of_the_urls_own() {
        let ttl = Duration::from_millis(2500);
        assert_eq!(with_ttl("etcd://h", ttl), "etcd://h?ttl=2500ms");
        assert_eq!(with_ttl("etcd://h/p?ttl=9s&drain=1s", ttl), "etcd://h/p?drain=1s&ttl=2500ms");
    }

    #[tokio::test]
    async fn a_ttl_that_cannot_be_is_named_as_it_was_given() {
        for (url, says) in [("file:///tmp/x", "leave it out"), ("memory:x", "1s to 1day")] {
            let Err(Failure::Input(error)) = open(Some(url), Some(Duration::from_millis(10))) else {
                panic!("{url} was opened")
            };
            let error = error.to_string();
            assert!(error.contains("--ttl 10ms") && error.contains(says), "{error}");
        }
    }
}
