//! Gradients of a convolution: of its input, a convolution of `dy` with the kernel turned round;
//! of its weight, at each tap a sum of outer products of output and input pixels.

mod input;
pub(crate) mod planes;
pub(super) mod weight;

use crate::threads::{self, Output, piece};
use crate::{Convolution, Kernels, Padding};

/// Most inputs of a task: a multiple of every instruction set's panel, and a divisor of the
/// channels of Stable Diffusion's layers.
pub(super) const COLUMNS: usize = 160;

/// Fewest cells of a map that pay for Winograd's transforms, even of a single image: at 8 x 8, with
/// 1280 channels, they took four fifths of the time, at 16 x 16 half.
const WINOGRAD_CELLS: usize = 8 * 8;

/// The same where weights are few, and their transforms cheap: one tile.
const FEW_WEIGHTS_CELLS: usize = 4 * 4;

/// Weights of a tap that are few: transformed, a few megabytes.
const FEW_WEIGHTS: usize = 256 * 256;

/// Fewest channels, on both sides, that do.
const WINOGRAD_CHANNELS: usize = 32;

impl Kernels {
    /// The gradient of a convolution's input, `dx` `[images, height, width, inputs]`, from that of
    /// its output, `dy` `[images, output height, output width, outputs]`, and its `weight`
    /// `[outputs, inputs, kernel, kernel]`; `sides` is `[outputs, inputs, kernel]`.
    ///
    /// # Panics
    /// If a length does not fit, or `kernel` is neither 1 nor 3.
    pub fn convolution_input_gradient(
        &self,
        dy: &[f32],
        geometry: &Convolution,
        weight: &[f32],
        sides: [usize; 3],
        dx: &mut [f32],
    ) {
        check(geometry, sides, dx.len(), dy.len(), weight.len());
        if dx.is_empty() {
            return;
        }
        match by_winograd(geometry, sides) {
            true if has_few_weights(sides) => {
                self.winograd_input_gradient_by_tiles(dy, geometry, weight, sides, dx);
            }
            true => self.winograd_input_gradient(dy, geometry, weight, sides, dx),
            false => self.direct_input_gradient(dy, geometry, weight, sides, dx),
        }
    }

    /// The gradient of a convolution's weight, `dw` `[outputs, inputs, kernel, kernel]`, from its
    /// input `x` `[images, height, width, inputs]` and the gradient of its output, `dy`
    /// `[images, output height, output width, outputs]`; `sides` is `[outputs, inputs, kernel]`.
    ///
    /// # Panics
    /// If a length does not fit, or `kernel` is neither 1 nor 3.
    pub fn convolution_weight_gradient(
        &self,
        x: &[f32],
        dy: &[f32],
        geometry: &Convolution,
        sides: [usize; 3],
        dw: &mut [f32],
    ) {
        check(geometry, sides, x.len(), dy.len(), dw.len());
        if dy.is_empty() {
            dw.fill(0.0);
            return;
        }
        let [outputs, inputs, _] = sides;
        let winograd = by_winograd(geometry, sides);
        let columns = inputs.div_ceil(COLUMNS);
        let rows = weight::rows_in_task(outputs, columns);
        let groups = outputs.div_ceil(rows);
        let dw = Output::new(dw);
        threads::for_each(groups * columns, |index| {
            let task = weight::WeightTask {
                geometry,
                sides,
                x,
                dy,
                outputs: piece(outputs, rows, index % groups),
                inputs: piece(inputs, COLUMNS, index / groups),
            };
            match winograd {
                true => self.winograd_weight_gradient(&task, dw),
                false => self.direct_weight_gradient(&task, dw),
            }
        });
    }
}

/// Whether both gradients go through Winograd's transforms: a function of one image's shapes.
pub(super) fn by_winograd(geometry: &Convolution, sides: [usize; 3]) -> bool {
    let [outputs, inputs, kernel] = sides;
    let cells = match has_few_weights(sides) {
        true => FEW_WEIGHTS_CELLS,
        false => WINOGRAD_CELLS,
    };
    kernel == 3
        && geometry.stride == 1
        && geometry.padding == Padding::all(1)
        && geometry.height * geometry.width >= cells
        && outputs.min(inputs) >= WINOGRAD_CHANNELS
}

fn has_few_weights([outputs, inputs, _]: [usize; 3]) -> bool {
    outputs * inputs <= FEW_WEIGHTS
}

/// Panics if a length does not fit, or there is no such kernel.
fn check(
    geometry: &Convolution,
    [outputs, inputs, kernel]: [usize; 3],
    x: usize,
    dy: usize,
    weight: usize,
) {
    assert!([1, 3].contains(&kernel), "a kernel of {kernel} by {kernel}");
    let pixels = geometry.images * geometry.height * geometry.width;
    assert_eq!(x, pixels * inputs, "length of x");
    let expected = outputs * inputs * kernel * kernel;
    assert_eq!(weight, expected, "length of weight");
    let seen = match pixels {
        0 => 0,
        _ => {
            let (height, width) = geometry.output(kernel);
            geometry.images * height * width
        }
    };
    assert_eq!(dy, seen * outputs, "length of dy");
}
