//! One node's computation: which kernel, on which slices.

use std::ops::Range;
use std::sync::Arc;

use cleandift_kernels::{
    Added, Attention, Convolution, Gate, Kernels, Layer, Maps, Moments, Normalisation,
};

use rayon::prelude::*;

use super::Arithmetic;
use super::fuse::Form;
use super::prepare::Prepared;
use super::{distance, moves};
use crate::graph::{Node, Operation, Padding, Shape};

/// One kernel call.
pub(super) struct Call<'c> {
    pub kernels: &'static Kernels,
    /// What attention multiplies; other products follow their weights.
    pub arithmetic: Arithmetic,
    pub node: &'c Node,
    pub images: usize,
    /// The inputs' shapes, per image.
    pub shapes: Vec<Shape>,
    pub inputs: Vec<&'c [f32]>,
    pub prepared: Option<Arc<Prepared>>,
    /// The form of what is prepared: the algorithm.
    pub form: Form,
    /// A group norm: of the first input, or the step itself.
    pub norm: Option<Normalisation>,
    /// Added to each cell of the result.
    pub vector: Option<&'c [f32]>,
    /// Added to the result.
    pub residual: Option<&'c [f32]>,
}

impl Call<'_> {
    /// Computes the result and, if wanted, its moments.
    pub fn run(&self, moments: Option<&mut Moments>, out: &mut [f32]) {
        let (kernels, shape) = (self.kernels, self.node.shape);
        let x = || self.inputs[0];
        match &self.node.operation {
            Operation::Input(_) => unreachable!("inputs are given"),
            Operation::Constant => out.copy_from_slice(&self.plain()[0]),
            Operation::Convolution {
                kernel,
                stride,
                padding,
            } => match (self.form, kernel, stride) {
                (Form::Small(_) | Form::Large(_), ..) => self.winograd(moments, out),
                (_, 1, 1) => self.product(out),
                _ => self.convolution(*kernel, *stride, *padding, out),
            },
            Operation::Linear => self.product(out),
            Operation::Attention { heads, causal } => self.attention(*heads, *causal, out),
            Operation::GroupNorm { .. } => {
                let norm = self.norm.as_ref().expect("a group norm has its factors");
                kernels.normalise(x(), self.stack(), norm, out);
            }
            Operation::LayerNorm { epsilon } => {
                let [weight, bias] = self.pair();
                kernels.layer_norm(x(), weight, bias, *epsilon as f32, out);
            }
            Operation::RmsNorm { epsilon } => {
                let scale = self.inputs[1];
                kernels.rms_norm(x(), self.stack(), scale, *epsilon as f32, out);
            }
            Operation::Silu => kernels.silu(x(), out),
            Operation::Gelu => kernels.gelu(x(), out),
            Operation::QuickGelu => kernels.quick_gelu(x(), out),
            Operation::GatedGelu => kernels.gated(x(), shape.channels, Gate::Gelu, out),
            Operation::GatedSilu => kernels.gated(x(), shape.channels, Gate::Silu, out),
            Operation::Add => kernels.add(x(), self.stack(), self.inputs[1], out),
            _ => self.each_image(out, |node, inputs, out| self.movement(node, inputs, out)),
        }
    }

    fn movement(&self, node: &Node, inputs: &[&[f32]], out: &mut [f32]) {
        let (from, to) = (self.shapes[0], node.shape);
        let x = inputs[0];
        match &node.operation {
            Operation::Multiply => moves::multiply(x, inputs[1], to.channels, out),
            Operation::Concatenate => {
                moves::concatenate(x, from.channels, inputs[1], self.shapes[1].channels, out);
            }
            Operation::Slice { from: first } => {
                moves::slice(x, from.channels, *first, to.channels, out);
            }
            Operation::Affine { factor, shift } => {
                moves::affine(x, to.channels, factor, shift, out);
            }
            Operation::Upsample => moves::upsample(x, from, to, out),
            Operation::Embedding => {
                let table = &self.plain()[0];
                moves::embedding(x, table, table.len() / node.parameters[0].shape[0], out);
            }
            Operation::TimeFeatures => moves::time_features(x[0], out),
            Operation::FourierFeatures => moves::fourier_features(x[0], &self.plain()[0], out),
            Operation::PixelUnshuffle { factor } => moves::pixel_unshuffle(x, from, *factor, out),
            Operation::PixelShuffle { factor } => moves::pixel_shuffle(x, to, *factor, out),
            Operation::Distance(distance) => {
                out[0] = distance::distance(*distance, x, inputs[1], from.channels);
            }
            other => unreachable!("{other:?} has a kernel"),
        }
    }

    /// Calls `f` with each image's part of the inputs and of the result. An input that all images
    /// share is passed to each.
    fn each_image(&self, out: &mut [f32], f: impl Fn(&Node, &[&[f32]], &mut [f32]) + Sync) {
        let images = out.par_chunks_exact_mut(self.node.shape.size());
        images.enumerate().for_each(|(image, out)| {
            let part = |(input, shape): (&&'_ [f32], &Shape)| -> Range<usize> {
                let size = shape.size();
                if input.len() == size {
                    0..size
                } else {
                    image * size..(image + 1) * size
                }
            };
            let inputs: Vec<&[f32]> = self
                .inputs
                .iter()
                .zip(&self.shapes)
                .map(|pair| &pair.0[part(pair)])
                .collect();
            f(self.node, &inputs, out);
        });
    }

    /// A convolution by one of Winograd's algorithms.
    fn winograd(&self, moments: Option<&mut Moments>, out: &mut [f32]) {
        let from = self.shapes[0];
        let prepared = self.prepared.as_deref();
        let bias = match prepared {
            Some(Prepared::Matrix { bias, .. } | Prepared::Transformed { bias, .. }) => bias,
            _ => unreachable!("a convolution has a weight"),
        };
        let bias = add_to_each(self.vector, bias.as_deref());
        let layer = Layer {
            x: self.inputs[0],
            maps: Maps {
                images: self.images,
                height: from.height,
                width: from.width,
            },
            norm: self.norm.as_ref(),
            bias: bias.as_deref(),
            residual: self.residual,
        };
        match (self.form, prepared) {
            (Form::Small(kind), Some(Prepared::Matrix { weight, .. })) => self
                .kernels
                .convolution_winograd_small(kind, &layer, weight, moments, out),
            (_, Some(Prepared::Transformed { weight, .. })) => self
                .kernels
                .convolution_winograd(&layer, weight, moments, out),
            _ => unreachable!("the weight is prepared in the form that was chosen"),
        }
    }

    /// A linear map of each cell: what a convolution with one tap is, too.
    fn product(&self, out: &mut [f32]) {
        let (weight, bias) = self.matrix();
        let residual = self.residual;
        self.kernels
            .product(self.inputs[0], weight, Added { bias, residual }, out);
    }

    fn convolution(&self, kernel: usize, stride: usize, padding: Padding, out: &mut [f32]) {
        let from = self.shapes[0];
        let (weight, bias) = self.matrix();
        let padding = match padding {
            Padding::Same => cleandift_kernels::Padding::all((kernel - 1) / 2),
            Padding::RightBottom => cleandift_kernels::Padding {
                top: 0,
                left: 0,
                bottom: 1,
                right: 1,
            },
        };
        let geometry = Convolution {
            images: self.images,
            height: from.height,
            width: from.width,
            stride,
            padding,
        };
        let residual = self.residual;
        let added = Added { bias, residual };
        self.kernels
            .convolution(self.inputs[0], &geometry, weight, added, out);
    }

    fn attention(&self, heads: usize, causal: bool, out: &mut [f32]) {
        let (queries, keys) = (self.shapes[0], self.shapes[1]);
        let shape = Attention {
            images: self.images,
            queries: queries.cells(),
            keys: keys.cells(),
            heads,
            head_size: queries.channels / heads,
            causal,
        };
        let [q, k, v] = self.inputs[..] else {
            unreachable!("attention has three inputs")
        };
        match self.arithmetic {
            Arithmetic::F32 => self.kernels.attention(&shape, q, k, v, out),
            Arithmetic::Bf16 => self.kernels.attention_bf16(&shape, q, k, v, out),
        }
    }

    /// The result's shape, for kernels that work on a whole batch.
    fn stack(&self) -> cleandift_kernels::Shape {
        let Shape { channels, .. } = self.node.shape;
        cleandift_kernels::Shape {
            images: self.images,
            pixels: self.node.shape.cells(),
            channels,
        }
    }

    fn matrix(&self) -> (&cleandift_kernels::PackedMatrix, Option<&[f32]>) {
        match self.prepared.as_deref() {
            Some(Prepared::Matrix { weight, bias }) => (weight, bias.as_deref()),
            _ => unreachable!("convolutions and linear maps have matrices"),
        }
    }

    fn plain(&self) -> &[Vec<f32>] {
        match self.prepared.as_deref() {
            Some(Prepared::Plain(values)) => values,
            _ => unreachable!("the operation has plain parameters"),
        }
    }

    fn pair(&self) -> [&[f32]; 2] {
        self.prepared
            .as_deref()
            .expect("a norm has parameters")
            .pair()
    }
}

/// A bias added to each of some vectors, one for all images or one for each.
fn add_to_each(vectors: Option<&[f32]>, bias: Option<&[f32]>) -> Option<Vec<f32>> {
    match (vectors, bias) {
        (Some(vectors), Some(bias)) => {
            let sums = vectors.iter().zip(bias.iter().cycle());
            Some(sums.map(|(vector, bias)| vector + bias).collect())
        }
        (vector, bias) => vector.or(bias).map(<[f32]>::to_vec),
    }
}
