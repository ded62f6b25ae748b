//! The one table that `make bench` prints: what, how much, what it should be, and whether it is.

use std::time::Duration;

/// What a figure should be.
pub enum Bound {
    /// It is told for comparison.
    None,
    /// The target in words, and whether it is met.
    Target {
        /// For example "≤ 20 ms".
        said: String,
        /// Whether the figure is within it.
        met: bool,
    },
}

impl Bound {
    /// A target.
    pub fn met(said: &str, met: bool) -> Bound {
        Bound::Target { said: said.to_owned(), met }
    }
}

/// Rows and notes, in order.
#[derive(Default)]
pub struct Table {
    rows: Vec<[String; 4]>,
    notes: Vec<String>,
}

impl Table {
    /// Adds a row.
    pub fn put(&mut self, what: &str, figure: String, bound: Bound) {
        let (target, verdict) = match bound {
            Bound::None => (String::new(), String::new()),
            Bound::Target { said, met } => (said, if met { "met" } else { "MISSED" }.to_owned()),
        };
        self.rows.push([what.to_owned(), figure, target, verdict]);
    }

    /// Adds a sentence below the table.
    pub fn note(&mut self, text: String) {
        self.notes.push(text);
    }

    /// Everything, as Markdown that also reads well as it is.
    pub fn text(&self) -> String {
        let head = ["", "measured", "target", ""].map(str::to_owned);
        let width = |column: usize| {
            let cells = std::iter::once(&head).chain(&self.rows);
            cells.map(|row| row[column].chars().count()).max().unwrap_or_default()
        };
        let widths: [usize; 4] = std::array::from_fn(width);
        let line = |row: &[String; 4]| {
            let cells: Vec<String> =
                row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
            format!("| {} |\n", cells.join(" | "))
        };
        let rule = widths.map(|width| "-".repeat(width.max(3)));
        let body: String = [&head, &rule].into_iter().chain(&self.rows).map(line).collect();
        let notes: String = self.notes.iter().map(|note| format!("\n{note}\n")).collect();
        body + &notes
    }
}

/// The middle one.
pub fn median<T: PartialOrd + Copy>(mut of: Vec<T>) -> T {
    of.sort_by(|a, b| a.partial_cmp(b).expect("measured figures are numbers"));
    of[of.len() / 2]
}

/// For people.
pub fn seconds(duration: Duration) -> String {
    format!("{:.2} s", duration.as_secs_f64())
}

/// Seconds in milliseconds.
pub fn ms(seconds: f64) -> String {
    format!("{:.0} ms", seconds * 1000.0)
}

/// Bytes in mebibytes.
pub fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}
