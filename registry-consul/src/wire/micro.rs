//! What go-micro writes into tags: `v-`, `t-` and `e-`, then a text compressed by zlib, in hexadecimal digits. Its older
//! releases wrote `v=`, `t=` and `e=`, then the text itself.

use std::collections::BTreeMap;
use std::io::Read;

use flate2::read::ZlibDecoder;

/// The most that a tag holds when it is not compressed any more: a few bytes may stand for gigabytes.
const MOST: u64 = 16 * 1024;

/// What an instance's tags say.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Tags {
    pub(super) version: Option<String>,
    pub(super) metadata: BTreeMap<String, String>,
}

/// Reads the version and the metadata; the descriptions of endpoints are of no use here. What only looks like one of
/// go-micro's tags is somebody else's.
///
/// # Errors
/// A tag that is larger than any that go-micro writes.
pub(super) fn read(tags: &[String]) -> Result<Tags, String> {
    let mut read = Tags::default();
    for tag in tags {
        let (kind, text) = match tag.get(..2).zip(tag.get(2..)) {
            Some((kind @ ("v-" | "t-"), digits)) => match inflated(digits)? {
                Some(text) => (kind, text),
                None => continue,
            },
            Some((kind @ ("v=" | "t="), text)) => (kind, text.to_owned()),
            _ => continue,
        };
        if kind.starts_with('v') {
            read.version.get_or_insert(text);
        } else if let Ok(metadata) = serde_json::from_str::<BTreeMap<String, String>>(&text) {
            read.metadata.extend(metadata);
        }
    }
    Ok(read)
}

/// The text, `None` if this is none of go-micro's.
fn inflated(digits: &str) -> Result<Option<String>, String> {
    let Some(bytes) = bytes(digits) else { return Ok(None) };
    let mut text = Vec::new();
    // One more than there may be tells that there is more.
    if ZlibDecoder::new(&*bytes).take(MOST + 1).read_to_end(&mut text).is_err() && text.is_empty() {
        return Ok(None);
    }
    if text.len() as u64 > MOST {
        return Err(format!("a tag of go-micro's with more than {MOST} bytes"));
    }
    Ok(String::from_utf8(text).ok())
}

fn bytes(digits: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u32>> = digits.chars().map(|digit| digit.to_digit(16)).collect();
    let digits = digits.filter(|digits| !digits.is_empty() && digits.len() % 2 == 0)?;
    digits.chunks(2).map(|pair| u8::try_from(pair[0] * 16 + pair[1]).ok()).collect()
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::ZlibEncoder;

    use super::*;

    fn tag(kind: &str, text: &[u8]) -> String {
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(text).unwrap();
        let bytes = encoder.finish().unwrap();
        bytes.iter().fold(kind.to_owned(), |tag, byte| format!("{tag}{byte:02x}"))
    }

    #[test]
    fn its_own_bytes_are_read() {
        // As go-micro wrote it: Go's zlib ends its stream otherwise than others.
        let tags = read(&["v-789cca492c492d2e01040000ffff08cc028e".to_owned()]).unwrap();
        assert_eq!(tags.version.as_deref(), Some("latest"));
        let tags = [tag("t-", br#"{"protocol":"grpc"}"#), tag("e-", b"{}"), tag("v-", b"1.2")];
        let read_back = read(&tags).unwrap();
        assert_eq!(read_back.version.as_deref(), Some("1.2"));
        assert_eq!(read_back.metadata["protocol"], "grpc");
        let old = read(&[r#"t={"a":"b"}"#.to_owned(), "v=3".to_owned(), "e={}".to_owned()]).unwrap();
        assert_eq!((old.version.as_deref(), &*old.metadata["a"]), (Some("3"), "b"));
    }

    #[test]
    fn what_only_looks_like_it_is_somebody_elses() {
        for other in ["v-1", "v-beta", "v-zz", "t-", "t-abcd", "v", "", "é", "v-00ff", "t=[]"] {
            assert_eq!(read(&[other.to_owned()]).unwrap(), Tags::default(), "{other}");
        }
    }

    #[test]
    fn a_bomb_is_refused() {
        let bomb = tag("v-", &vec![b'x'; 4 << 20]);
        assert!(bomb.len() < 20_000);
        let error = read(&[bomb]).unwrap_err();
        assert!(error.contains("16384 bytes"), "{error}");
        assert!(read(&[tag("v-", &vec![b'x'; 16 * 1024])]).unwrap().version.is_some());
    }
}
