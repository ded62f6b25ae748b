//! Rows of text in columns as wide as their contents. Colours are ANSI codes; whoever prints strips them where unwanted.

use std::fmt::Write as _;

use anstyle::Style;

use crate::model::snapshot::State;
use crate::report::text::style_of;

/// Between two columns.
const GAP: &str = "  ";
/// The last column is never cut below this many characters, however narrow the terminal.
const LEAST_LAST: usize = 20;

/// One field.
#[derive(Debug, Clone, Default)]
pub struct Cell {
    text: String,
    style: Style,
}

impl Cell {
    /// A field in the terminal's own colour.
    pub fn plain(text: impl Into<String>) -> Self {
        Self { text: one_line(&text.into()), style: Style::new() }
    }

    /// A field in a colour.
    pub fn styled(text: impl Into<String>, style: Style) -> Self {
        Self { text: one_line(&text.into()), style }
    }

    /// A node's state in its colour, and what else there is to say of it.
    pub fn state(state: State, more: &str) -> Self {
        Self::styled(format!("{}{more}", state.as_str()), style_of(state))
    }
}

/// Rows under a header.
#[derive(Debug, Clone)]
pub struct Table<const COLUMNS: usize> {
    header: [&'static str; COLUMNS],
    rows: Vec<[Cell; COLUMNS]>,
}

impl<const COLUMNS: usize> Table<COLUMNS> {
    /// A table without rows.
    pub fn new(header: [&'static str; COLUMNS]) -> Self {
        Self { header, rows: Vec::new() }
    }

    /// Adds a row at the end.
    pub fn push(&mut self, row: [Cell; COLUMNS]) {
        self.rows.push(row);
    }

    /// The table as lines. With `width`, the last column is cut where the terminal ends.
    pub fn render(&self, width: Option<usize>) -> String {
        let mut widths = self.header.map(|title| title.chars().count());
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.text.chars().count());
            }
        }
        let before: usize =
            widths.iter().take(COLUMNS.saturating_sub(1)).map(|width| width + GAP.len()).sum();
        let last = width.map(|width| width.saturating_sub(before).max(LEAST_LAST));
        let bold = Style::new().bold();
        let mut text = String::new();
        line(&mut text, &self.header.map(|title| Cell::styled(title, bold)), &widths, last);
        for row in &self.rows {
            line(&mut text, row, &widths, last);
        }
        text
    }
}

fn line<const COLUMNS: usize>(
    out: &mut String,
    row: &[Cell; COLUMNS],
    widths: &[usize; COLUMNS],
    last: Option<usize>,
) {
    // Nothing follows the last field that is not empty: no trailing blanks, which would wrap on narrow terminals.
    let end = row.iter().rposition(|cell| !cell.text.is_empty()).map_or(0, |at| at + 1);
    for (at, cell) in row.iter().enumerate().take(end) {
        let text = if at + 1 == COLUMNS { cut(&cell.text, last) } else { cell.text.clone() };
        let pad = if at + 1 == end { 0 } else { widths[at] - text.chars().count() + GAP.len() };
        // Writing to a String cannot fail.
        let _ = write!(out, "{}{text}{:#}{:pad$}", cell.style, cell.style, "");
    }
    out.push('\n');
}

fn cut(text: &str, most: Option<usize>) -> String {
    match most {
        Some(most) if text.chars().count() > most => {
            let mut short: String = text.chars().take(most - 1).collect();
            short.push('…');
            short
        }
        Some(_) | None => text.to_owned(),
    }
}

/// A program's several lines as one: a table row must stay a row.
fn one_line(text: &str) -> String {
    let words: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    words.join(" ").chars().filter(|c| !c.is_control()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Table<3> {
        let mut table = Table::new(["NODE", "STATE", "WHY"]);
        table.push([Cell::plain("web1"), Cell::state(State::InSync, ""), Cell::default()]);
        table.push([
            Cell::plain("a-long-name"),
            Cell::state(State::Failed, ""),
            Cell::plain("it broke\n  in two lines, at some length"),
        ]);
        table
    }

    #[test]
    fn columns_are_as_wide_as_their_contents_and_lines_end_without_blanks() {
        let text = anstream::adapter::strip_str(&sample().render(None)).to_string();
        assert_eq!(
            text,
            "NODE         STATE    WHY\n\
             web1         in sync\n\
             a-long-name  failed   it broke in two lines, at some length\n"
        );
    }

    #[test]
    fn the_last_column_ends_with_the_terminal() {
        let text = anstream::adapter::strip_str(&sample().render(Some(45))).to_string();
        assert!(text.ends_with("failed   it broke in two lines,…\n"), "{text}");
    }

    #[test]
    fn what_a_node_says_cannot_send_codes_to_the_terminal() {
        assert_eq!(Cell::plain("a\u{1b}[31mb").text, "a[31mb");
    }
}
