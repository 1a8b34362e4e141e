//! Text of others, made fit for a terminal. Whoever may write to a registry must not be able to move the cursor, to
//! paint over what is shown, or to make one name look like another.

use std::fmt::{self, Write};

/// Longer texts are cut in tables and lines; `--json` has them whole.
const LONGEST: usize = 200;

/// Prints a text with whatever a terminal would obey, or would not show, as `\u{..}`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Escaped<'a>(pub(crate) &'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            match c {
                '\n' | '\r' | '\t' => write!(f, "{}", c.escape_default())?,
                c if c.is_control() || is_invisible(c) => write!(f, "{}", c.escape_unicode())?,
                c => f.write_char(c)?,
            }
        }
        Ok(())
    }
}

/// Formatting that shows only in what it does to its neighbours: direction, joining, zero width.
fn is_invisible(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// A text for a cell of a table: escaped, and not endless.
pub(crate) fn cell(text: &str) -> String {
    cut(Escaped(text).to_string())
}

/// The beginning of what is too long.
pub(crate) fn cut(mut text: String) -> String {
    if let Some((at, _)) = text.char_indices().nth(LONGEST) {
        text.truncate(at);
        text.push_str("...");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_obeys_is_shown_instead() {
        assert_eq!(cell("a\x1b[31mb"), "a\\u{1b}[31mb");
        assert_eq!(cell("a\nb\tc\r"), "a\\nb\\tc\\r");
        // The one-character form of ESC [, a right-to-left override, a zero-width space.
        assert_eq!(cell("\u{9b}2J\u{202e}x\u{200b}"), "\\u{9b}2J\\u{202e}x\\u{200b}");
        assert_eq!(cell("zürich 東京"), "zürich 東京");
    }

    #[test]
    fn long_texts_are_cut() {
        assert_eq!(cell(&"x".repeat(200)), "x".repeat(200));
        assert_eq!(cell(&"ü".repeat(201)), "ü".repeat(200) + "...");
    }
}
