//! The reverse of one unit: which kernel, on which slices.

use std::sync::Arc;

use cleandift_kernels::{Attention, Convolution, Gate, Kernels};
use rayon::prelude::*;

use super::moves;
use crate::engine::cpu::distance::distance_gradient;
use crate::engine::cpu::moves as forward;
use crate::graph::{Node, Operation, Padding, Parameters, ReadError, Shape};

/// Parameters as they are stored, read one at a time into the same memory.
pub(super) struct Stored<'p> {
    parameters: &'p dyn Parameters,
    values: Vec<f32>,
}

impl<'p> Stored<'p> {
    pub fn new(parameters: &'p dyn Parameters) -> Self {
        let values = Vec::new();
        Self { parameters, values }
    }

    fn read(&mut self, node: &Node, place: usize) -> Result<Values<'_>, ReadError> {
        let name = &node.parameters[place].name;
        if let Some(values) = self.parameters.lend(name) {
            return Ok(Values::Lent(values));
        }
        self.parameters.read_into(name, &mut self.values)?;
        Ok(Values::Read(&self.values))
    }
}

/// A parameter's values: the store's own, or read from it. To be dropped before the parameter is
/// changed.
enum Values<'s> {
    Lent(Arc<Vec<f32>>),
    Read(&'s [f32]),
}

impl std::ops::Deref for Values<'_> {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        match self {
            Self::Lent(values) => values,
            Self::Read(values) => values,
        }
    }
}

/// One unit on its way back.
pub(super) struct Reverse<'c> {
    pub kernels: &'static Kernels,
    pub node: &'c Node,
    /// Whether a SiLU follows a group norm.
    pub silu: bool,
    /// Images of the result: 1 if all share it.
    pub images: usize,
    /// The inputs' shapes, per image.
    pub shapes: Vec<Shape>,
    /// The inputs' values; empty where they are not needed.
    pub inputs: Vec<&'c [f32]>,
    /// The result's gradient.
    pub dy: &'c [f32],
}

/// Where a gradient is written, if it is wanted.
pub(super) type Slice<'a> = Option<&'a mut [f32]>;

impl Reverse<'_> {
    /// Writes the gradients of the inputs and of the parameters.
    pub fn run(
        &self,
        stored: &mut Stored,
        dinputs: &mut [Slice],
        dparameters: &mut [Slice],
    ) -> Result<(), ReadError> {
        let (kernels, dy) = (self.kernels, self.dy);
        let channels = self.node.shape.channels;
        match &self.node.operation {
            Operation::Constant => copy(dy, &mut dparameters[0]),
            Operation::Convolution {
                kernel,
                stride,
                padding,
            } if (*kernel, *stride) != (1, 1) => {
                let geometry = self.geometry(*kernel, *stride, *padding);
                let sides = [channels, self.shapes[0].channels, *kernel];
                if let Some(dw) = &mut dparameters[0] {
                    let x = self.inputs[0];
                    kernels.convolution_weight_gradient(x, dy, &geometry, sides, dw);
                }
                self.bias(dparameters);
                if let Some(dx) = &mut dinputs[0] {
                    let weight = stored.read(self.node, 0)?;
                    kernels.convolution_input_gradient(dy, &geometry, &weight, sides, dx);
                }
            }
            // A 1x1 convolution is a linear map, stored alike.
            Operation::Linear | Operation::Convolution { .. } => {
                let inputs = self.shapes[0].channels;
                if let Some(dw) = &mut dparameters[0] {
                    kernels.product_weight_gradient(self.inputs[0], dy, inputs, channels, dw);
                }
                self.bias(dparameters);
                if let Some(dx) = &mut dinputs[0] {
                    let weight = stored.read(self.node, 0)?;
                    kernels.product_input_gradient(dy, &weight, channels, inputs, dx);
                }
            }
            Operation::GroupNorm { .. } | Operation::LayerNorm { .. } => {
                self.norm(stored, dinputs, dparameters)?;
            }
            Operation::RmsNorm { epsilon } => {
                let [Some(dx), Some(dscale)] = dinputs else {
                    unreachable!("the kernel writes both")
                };
                let (shape, epsilon) = (self.stack(), *epsilon as f32);
                let (x, scale) = (self.inputs[0], self.inputs[1]);
                kernels.rms_norm_gradient(x, shape, scale, epsilon, dy, dx, dscale);
            }
            Operation::Attention { heads, causal } => self.attention(*heads, *causal, dinputs),
            Operation::Add => {
                for (dx, shape) in dinputs.iter_mut().zip(&self.shapes) {
                    if let Some(dx) = dx {
                        self.fold(dx, shape.size());
                    }
                }
            }
            Operation::Embedding => {
                if let Some(table) = &mut dparameters[0] {
                    let row = table.len() / self.node.parameters[0].shape[0];
                    table.fill(0.0);
                    moves::embedding(self.inputs[0], dy, row, table);
                }
            }
            Operation::Multiply | Operation::Concatenate | Operation::Distance(_) => {
                self.pair(dinputs);
            }
            Operation::Silu
            | Operation::Gelu
            | Operation::QuickGelu
            | Operation::GatedGelu
            | Operation::GatedSilu => self.activation(dinputs),
            _ => self.single(stored, dinputs)?,
        }
        Ok(())
    }

    fn bias(&self, dparameters: &mut [Slice]) {
        if let Some(Some(db)) = dparameters.get_mut(1) {
            self.kernels.row_sums(self.dy, self.node.shape.channels, db);
        }
    }

    fn norm(
        &self,
        stored: &mut Stored,
        dinputs: &mut [Slice],
        dparameters: &mut [Slice],
    ) -> Result<(), ReadError> {
        let ([Some(dx)], [Some(dw), Some(db)]) = (dinputs, dparameters) else {
            unreachable!("the kernels write all")
        };
        let (kernels, x, dy) = (self.kernels, self.inputs[0], self.dy);
        let weight = stored.read(self.node, 0)?;
        match self.node.operation {
            Operation::GroupNorm { groups, epsilon } => {
                let (shape, epsilon, silu) = (self.stack(), epsilon as f32, self.silu);
                let weight = weight.to_vec();
                let bias = stored.read(self.node, 1)?;
                kernels.group_norm_gradient(
                    x, shape, groups, epsilon, &weight, &bias, silu, dy, dx, dw, db,
                );
            }
            Operation::LayerNorm { epsilon } => {
                kernels.layer_norm_gradient(x, &weight, epsilon as f32, dy, dx, dw, db);
            }
            _ => unreachable!("there are two such norms"),
        }
        Ok(())
    }

    fn attention(&self, heads: usize, causal: bool, dinputs: &mut [Slice]) {
        let [Some(dq), Some(dk), Some(dv)] = dinputs else {
            unreachable!("the kernel writes all")
        };
        let shape = Attention {
            images: self.images,
            queries: self.shapes[0].cells(),
            keys: self.shapes[1].cells(),
            heads,
            head_size: self.shapes[0].channels / heads,
            causal,
        };
        let [q, k, v] = self.inputs[..] else {
            unreachable!("attention has three inputs")
        };
        self.kernels
            .attention_gradient(&shape, q, k, v, self.dy, dq, dk, dv);
    }

    /// The gradient of a term of a sum, of `size` values per image: that of the sum, added up over
    /// what the term served: cells, images, or both.
    fn fold(&self, dx: &mut [f32], size: usize) {
        let (kernels, dy) = (self.kernels, self.dy);
        if dx.len() == dy.len() {
            dx.copy_from_slice(dy);
        } else if dx.len() == size {
            kernels.row_sums(dy, size, dx);
        } else {
            let images = dy.par_chunks_exact(self.node.shape.size());
            let images = images.zip(dx.par_chunks_exact_mut(size));
            images.for_each(|(dy, dx)| kernels.row_sums(dy, size, dx));
        }
    }

    /// Operations of two inputs, image by image; a gradient of what the images share is the sum.
    fn pair(&self, dinputs: &mut [Slice]) {
        for (place, dx) in dinputs.iter_mut().enumerate() {
            let Some(dx) = dx else { continue };
            let (size, channels) = (self.shapes[place].size(), self.shapes[place].channels);
            dx.fill(0.0);
            for (image, dy) in self.dy.chunks_exact(self.node.shape.size()).enumerate() {
                let start = if dx.len() == size { 0 } else { image * size };
                let dx = &mut dx[start..start + size];
                let other = self.image(1 - place, image);
                match self.node.operation {
                    Operation::Multiply => moves::multiply(other, dy, dx),
                    Operation::Distance(distance) => {
                        let x = self.image(place, image);
                        distance_gradient(distance, x, other, channels, dy[0], dx);
                    }
                    _ => {
                        let from = if place == 0 {
                            0
                        } else {
                            self.shapes[0].channels
                        };
                        moves::part(dy, self.node.shape.channels, from, channels, dx);
                    }
                }
            }
        }
    }

    /// One image's part of an input; empty if it is not read.
    fn image(&self, place: usize, image: usize) -> &[f32] {
        let (input, size) = (self.inputs[place], self.shapes[place].size());
        if input.len() <= size {
            input
        } else {
            &input[image * size..(image + 1) * size]
        }
    }

    fn activation(&self, dinputs: &mut [Slice]) {
        let [Some(dx)] = dinputs else { return };
        let (kernels, x, dy) = (self.kernels, self.inputs[0], self.dy);
        let channels = self.node.shape.channels;
        match self.node.operation {
            Operation::Silu => kernels.silu_gradient(x, dy, dx),
            Operation::Gelu => kernels.gelu_gradient(x, dy, dx),
            Operation::QuickGelu => kernels.quick_gelu_gradient(x, dy, dx),
            Operation::GatedGelu => kernels.gated_gradient(x, channels, Gate::Gelu, dy, dx),
            _ => kernels.gated_gradient(x, channels, Gate::Silu, dy, dx),
        }
    }

    /// The other operations of one input, image by image.
    fn single(&self, stored: &mut Stored, dinputs: &mut [Slice]) -> Result<(), ReadError> {
        let [Some(dx)] = dinputs else { return Ok(()) };
        let (x, dy) = (self.inputs[0], self.dy);
        let (from, to) = (self.shapes[0], self.node.shape);
        let frequencies = match self.node.operation {
            Operation::FourierFeatures => stored.read(self.node, 0)?,
            _ => Values::Read(&[]),
        };
        let images = dy
            .par_chunks_exact(to.size())
            .zip(dx.par_chunks_exact_mut(from.size()));
        images
            .enumerate()
            .for_each(|(image, (dy, dx))| match &self.node.operation {
                Operation::Upsample => moves::upsample(dy, from, to, dx),
                Operation::Slice { from: first } => {
                    moves::widen(dy, to.channels, *first, from.channels, dx);
                }
                Operation::Affine { factor, .. } => {
                    forward::affine(dy, to.channels, factor, &[0.0], dx);
                }
                Operation::PixelUnshuffle { factor } => {
                    forward::pixel_shuffle(dy, from, *factor, dx);
                }
                Operation::PixelShuffle { factor } => {
                    forward::pixel_unshuffle(dy, to, *factor, dx);
                }
                Operation::TimeFeatures => dx[0] = moves::time_features(x[image], dy),
                Operation::FourierFeatures => {
                    dx[0] = moves::fourier_features(x[image], &frequencies, dy);
                }
                other => unreachable!("{other:?} is reversed elsewhere"),
            });
        Ok(())
    }

    fn geometry(&self, kernel: usize, stride: usize, padding: Padding) -> Convolution {
        let padding = match padding {
            Padding::Same => cleandift_kernels::Padding::all((kernel - 1) / 2),
            Padding::RightBottom => cleandift_kernels::Padding {
                bottom: 1,
                right: 1,
                ..cleandift_kernels::Padding::default()
            },
        };
        Convolution {
            images: self.images,
            height: self.shapes[0].height,
            width: self.shapes[0].width,
            stride,
            padding,
        }
    }

    fn stack(&self) -> cleandift_kernels::Shape {
        cleandift_kernels::Shape {
            images: self.images,
            pixels: self.node.shape.cells(),
            channels: self.node.shape.channels,
        }
    }
}

fn copy(dy: &[f32], into: &mut Slice) {
    if let Some(into) = into {
        into.copy_from_slice(dy);
    }
}
