//! [`Frames`]: finds the frames in a stream of HTTP/2 bytes (RFC 9113, 4.1), whichever way it is cut up.

/// What is noticed of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Frame {
    /// The whole of a SETTINGS frame has come, with how many streams it allows if it says so.
    Settings { streams: Option<u32> },
    /// A GOAWAY frame has begun.
    GoAway,
    /// A HEADERS frame has begun.
    Headers { stream: u32 },
}

/// Finds frames.
#[derive(Debug, Default)]
pub(super) struct Frames {
    header: [u8; 9],
    have: usize,
    skip: usize,
    /// In the payload of SETTINGS.
    settings: Option<Entries>,
}

/// The payload of a SETTINGS frame: entries of six bytes.
#[derive(Debug, Default)]
struct Entries {
    entry: [u8; 6],
    have: usize,
    left: usize,
    streams: Option<u32>,
}

const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
/// That settings of ours have been taken: it holds none.
const ACK: u8 = 1;
const MAX_CONCURRENT_STREAMS: u16 = 3;

impl Entries {
    /// Takes what is of the frame, and returns the rest.
    fn feed<'a>(&mut self, mut bytes: &'a [u8]) -> &'a [u8] {
        while self.left > 0 && !bytes.is_empty() {
            let room = self.entry.len() - self.have;
            let (taken, rest) = bytes.split_at(room.min(self.left).min(bytes.len()));
            self.entry[self.have..self.have + taken.len()].copy_from_slice(taken);
            self.have += taken.len();
            self.left -= taken.len();
            bytes = rest;
            if self.have == self.entry.len() {
                self.have = 0;
                let [a, b, c, d, e, f] = self.entry;
                if u16::from_be_bytes([a, b]) == MAX_CONCURRENT_STREAMS {
                    self.streams = Some(u32::from_be_bytes([c, d, e, f]));
                }
            }
        }
        bytes
    }
}

/// What a client says before its first frame (RFC 9113, 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

impl Frames {
    /// Those of a client, from its first byte.
    pub(super) fn of_a_client() -> Self {
        Self { skip: PREFACE.len(), ..Self::default() }
    }

    /// Calls `seen` with each frame that is noticed in `bytes`.
    pub(super) fn feed(&mut self, mut bytes: &[u8], mut seen: impl FnMut(Frame)) {
        loop {
            if let Some(entries) = &mut self.settings {
                bytes = entries.feed(bytes);
                if entries.left > 0 {
                    return;
                }
                seen(Frame::Settings { streams: entries.streams });
                self.settings = None;
            }
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = &bytes[skipped..];
            if bytes.is_empty() {
                return;
            }
            let taken = (self.header.len() - self.have).min(bytes.len());
            self.header[self.have..self.have + taken].copy_from_slice(&bytes[..taken]);
            self.have += taken;
            bytes = &bytes[taken..];
            if self.have == self.header.len() {
                self.have = 0;
                let [a, b, c, kind, flags, stream @ ..] = self.header;
                let length = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
                match kind {
                    SETTINGS if flags & ACK == 0 => {
                        self.settings = Some(Entries { left: length, ..Entries::default() });
                        continue;
                    }
                    GOAWAY => seen(Frame::GoAway),
                    HEADERS => seen(Frame::Headers { stream: u32::from_be_bytes(stream) }),
                    _ => {}
                }
                self.skip = length;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![0, 0, payload.len().try_into().unwrap(), kind, flags, 0, 0, 1, 2];
        frame.extend(payload);
        frame
    }

    #[test]
    fn frames_are_found_however_they_are_cut() {
        let bytes = [
            frame(SETTINGS, 0, &[0, 4, 0, 1, 0, 0, 0, 3, 0, 0, 1, 2]),
            frame(SETTINGS, ACK, &[]),
            // Payload that looks like a GOAWAY header must not be taken for one.
            frame(0, 0, &[7; 200]),
            frame(HEADERS, 0, &[]),
            frame(GOAWAY, 0, &[7; 8]),
            frame(SETTINGS, 0, &[]),
        ]
        .concat();
        for size in 1..=bytes.len() {
            let (mut frames, mut seen) = (Frames::default(), Vec::new());
            for chunk in bytes.chunks(size) {
                frames.feed(chunk, |frame| seen.push(frame));
            }
            let expected = [
                Frame::Settings { streams: Some(258) },
                Frame::Headers { stream: 258 },
                Frame::GoAway,
                Frame::Settings { streams: None },
            ];
            assert_eq!(seen, expected, "in pieces of {size}");
            let (mut frames, mut sent) = (Frames::of_a_client(), Vec::new());
            for chunk in [PREFACE, &bytes].concat().chunks(size) {
                frames.feed(chunk, |frame| sent.push(frame));
            }
            assert_eq!(sent, expected, "behind the preface, in pieces of {size}");
        }
    }
}
