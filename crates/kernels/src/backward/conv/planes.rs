//! 3x3 kernels by their taps.
//!
//! In memory the taps of a kernel follow each other; vectors want them apart, as nine *planes* of
//! [`COLUMNS`] kernels each. The way between the two is through squares of vectors, transposed in
//! registers: a kernel is a row of a square, of which the columns after the last tap are not looked
//! at.

use super::COLUMNS;
use crate::simd::{MOST_LANES, Simd};

/// Taps of a kernel.
pub(crate) const AREA: usize = 9;

/// The most rows of the squares that hold all taps.
const ROWS: usize = AREA.next_multiple_of(MOST_LANES);

/// The most squares that all taps are in: of vectors of four.
const SQUARES: usize = AREA.div_ceil(4);

/// Kernels by their taps: `[tap][kernel]`, and room for whole squares.
pub(crate) type Planes = [f32; ROWS * COLUMNS];

/// No kernels yet.
pub(crate) const NO_PLANES: Planes = [0.0; ROWS * COLUMNS];

/// The first `count` kernels of a weight are taken apart.
///
/// # Safety
/// The machine has `V`'s instruction set.
#[inline(always)]
pub(crate) unsafe fn take_apart<V: Simd>(kernels: &[f32], count: usize, planes: &mut Planes) {
    assert!(count * AREA <= kernels.len() && count <= COLUMNS);
    let mut square = [0.0_f32; MOST_LANES * MOST_LANES];
    for first in (0..count).step_by(V::LANES) {
        let whole = (first + V::LANES - 1) * AREA + AREA.next_multiple_of(V::LANES);
        if whole > kernels.len() {
            for kernel in first..count {
                for tap in 0..AREA {
                    planes[tap * COLUMNS + kernel] = kernels[kernel * AREA + tap];
                }
            }
            return;
        }
        for tap in (0..AREA).step_by(V::LANES) {
            // SAFETY: the square's last value is before `whole`; planes are whole vectors.
            unsafe {
                let from = kernels.as_ptr().add(first * AREA + tap);
                V::transpose(from, AREA, square.as_mut_ptr());
                let columns = square.chunks_exact(V::LANES).take(V::LANES);
                for (tap, values) in (tap..AREA).zip(columns) {
                    let to = planes.as_mut_ptr().add(tap * COLUMNS + first);
                    V::load(values.as_ptr()).store(to);
                }
            }
        }
    }
}

/// Puts kernels together again.
///
/// # Safety
/// The machine has `V`'s instruction set.
#[inline(always)]
pub(crate) unsafe fn put_together<V: Simd>(planes: &Planes, kernels: &mut [f32]) {
    let count = kernels.len() / AREA;
    assert!(count * AREA == kernels.len() && count <= COLUMNS);
    let mut squares = [[0.0_f32; MOST_LANES * MOST_LANES]; SQUARES];
    for first in (0..count).step_by(V::LANES) {
        let taps = (0..AREA).step_by(V::LANES);
        // SAFETY: a square of planes is inside them. What is stored after a kernel's last tap is the
        // next kernel's, which is written afterwards; nothing is after the last kernel's.
        unsafe {
            for (tap, square) in taps.clone().zip(&mut squares) {
                let from = planes.as_ptr().add(tap * COLUMNS + first);
                V::transpose(from, COLUMNS, square.as_mut_ptr());
            }
            for kernel in first..count.min(first + V::LANES) {
                for (tap, square) in taps.clone().zip(&squares) {
                    let place = kernel * AREA + tap;
                    let values = square[(kernel - first) * V::LANES..].as_ptr();
                    let left = kernels.len() - place;
                    V::load(values).store_up_to(kernels.as_mut_ptr().add(place), left);
                }
            }
        }
    }
}
