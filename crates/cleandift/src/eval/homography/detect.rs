//! Corners worth matching.

use crate::image::{Extent, Picture};

/// Harris and Stephens's constant (Alvey Vision Conference 1988).
const K: f64 = 0.04;
/// The window over which gradients are summed reaches this far, in pixels.
const WINDOW: usize = 2;
/// Corners are at least this far apart, and from the border, in pixels.
const APART: usize = 5;

/// The strongest Harris corners of a picture, at most `count`, strongest first; whole pixels.
///
/// The response is `det M - 0.04 (trace M)²`, with M summed over 5 x 5 pixels from Sobel gradients
/// of the luma (ITU-R BT.601); a corner is the strongest within 5 pixels. Of equal ones the first
/// in row-major order wins.
pub fn harris(picture: &Picture, count: usize) -> Vec<[f64; 2]> {
    let Extent { width, height } = picture.extent();
    if width.min(height) <= 2 * APART {
        return Vec::new();
    }
    let response = response(picture);
    let mut corners = Vec::new();
    for y in APART..height - APART {
        for x in APART..width - APART {
            let here = response[y * width + x];
            let strongest = || {
                (y - APART..=y + APART).all(|row| {
                    let line = &response[row * width + x - APART..=row * width + x + APART];
                    line.iter().enumerate().all(|(index, &other)| {
                        let before = (row, x - APART + index) < (y, x);
                        other < here || (other == here && !before)
                    })
                })
            };
            if here > 0.0 && strongest() {
                corners.push((here, [x as f64, y as f64]));
            }
        }
    }
    // A stable sort: equal corners stay in row-major order.
    corners.sort_by(|a, b| b.0.total_cmp(&a.0));
    corners.truncate(count);
    corners.into_iter().map(|(_, point)| point).collect()
}

fn response(picture: &Picture) -> Vec<f64> {
    let Extent { width, height } = picture.extent();
    let luma: Vec<f64> = (picture.rgb().chunks_exact(3))
        .map(|rgb| {
            0.299 * f64::from(rgb[0]) + 0.587 * f64::from(rgb[1]) + 0.114 * f64::from(rgb[2])
        })
        .collect();
    let at = |x: usize, y: usize| luma[y * width + x];
    let mut products = vec![[0.0; 3]; width * height];
    for y in 1..height - 1 {
        for x in 1..width - 1 {
            let column = |x: usize| at(x, y - 1) + 2.0 * at(x, y) + at(x, y + 1);
            let row = |y: usize| at(x - 1, y) + 2.0 * at(x, y) + at(x + 1, y);
            let (dx, dy) = (column(x + 1) - column(x - 1), row(y + 1) - row(y - 1));
            products[y * width + x] = [dx * dx, dx * dy, dy * dy];
        }
    }
    let mut response = vec![0.0; width * height];
    for y in WINDOW..height - WINDOW {
        for x in WINDOW..width - WINDOW {
            let mut sum = [0.0; 3];
            for row in y - WINDOW..=y + WINDOW {
                for product in &products[row * width + x - WINDOW..=row * width + x + WINDOW] {
                    (0..3).for_each(|index| sum[index] += product[index]);
                }
            }
            let [xx, xy, yy] = sum;
            response[y * width + x] = xx * yy - xy * xy - K * (xx + yy) * (xx + yy);
        }
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A white square on black has its four corners, within a pixel of where they are.
    #[test]
    fn a_square_has_four_corners() {
        let (side, from, to) = (60, 20, 40);
        let inside = |x: usize, y: usize| (from..to).contains(&x) && (from..to).contains(&y);
        let rgb =
            (0..side * side).flat_map(|i| [if inside(i % side, i / side) { 255 } else { 0 }; 3]);
        let picture = Picture::from_rgb(Extent::new(side, side), rgb.collect()).unwrap();
        let corners = harris(&picture, 10);
        assert_eq!(corners.len(), 4, "{corners:?}");
        for expected in [[19.5, 19.5], [39.5, 19.5], [19.5, 39.5], [39.5, 39.5]] {
            let near = |c: &&[f64; 2]| {
                (c[0] - expected[0]).abs() <= 1.5 && (c[1] - expected[1]).abs() <= 1.5
            };
            assert!(
                corners.iter().any(|c| near(&c)),
                "{expected:?} in {corners:?}"
            );
        }
    }
}
