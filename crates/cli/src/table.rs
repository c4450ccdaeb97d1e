//! Plain tables for people: columns as wide as they must be, two blanks between them.

use std::fmt;

/// Rows under titles. The first columns hold words and begin at the left, the others hold numbers
/// and end at the right.
pub struct Table {
    words: usize,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these titles, of which the first `words` stand over words.
    pub fn new<S: Into<String>>(words: usize, titles: impl IntoIterator<Item = S>) -> Self {
        let mut table = Self {
            words,
            rows: Vec::new(),
        };
        table.row(titles);
        table
    }

    /// Adds a row; cells that it lacks at its end are empty.
    pub fn row<S: Into<String>>(&mut self, cells: impl IntoIterator<Item = S>) {
        self.rows.push(cells.into_iter().map(Into::into).collect());
    }

    fn widths(&self) -> Vec<usize> {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        (0..columns).map(width).collect()
    }
}

impl fmt::Display for Table {
    /// Every line is indented by two blanks and ends with its last word.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let widths = self.widths();
        for row in &self.rows {
            let cells = row.iter().zip(&widths).enumerate();
            let line: String = cells
                .map(|(column, (cell, &width))| match column < self.words {
                    true => format!("  {cell:<width$}"),
                    false => format!("  {cell:>width$}"),
                })
                .collect();
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

/// A number of bytes in words, in powers of ten: `3.1 GB`.
pub fn bytes(count: u64) -> String {
    let exact = count as f64;
    match count {
        0..1_000_000 => format!("{:.1} kB", exact / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", exact / 1e6),
        _ => format!("{:.1} GB", exact / 1e9),
    }
}

/// A number of parameters in words: `865.9 M`.
pub fn millions(count: u64) -> String {
    match count {
        0..100_000 => count.to_string(),
        _ => format!("{:.1} M", count as f64 / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_begin_at_the_left_and_numbers_end_at_the_right() {
        let mut table = Table::new(1, ["tap", "error", "limit"]);
        table.row(["us10 …", "1e-7", "5"]);
        table.row(["mid"]);
        let lines = [
            "  tap     error  limit",
            "  us10 …   1e-7      5",
            "  mid",
            "",
        ];
        assert_eq!(table.to_string(), lines.join("\n"));
    }

    #[test]
    fn units() {
        assert_eq!(bytes(999_999), "1000.0 kB");
        assert_eq!(bytes(3_100_000_000), "3.1 GB");
        assert_eq!(bytes(24_000_000), "24.0 MB");
        assert_eq!(millions(865_910_724), "865.9 M");
        assert_eq!(millions(81), "81");
    }
}
