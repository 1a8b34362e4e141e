//! [`bars`]: a plot of horizontal bars, as SVG.

use std::fmt::Write;

use crate::table::number;

/// A bar: its name, whether it is one of ours, and how long it is.
pub(crate) type Bar<'a> = (&'a str, bool, f64);

const ROW: f64 = 20.0;
const GAP: f64 = 14.0;
const NAMES: f64 = 250.0;
const BARS: f64 = 400.0;
const WIDTH: f64 = NAMES + BARS + 90.0;

/// Groups of bars, each beneath its heading. Lengths are logarithms where bars differ by more than thirty times.
pub(crate) fn bars(title: &str, groups: &[(&str, Vec<Bar<'_>>)]) -> String {
    let lengths = || groups.iter().flat_map(|(_, bars)| bars.iter().map(|(.., length)| *length));
    let most = lengths().fold(f64::MIN_POSITIVE, f64::max);
    let least = lengths().filter(|length| *length > 0.0).fold(most, f64::min);
    let logarithmic = most > least * 30.0;
    let pixels = |length: f64| match length {
        length if length <= 0.0 => 0.0,
        // The shortest is a twentieth.
        length if logarithmic => BARS * (0.05 + 0.95 * (length / least).ln() / (most / least).ln()),
        length => BARS * length / most,
    };
    let rows: usize = groups.iter().map(|(_, bars)| bars.len()).sum();
    let height = 40.0 + rows as f64 * ROW + groups.len() as f64 * (ROW + GAP);
    let scale = if logarithmic { ", logarithmic" } else { "" };
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n\
         <text x=\"10\" y=\"22\" font-size=\"15\" fill=\"#111\">{}{scale}</text>\n",
        escaped(title)
    );
    let mut y = 40.0;
    for (heading, bars) in groups {
        y += ROW;
        let _ = writeln!(
            svg,
            "<text x=\"10\" y=\"{}\" fill=\"#111\" font-weight=\"bold\">{}</text>",
            y - 5.0,
            escaped(heading)
        );
        for (name, ours, length) in bars {
            let colour = if *ours { "#c2410c" } else { "#64748b" };
            let (text, width) = (y + 14.0, pixels(*length));
            let _ = writeln!(
                svg,
                "<text x=\"{}\" y=\"{text}\" text-anchor=\"end\" fill=\"#333\">{}</text>\
                 <rect x=\"{NAMES}\" y=\"{}\" width=\"{width:.1}\" height=\"{}\" fill=\"{colour}\"/>\
                 <text x=\"{:.1}\" y=\"{text}\" fill=\"#333\">{}</text>",
                NAMES - 8.0,
                escaped(name),
                y + 3.0,
                ROW - 6.0,
                NAMES + width + 6.0,
                number(*length)
            );
            y += ROW;
        }
        y += GAP;
    }
    svg.push_str("</svg>\n");
    svg
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn widths(svg: &str) -> Vec<f64> {
        let rects = svg.split("<rect x=").skip(1);
        rects
            .map(|rect| rect.split("width=\"").nth(1).unwrap().split('"').next().unwrap().parse().unwrap())
            .collect()
    }

    #[test]
    fn lengths_are_in_proportion_or_logarithms() {
        let svg = bars("a < b", &[("one", vec![("x", true, 1.0), ("y", false, 2.0), ("z", false, 0.0)])]);
        assert_eq!(widths(&svg), [200.0, 400.0, 0.0]);
        assert!(svg.contains("a &lt; b</text>"));
        let svg = bars("t", &[("one", vec![("x", true, 1.0), ("y", false, 10.0), ("z", false, 100.0)])]);
        assert_eq!(widths(&svg), [20.0, 210.0, 400.0]);
        assert!(svg.contains("t, logarithmic"));
    }
}
