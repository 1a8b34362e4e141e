//! Figures as rows of Markdown.

use callsign_bench_figures::{Figure, Figures};

/// With three digits that count.
pub(crate) fn number(n: f64) -> String {
    match n.abs() {
        n if !n.is_finite() => return "–".to_owned(),
        n if n >= 9_999.5 => return grouped(n as u64),
        _ => {}
    }
    let digits = match n.abs() {
        n if n >= 99.95 => 0,
        n if n >= 9.995 => 1,
        n if n >= 0.0995 => 2,
        0.0 => 0,
        _ => 3,
    };
    format!("{n:.digits$}")
}

fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let first = digits.len() % 3;
    let head = (first > 0).then(|| digits[..first].to_owned());
    let rest = digits.as_bytes()[first..].chunks(3).map(|three| String::from_utf8_lossy(three).into_owned());
    head.into_iter().chain(rest).collect::<Vec<_>>().join(",")
}

/// The median, and how far from it a half of the samples is at most.
fn cell(figure: Option<&Figure>) -> String {
    let Some(figure) = figure else { return "–".to_owned() };
    let (low, high) = figure.quarters;
    let spread = (high - figure.median).max(figure.median - low);
    let median = number(figure.median);
    // Less than the digits that are shown.
    if figure.samples == 1 || spread < figure.median * 0.0005 {
        return median;
    }
    format!("{median} ±{}", number(spread))
}

/// Whoever was measured, in the order in which it was.
pub(crate) fn contestants<'a>(figures: &'a Figures, what: &str) -> Vec<&'a str> {
    let mut names: Vec<&str> = Vec::new();
    for figure in figures.0.iter().filter(|figure| figure.what == what) {
        if !names.contains(&figure.who.as_str()) {
            names.push(&figure.who);
        }
    }
    names
}

/// A column: its head, what was measured, and under which circumstances.
pub(crate) type Column<'a> = (&'a str, &'a str, &'a str);

/// A table with a row for each who was measured.
pub(crate) fn table(figures: &Figures, head: &str, columns: &[Column<'_>]) -> String {
    let heads: Vec<_> = columns.iter().map(|(head, ..)| *head).collect();
    let mut text = format!("| {head} | {} |\n|---|{}\n", heads.join(" | "), "---|".repeat(columns.len()));
    let first = columns.first().map_or("", |(_, what, _)| what);
    for who in contestants(figures, first) {
        let cells = columns.iter().map(|(_, what, case)| cell(figures.find(what, case, who)));
        text.push_str(&format!("| {who} | {} |\n", cells.collect::<Vec<_>>().join(" | ")));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_three_digits_that_count() {
        let shown = [0.0, 0.0123, 2.371, 14.39, 463.09, 2975.2, 62_953.6, 920_523.4, 1_234_567.0, f64::NAN]
            .map(number);
        assert_eq!(
            shown,
            ["0", "0.012", "2.37", "14.4", "463", "2975", "62,953", "920,523", "1,234,567", "–"]
        );
    }
}
