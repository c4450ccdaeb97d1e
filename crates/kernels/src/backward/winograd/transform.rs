//! The transforms of F(4x4, 3x3) along one axis, and their transposes, for which backward asks.
//!
//! The points are 0, 1, -1, 2, -2 and infinity (Lavin and Gray, arXiv 1509.09308).

use crate::simd::Simd;

/// Outputs of a tile, along a side.
pub(super) const OUTPUTS: usize = 4;
/// Taps of a kernel, along a side.
pub(super) const TAPS: usize = 3;
/// Pixels of a tile, along a side; points as well.
pub(super) const SIDE: usize = OUTPUTS + TAPS - 1;
/// Points of a tile.
pub(super) const POINTS: usize = SIDE * SIDE;

/// `Bᵀ x` of six pixels.
#[inline(always)]
pub(super) fn pixels_to_points<V: Simd>([a, b, c, d, e, f]: [V; SIDE]) -> [V; SIDE] {
    let (four, minus) = (a.constant(4.0), a.constant(-4.0));
    let (even, odd) = (c.mul_add(minus, e), b.mul_add(minus, d));
    let (ends, steps) = (e.sub(c), d.sub(b).mul(a.constant(2.0)));
    let five = a.constant(5.0);
    [
        a.mul_add(four, e).sub(c.mul(five)),
        even.add(odd),
        even.sub(odd),
        ends.add(steps),
        ends.sub(steps),
        b.mul_add(four, f).sub(d.mul(five)),
    ]
}

/// `A y` of four gradients of outputs.
#[inline(always)]
pub(super) fn gradients_to_points<V: Simd>([a, b, c, d]: [V; OUTPUTS]) -> [V; SIDE] {
    let (two, four) = (a.constant(2.0), a.constant(4.0));
    let (even, odd) = (a.add(c), b.add(d));
    let far_even = c.mul_add(four, a);
    let far_odd = d.mul_add(four, b).mul(two);
    [
        a,
        even.add(odd),
        even.sub(odd),
        far_even.add(far_odd),
        far_even.sub(far_odd),
        d,
    ]
}

/// `Aᵀ m` of six points.
#[inline(always)]
pub(super) fn to_outputs<V: Simd>([a, b, c, d, e, f]: [V; SIDE]) -> [V; OUTPUTS] {
    let (sum, difference) = (b.add(c), b.sub(c));
    let (far_sum, far_difference) = (d.add(e), d.sub(e));
    [
        a.add(sum).add(far_sum),
        far_difference.mul_add(a.constant(2.0), difference),
        far_sum.mul_add(a.constant(4.0), sum),
        far_difference.mul_add(a.constant(8.0), difference).add(f),
    ]
}

/// `G w` of three taps.
#[inline(always)]
pub(super) fn to_points<V: Simd>([a, b, c]: [V; TAPS]) -> [V; SIDE] {
    let sixth = a.constant(1.0 / 6.0);
    let minus = a.constant(-1.0 / 6.0);
    let ends = a.add(c);
    let far = a.mul(a.constant(1.0 / 24.0)).add(c.mul(sixth));
    let middle = b.mul(a.constant(1.0 / 12.0));
    [
        a.mul(a.constant(0.25)),
        ends.add(b).mul(minus),
        ends.sub(b).mul(minus),
        far.add(middle),
        far.sub(middle),
        c,
    ]
}

/// `Gᵀ u` of six points.
#[inline(always)]
pub(super) fn to_taps<V: Simd>([a, b, c, d, e, f]: [V; SIDE]) -> [V; TAPS] {
    let sixth = a.constant(1.0 / 6.0);
    let (near, far) = (b.add(c), d.add(e));
    let ends = far.mul(a.constant(1.0 / 24.0)).sub(near.mul(sixth));
    let steps = d.sub(e).mul(a.constant(1.0 / 12.0));
    [
        a.mul_add(a.constant(0.25), ends),
        c.sub(b).mul_add(sixth, steps),
        far.sub(near).mul_add(sixth, f),
    ]
}

/// One row of six columns.
#[inline(always)]
pub(super) fn across<V: Simd, const N: usize>(columns: &[[V; N]; SIDE], row: usize) -> [V; SIDE] {
    let [a, b, c, d, e, f] = columns;
    [a[row], b[row], c[row], d[row], e[row], f[row]]
}
