//! The three ways to see a 3x3 convolution as products at points, and what they do to kernels,
//! pixels and products: vectors of channels in, vectors of channels out.
//!
//! In one dimension, an input of `window` pixels and a kernel of three weights give `outputs`
//! values: `Aᵀ [(G w) · (Bᵀ x)]`, a product at each of `points`. In two dimensions each matrix is
//! applied to the columns, then to the rows.

use super::Winograd;
use crate::simd::Simd;

/// The most points along a side.
const SIDE: usize = 6;

/// One dimension of an algorithm. Arrays are as long as the longest needs.
trait Transform {
    /// Pixels that a tile reads.
    const WINDOW: usize;
    /// Points at which it multiplies.
    const POINTS: usize;
    /// Outputs that it gives.
    const OUTPUTS: usize;

    /// `G w`.
    fn kernel<V: Simd>(w: [V; 3]) -> [V; SIDE];
    /// `Bᵀ x`.
    fn input<V: Simd>(x: [V; SIDE]) -> [V; SIDE];
    /// `Aᵀ m`.
    fn output<V: Simd>(m: [V; SIDE]) -> [V; 4];
}

/// F(4, 3): the points 0, 1, -1, 2, -2 and infinity.
struct Four;
/// F(2, 3): the points 0, 1, -1 and infinity.
struct Two;
/// F(4, 3) on pixels that each stand twice. A window of four different pixels `a b c d` (`b` and
/// `c` doubled under the tile) gives the outputs `u a + v b`, `p b + q c`, `u b + v c`, `p c + q d`
/// with `u = w0`, `v = w1 + w2`, `p = w0 + w1`, `q = w2`, and `u + v = p + q = s`. So
/// `u a + v b = u (a - b) + s b`, and so on: six products whose transforms are sums and
/// differences of two or three values.
struct Upsampled;

impl Transform for Four {
    const WINDOW: usize = 6;
    const POINTS: usize = 6;
    const OUTPUTS: usize = 4;

    #[inline(always)]
    fn kernel<V: Simd>([a, b, c]: [V; 3]) -> [V; SIDE] {
        let ends = a.add(c);
        let far = c.mul_add(a.constant(4.0), a);
        let (sixth, twelfth) = (a.constant(-1.0 / 6.0), a.constant(1.0 / 12.0));
        let near = ends.mul(sixth);
        let far = far.mul(a.constant(1.0 / 24.0));
        [
            a.mul(a.constant(0.25)),
            b.mul_add(sixth, near),
            b.mul_add(a.constant(1.0 / 6.0), near),
            b.mul_add(twelfth, far),
            b.mul_add(a.constant(-1.0 / 12.0), far),
            c,
        ]
    }

    #[inline(always)]
    fn input<V: Simd>([a, b, c, d, e, f]: [V; SIDE]) -> [V; SIDE] {
        let (two, four) = (a.constant(2.0), a.constant(4.0));
        let (minus_four, minus_five) = (a.constant(-4.0), a.constant(-5.0));
        let even = c.mul_add(minus_four, e);
        let odd = b.mul_add(minus_four, d);
        let (steps, ends) = (d.sub(b), e.sub(c));
        [
            c.mul_add(minus_five, a.mul_add(four, e)),
            even.add(odd),
            even.sub(odd),
            steps.mul_add(two, ends),
            steps.mul_add(a.constant(-2.0), ends),
            d.mul_add(minus_five, b.mul_add(four, f)),
        ]
    }

    #[inline(always)]
    fn output<V: Simd>([a, b, c, d, e, f]: [V; SIDE]) -> [V; 4] {
        let (sum, difference) = (b.add(c), b.sub(c));
        let (far_sum, far_difference) = (d.add(e), d.sub(e));
        [
            a.add(sum).add(far_sum),
            far_difference.mul_add(a.constant(2.0), difference),
            far_sum.mul_add(a.constant(4.0), sum),
            far_difference.mul_add(a.constant(8.0), difference).add(f),
        ]
    }
}

impl Transform for Two {
    const WINDOW: usize = 4;
    const POINTS: usize = 4;
    const OUTPUTS: usize = 2;

    #[inline(always)]
    fn kernel<V: Simd>([a, b, c]: [V; 3]) -> [V; SIDE] {
        let half = a.constant(0.5);
        let ends = a.add(c).mul(half);
        let (plus, minus) = (b.mul_add(half, ends), b.mul_add(a.constant(-0.5), ends));
        let zero = a.constant(0.0);
        [a, plus, minus, c, zero, zero]
    }

    #[inline(always)]
    fn input<V: Simd>([a, b, c, d, ..]: [V; SIDE]) -> [V; SIDE] {
        let zero = a.constant(0.0);
        [a.sub(c), b.add(c), c.sub(b), d.sub(b), zero, zero]
    }

    #[inline(always)]
    fn output<V: Simd>([a, b, c, d, ..]: [V; SIDE]) -> [V; 4] {
        let zero = a.constant(0.0);
        [a.add(b).add(c), b.sub(c).add(d), zero, zero]
    }
}

impl Transform for Upsampled {
    const WINDOW: usize = 4;
    const POINTS: usize = 6;
    const OUTPUTS: usize = 4;

    #[inline(always)]
    fn kernel<V: Simd>([a, b, c]: [V; 3]) -> [V; SIDE] {
        let (v, p) = (b.add(c), a.add(b));
        let s = p.add(c);
        [a, s, v, p, s, c]
    }

    #[inline(always)]
    fn input<V: Simd>([a, b, c, d, ..]: [V; SIDE]) -> [V; SIDE] {
        [a.sub(b), b, c.sub(b), b.sub(c), c, d.sub(c)]
    }

    #[inline(always)]
    fn output<V: Simd>([a, b, c, d, e, f]: [V; SIDE]) -> [V; 4] {
        [a.add(b), d.add(e), b.add(c), e.add(f)]
    }
}

impl Winograd {
    /// Points of a tile.
    pub(super) fn points(self) -> usize {
        match self {
            Self::Four | Self::Upsampled => 36,
            Self::Two => 16,
        }
    }

    /// Outputs of a tile, along a side.
    pub(super) fn outputs(self) -> usize {
        match self {
            Self::Four | Self::Upsampled => 4,
            Self::Two => 2,
        }
    }

    /// Pixels that a tile reads, along a side; the first is one before its first output.
    pub(super) fn window(self) -> usize {
        match self {
            Self::Four => 6,
            Self::Two | Self::Upsampled => 4,
        }
    }

    /// Pixels from a tile's window to the next.
    pub(super) fn step(self) -> usize {
        self.window() - 2
    }

    /// Outputs for each pixel, along a side.
    pub(super) fn enlargement(self) -> usize {
        self.outputs() / self.step()
    }
}

/// A tile's pixels, and where their transform goes.
pub(crate) struct Pixels {
    pub(super) from: *const f32,
    /// Floats from a pixel to the next, and from a row of pixels to the next.
    pub(super) pixel: usize,
    pub(super) row: usize,
    /// Floats of a pixel: whole vectors.
    pub(super) channels: usize,
    pub(super) to: *mut f32,
    /// Floats from a point to the next.
    pub(super) point: usize,
}

/// The weights of some inputs of a panel, and where their transform goes.
pub(crate) struct Taps {
    /// The first input's weights under the first tap: a vector or more of outputs.
    pub(super) from: *const f32,
    /// Floats from a tap to the next.
    pub(super) tap: usize,
    /// Floats in all: inputs by outputs, whole vectors.
    pub(super) count: usize,
    pub(super) to: *mut f32,
    /// Floats from a point to the next.
    pub(super) point: usize,
}

/// A tile's products, and where its outputs go.
pub(crate) struct Products<'a> {
    pub(super) from: *const f32,
    /// Floats from a point to the next.
    pub(super) point: usize,
    /// Outputs of a pixel; the products have whole vectors.
    pub(super) channels: usize,
    /// Added to each, a value per output.
    pub(super) bias: Option<&'a [f32]>,
    /// The tile's first output.
    pub(super) to: *mut f32,
    /// Added, laid out as the outputs are.
    pub(super) residual: Option<*const f32>,
    /// Floats from a pixel to the next, and from a row to the next.
    pub(super) pixel: usize,
    pub(super) row: usize,
    /// Rows and columns of the tile that are on the map.
    pub(super) extent: [usize; 2],
    /// The outputs' moments.
    pub(super) gather: Option<Gather>,
}

/// Where sums of outputs' distances from an origin are gathered, a value per output.
#[derive(Clone, Copy)]
pub(crate) struct Gather {
    /// Whether this is the first tile: then the origin is its first output.
    pub(super) first: bool,
    pub(super) origins: *mut f32,
    pub(super) sums: *mut f32,
    pub(super) squares: *mut f32,
}

impl Gather {
    /// For three runs of `count` floats.
    pub(super) fn new(sums: &mut [f32], count: usize) -> Self {
        let (origins, sums) = sums.split_at_mut(count);
        let (sums, squares) = sums.split_at_mut(count);
        Self {
            first: true,
            origins: origins.as_mut_ptr(),
            sums: sums.as_mut_ptr(),
            squares: squares.as_mut_ptr(),
        }
    }
}

/// Transforms the pixels of a tile.
///
/// # Safety
/// The machine has `V`'s instruction set, the window's pixels can be read, and each point's
/// channels written.
#[inline(always)]
pub(crate) unsafe fn input_body<V: Simd>(kind: Winograd, pixels: &Pixels) {
    // SAFETY: the caller's promise.
    unsafe {
        match kind {
            Winograd::Four => input::<V, Four>(pixels),
            Winograd::Two => input::<V, Two>(pixels),
            Winograd::Upsampled => input::<V, Upsampled>(pixels),
        }
    }
}

/// # Safety
/// As [`input_body`]'s.
#[inline(always)]
unsafe fn input<V: Simd, T: Transform>(pixels: &Pixels) {
    for channel in (0..pixels.channels).step_by(V::LANES) {
        // SAFETY: the caller's promise.
        unsafe {
            let from = pixels.from.add(channel);
            let to = pixels.to.add(channel);
            let mut half = [[V::fill(0.0); SIDE]; SIDE];
            for (column, half) in half.iter_mut().enumerate().take(T::WINDOW) {
                let mut x = [V::fill(0.0); SIDE];
                for (row, x) in x.iter_mut().enumerate().take(T::WINDOW) {
                    *x = V::load(from.add(row * pixels.row + column * pixels.pixel));
                }
                *half = T::input(x);
            }
            for row in 0..T::POINTS {
                let values = T::input(across(&half, row));
                for (column, value) in values.into_iter().enumerate().take(T::POINTS) {
                    value.store(to.add((row * T::POINTS + column) * pixels.point));
                }
            }
        }
    }
}

/// Transforms the weights of some inputs of a panel.
///
/// # Safety
/// The machine has `V`'s instruction set, each tap's weights can be read, each point's written.
#[inline(always)]
pub(crate) unsafe fn kernel_body<V: Simd>(kind: Winograd, taps: &Taps) {
    // SAFETY: the caller's promise.
    unsafe {
        match kind {
            Winograd::Four => kernel::<V, Four>(taps),
            Winograd::Two => kernel::<V, Two>(taps),
            Winograd::Upsampled => kernel::<V, Upsampled>(taps),
        }
    }
}

/// # Safety
/// As [`kernel_body`]'s.
#[inline(always)]
unsafe fn kernel<V: Simd, T: Transform>(taps: &Taps) {
    for place in (0..taps.count).step_by(V::LANES) {
        // SAFETY: the caller's promise.
        unsafe {
            let (from, to) = (taps.from.add(place), taps.to.add(place));
            let mut half = [[V::fill(0.0); SIDE]; 3];
            for (column, half) in half.iter_mut().enumerate() {
                let mut w = [V::fill(0.0); 3];
                for (row, w) in w.iter_mut().enumerate() {
                    *w = V::load(from.add((row * 3 + column) * taps.tap));
                }
                *half = T::kernel(w);
            }
            for row in 0..T::POINTS {
                let values = T::kernel([half[0][row], half[1][row], half[2][row]]);
                for (column, value) in values.into_iter().enumerate().take(T::POINTS) {
                    value.store(to.add((row * T::POINTS + column) * taps.point));
                }
            }
        }
    }
}

/// Transforms the products of a tile into outputs of the map.
///
/// # Safety
/// The machine has `V`'s instruction set, each point's products can be read, bias and gathered
/// sums have a value per output, and the tile's outputs on the map are this thread's to write.
#[inline(always)]
pub(crate) unsafe fn output_body<V: Simd>(kind: Winograd, products: &Products<'_>) {
    // SAFETY: the caller's promise.
    unsafe {
        match kind {
            Winograd::Four => output::<V, Four>(products),
            Winograd::Two => output::<V, Two>(products),
            Winograd::Upsampled => output::<V, Upsampled>(products),
        }
    }
}

/// # Safety
/// As [`output_body`]'s.
#[inline(always)]
unsafe fn output<V: Simd, T: Transform>(products: &Products<'_>) {
    let [rows, columns] = products.extent;
    for channel in (0..products.channels).step_by(V::LANES) {
        let left = products.channels - channel;
        // SAFETY: the caller's promise; rows and columns beyond the map are left out.
        unsafe {
            let bias = match products.bias {
                Some(bias) => V::load_up_to(bias.as_ptr().add(channel), left),
                None => V::fill(0.0),
            };
            let from = products.from.add(channel);
            let mut half = [[V::fill(0.0); 4]; SIDE];
            for (column, half) in half.iter_mut().enumerate().take(T::POINTS) {
                let mut m = [V::fill(0.0); SIDE];
                for (row, m) in m.iter_mut().enumerate().take(T::POINTS) {
                    *m = V::load(from.add((row * T::POINTS + column) * products.point));
                }
                *half = T::output(m);
            }
            let mut sums = Sums::<V>::begin(products.gather, channel, left);
            for row in 0..T::OUTPUTS.min(rows) {
                let values = T::output(across(&half, row));
                for (column, value) in values.into_iter().enumerate().take(T::OUTPUTS) {
                    if column >= columns {
                        break;
                    }
                    let place = row * products.row + column * products.pixel + channel;
                    let mut value = value.add(bias);
                    if let Some(residual) = products.residual {
                        value = value.add(V::load_up_to(residual.add(place), left));
                    }
                    value.store_up_to(products.to.add(place), left);
                    if products.gather.is_some() {
                        sums.add(value);
                    }
                }
            }
            sums.end(products.gather, channel, left);
        }
    }
}

/// A tile's sums of one vector of outputs.
struct Sums<V> {
    origin: Option<V>,
    sum: V,
    square: V,
}

impl<V: Simd> Sums<V> {
    /// # Safety
    /// The machine has `V`'s instruction set; `left` origins can be read from `channel` on.
    #[inline(always)]
    unsafe fn begin(gather: Option<Gather>, channel: usize, left: usize) -> Self {
        // SAFETY: the caller's promise.
        unsafe {
            let origin = match gather {
                Some(gather) if !gather.first => {
                    Some(V::load_up_to(gather.origins.add(channel), left))
                }
                _ => None,
            };
            let zero = V::fill(0.0);
            Self {
                origin,
                sum: zero,
                square: zero,
            }
        }
    }

    #[inline(always)]
    fn add(&mut self, value: V) {
        let origin = *self.origin.get_or_insert(value);
        let distance = value.sub(origin);
        self.sum = self.sum.add(distance);
        self.square = distance.mul_add(distance, self.square);
    }

    /// # Safety
    /// As [`Sums::begin`]'s, and the sums can be written.
    #[inline(always)]
    unsafe fn end(self, gather: Option<Gather>, channel: usize, left: usize) {
        let Some(gather) = gather else { return };
        // SAFETY: the caller's promise.
        unsafe {
            let (sums, squares) = (gather.sums.add(channel), gather.squares.add(channel));
            match self.origin {
                Some(origin) if gather.first => {
                    origin.store_up_to(gather.origins.add(channel), left);
                    self.sum.store_up_to(sums, left);
                    self.square.store_up_to(squares, left);
                }
                _ => {
                    let sum = V::load_up_to(sums, left).add(self.sum);
                    let square = V::load_up_to(squares, left).add(self.square);
                    sum.store_up_to(sums, left);
                    square.store_up_to(squares, left);
                }
            }
        }
    }
}

/// One row of the columns.
#[inline(always)]
fn across<V: Simd, const N: usize>(columns: &[[V; N]; SIDE], row: usize) -> [V; SIDE] {
    let [a, b, c, d, e, f] = columns;
    [a[row], b[row], c[row], d[row], e[row], f[row]]
}
