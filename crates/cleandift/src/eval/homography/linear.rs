//! Small dense systems of equations.

/// Solves `a x = b` for N unknowns by elimination with the largest pivot of each column; `None` if
/// the matrix is singular to working precision.
pub(super) fn solve<const N: usize>(mut a: [[f64; N]; N], mut b: [f64; N]) -> Option<[f64; N]> {
    for column in 0..N {
        let larger = |&x: &usize, &y: &usize| a[x][column].abs().total_cmp(&a[y][column].abs());
        let pivot = (column..N).max_by(larger)?;
        a.swap(column, pivot);
        b.swap(column, pivot);
        if a[column][column].abs() < 1e-12 {
            return None;
        }
        for row in column + 1..N {
            let factor = a[row][column] / a[column][column];
            let above = a[column];
            (column..N).for_each(|k| a[row][k] -= factor * above[k]);
            b[row] -= factor * b[column];
        }
    }
    let mut x = [0.0; N];
    for row in (0..N).rev() {
        let known: f64 = (row + 1..N).map(|k| a[row][k] * x[k]).sum();
        x[row] = (b[row] - known) / a[row][row];
    }
    Some(x)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_system_by_hand() {
        // x + 2y = 5, 3x - y = 1
        assert_eq!(
            solve([[1.0, 2.0], [3.0, -1.0]], [5.0, 1.0])
                .unwrap()
                .map(f64::round),
            [1.0, 2.0]
        );
        assert!(solve([[1.0, 2.0], [2.0, 4.0]], [5.0, 1.0]).is_none());
    }
}
