//! The transforms of kernels between their nine taps and the 36 points.

use super::transform::{POINTS, SIDE, TAPS, to_points, to_taps};
use crate::backward::conv::COLUMNS;
use crate::backward::conv::planes::{AREA, Planes, put_together, take_apart};
use crate::simd::{PANEL_VECTORS, Simd};

/// Kernels that are to be turned by half a turn and transformed into one row of panels at each
/// point.
pub(crate) struct KernelsToPoints<'a> {
    /// From the first kernel on.
    pub(super) from: &'a [f32],
    pub(super) kernels: usize,
    pub(super) planes: &'a mut Planes,
    /// The row in the first panel of the first point.
    pub(super) to: &'a mut [f32],
    /// Floats from a panel to the next.
    pub(super) panel: usize,
    /// Floats from a point to the next.
    pub(super) point: usize,
}

/// `G w Gᵀ` of each kernel.
///
/// # Safety
/// The machine has `V`'s instruction set.
#[inline(always)]
pub(crate) unsafe fn kernels_to_points_body<V: Simd>(task: KernelsToPoints<'_>) {
    let width = PANEL_VECTORS * V::LANES;
    let last = task.kernels.saturating_sub(1) / width * task.panel;
    assert!((POINTS - 1) * task.point + last + width <= task.to.len());
    // SAFETY: the caller's promise.
    unsafe { take_apart::<V>(task.from, task.kernels, task.planes) };
    for first in (0..task.kernels).step_by(V::LANES) {
        let place = first / width * task.panel + first % width;
        // SAFETY: planes are whole vectors; the last one of the last point is inside.
        unsafe {
            let mut half = [[V::fill(0.0); SIDE]; TAPS];
            for (x, half) in half.iter_mut().enumerate() {
                let mut taps = [V::fill(0.0); TAPS];
                for (y, value) in taps.iter_mut().enumerate() {
                    let turned = AREA - 1 - (y * TAPS + x);
                    *value = V::load(task.planes.as_ptr().add(turned * COLUMNS + first));
                }
                *half = to_points(taps);
            }
            let [left, middle, right] = half;
            for y in 0..SIDE {
                let row = to_points([left[y], middle[y], right[y]]);
                for (x, value) in row.into_iter().enumerate() {
                    let point = (y * SIDE + x) * task.point;
                    value.store(task.to.as_mut_ptr().add(point + place));
                }
            }
        }
    }
}

/// Gradients of kernels at the 36 points, to be transformed into those of the taps.
pub(crate) struct PointsToKernels<'a> {
    /// The first kernel's value at the first point; the kernels' follow each other, filled up to
    /// whole vectors.
    pub(super) from: &'a [f32],
    /// Floats from a point to the next.
    pub(super) point: usize,
    pub(super) planes: &'a mut Planes,
    /// The kernels, one after the other.
    pub(super) to: &'a mut [f32],
}

/// `Gᵀ u G` of each kernel.
///
/// # Safety
/// The machine has `V`'s instruction set.
#[inline(always)]
pub(crate) unsafe fn points_to_kernels_body<V: Simd>(task: PointsToKernels<'_>) {
    let kernels = task.to.len() / AREA;
    let needed = kernels.next_multiple_of(V::LANES);
    assert!((POINTS - 1) * task.point + needed <= task.from.len() && needed <= COLUMNS);
    for first in (0..kernels).step_by(V::LANES) {
        // SAFETY: the last vector of the last point, and of the last plane, are inside.
        unsafe {
            let mut half = [[V::fill(0.0); TAPS]; SIDE];
            for (x, half) in half.iter_mut().enumerate() {
                let mut points = [V::fill(0.0); SIDE];
                for (y, value) in points.iter_mut().enumerate() {
                    let point = (y * SIDE + x) * task.point;
                    *value = V::load(task.from.as_ptr().add(point + first));
                }
                *half = to_taps(points);
            }
            for y in 0..TAPS {
                let [a, b, c, d, e, f] = half;
                let row = to_taps([a[y], b[y], c[y], d[y], e[y], f[y]]);
                for (x, value) in row.into_iter().enumerate() {
                    let plane = (y * TAPS + x) * COLUMNS;
                    value.store(task.planes.as_mut_ptr().add(plane + first));
                }
            }
        }
    }
    // SAFETY: the caller's promise.
    unsafe { put_together::<V>(task.planes, task.to) };
}
