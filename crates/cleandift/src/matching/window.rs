//! The window soft arg-max: a point between cells, from the similarities around the best cell.

use crate::image::Extent;

/// The expected cell position `[x, y]` under a softmax of the similarities around the best cell,
/// as in the zero-shot protocol of "Telling Left from Right" (arXiv 2311.17034).
///
/// `similarities` are those of all cells, `[row][column]`. Those farther than `window` columns or
/// rows from the best cell count as zero (they keep a little weight); all are divided by
/// `temperature`. The published numbers are window 5 and temperature 0.02 on 60x60 cells.
///
/// # Panics
/// If the number of similarities is not that of the cells, or there are none.
pub fn window_soft_argmax(
    similarities: &[f64],
    cells: Extent,
    window: usize,
    temperature: f64,
) -> [f64; 2] {
    assert_eq!(similarities.len(), cells.width * cells.height);
    let best = best_cell(similarities, |_| true).expect("at least one cell");
    let kept = |cell: usize| {
        if within(cells, best, cell, window) {
            similarities[cell]
        } else {
            0.0
        }
    };
    let highest = (0..similarities.len())
        .map(kept)
        .fold(f64::NEG_INFINITY, f64::max);
    let (mut total, mut x, mut y) = (0.0, 0.0, 0.0);
    for cell in 0..similarities.len() {
        let weight = ((kept(cell) - highest) / temperature).exp();
        total += weight;
        x += weight * (cell % cells.width) as f64;
        y += weight * (cell / cells.width) as f64;
    }
    [
        (x / total).clamp(0.0, (cells.width - 1) as f64),
        (y / total).clamp(0.0, (cells.height - 1) as f64),
    ]
}

/// The index of the highest similarity among the allowed cells, the first if there are several.
pub(super) fn best_cell(similarities: &[f64], allowed: impl Fn(usize) -> bool) -> Option<usize> {
    let mut best = None;
    for cell in (0..similarities.len()).filter(|&cell| allowed(cell)) {
        if best.is_none_or(|best: usize| similarities[cell] > similarities[best]) {
            best = Some(cell);
        }
    }
    best
}

/// Whether two cells are at most `window` columns and rows apart.
pub(super) fn within(cells: Extent, a: usize, b: usize, window: usize) -> bool {
    (a % cells.width).abs_diff(b % cells.width) <= window
        && (a / cells.width).abs_diff(b / cells.width) <= window
}
