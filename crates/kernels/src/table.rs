//! The table of an instruction set, and the choice among them.

use crate::activation::{Activation, Gate};
use crate::attention::Softmax;
use crate::backward::attention::SoftmaxGradient;
use crate::backward::conv::planes::Planes;
use crate::backward::gemm::{OuterProducts, RowsToPack};
use crate::backward::norm::group::{GroupNorm, GroupSlopes};
use crate::backward::norm::rows::RowNorm;
use crate::backward::norm::sums::Sums;
use crate::backward::optimiser::{AdamFactors, Parameters};
use crate::backward::winograd::kernel::{KernelsToPoints, PointsToKernels};
use crate::backward::winograd::{Results, Side, Strip};
use crate::gemm::Block;
use crate::group_norm::Run;
use crate::half::Half;
use crate::isa;
use crate::norm::LayerNorm;
use crate::packed::PanelRows;
use crate::winograd::{Pixels, Products, Taps, Winograd};

/// The functions of one instruction set.
///
/// A table can only be had on a machine that can run it, which is what the bodies' pointers rest
/// on.
pub struct Kernels {
    pub(crate) name: &'static str,
    pub(crate) available: fn() -> bool,
    /// Floats in a vector.
    pub(crate) lanes: usize,
    /// Outputs in a panel of packed weights.
    pub(crate) panel_width: usize,
    pub(crate) product: unsafe fn(&Block<'_>),
    pub(crate) write_panel: unsafe fn(PanelRows<'_>),
    pub(crate) widen: unsafe fn(Half, &[u16], &mut [f32]),
    pub(crate) pairs: Option<PairFunctions>,
    pub(crate) winograd_kernel: unsafe fn(Winograd, &Taps),
    pub(crate) winograd_input: unsafe fn(Winograd, &Pixels),
    pub(crate) winograd_output: unsafe fn(Winograd, &Products<'_>),
    pub(crate) softmax: unsafe fn(&mut Softmax<'_>),
    pub(crate) moments: unsafe fn(&[f32], &mut [f64]),
    pub(crate) copy_pixels: unsafe fn(Run<'_>),
    pub(crate) layer_norm: unsafe fn(&[f32], &LayerNorm<'_>, &mut [f32]),
    pub(crate) rms_norm: unsafe fn(&[f32], &[f32], f32, &mut [f32]),
    pub(crate) activate: unsafe fn(Activation, &[f32], &mut [f32]),
    pub(crate) gated: unsafe fn(Gate, usize, &[f32], &mut [f32]),
    pub(crate) add: unsafe fn(&[f32], &[f32], &mut [f32]),
    pub(crate) outer_products: unsafe fn(&OuterProducts<'_>),
    pub(crate) pack_rows: unsafe fn(RowsToPack<'_>),
    pub(crate) winograd_transform: unsafe fn(Side, Strip<'_>),
    pub(crate) winograd_results: unsafe fn(Results<'_>),
    pub(crate) planes: unsafe fn(&[f32], usize, &mut Planes),
    pub(crate) kernels_to_points: unsafe fn(KernelsToPoints<'_>),
    pub(crate) points_to_kernels: unsafe fn(PointsToKernels<'_>),
    pub(crate) softmax_gradient: unsafe fn(SoftmaxGradient<'_>),
    pub(crate) row_sums: unsafe fn(&[f32], &mut Sums),
    pub(crate) row_norm_gradient: unsafe fn(&[f32], &[f32], &RowNorm<'_>, &mut [f32], &mut Sums),
    pub(crate) distance_sums: unsafe fn(&[f32], &[f32], &mut Sums),
    pub(crate) group_norm_sums: unsafe fn(&[f32], &[f32], &GroupNorm<'_>, &mut [f32], &mut Sums),
    pub(crate) group_norm_gradient: unsafe fn(&[f32], &GroupNorm<'_>, &GroupSlopes, &mut [f32]),
    pub(crate) activation_gradient: unsafe fn(Activation, &[f32], &[f32], &mut [f32]),
    pub(crate) gated_gradient: unsafe fn(Gate, usize, &[f32], &[f32], &mut [f32]),
    pub(crate) accumulate: unsafe fn(&[f32], &mut [f32]),
    pub(crate) adam: unsafe fn(&AdamFactors, Parameters<'_>),
    pub(crate) chains: unsafe fn(usize) -> f32,
    pub(crate) read: unsafe fn(&[f32]) -> f32,
}

/// Products of bf16, where an instruction set has them; some of its machines do not.
pub(crate) struct PairFunctions {
    pub(crate) available: fn() -> bool,
    pub(crate) product: unsafe fn(&Block<'_>),
    pub(crate) round: unsafe fn(*const f32, usize, *mut f32),
}

impl std::fmt::Debug for Kernels {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Kernels").field(&self.name).finish()
    }
}

impl Kernels {
    /// The fastest table that this machine can run.
    pub fn best() -> &'static Kernels {
        Self::all()[0]
    }

    /// The tables that this machine can run, fastest first; the last is "portable".
    pub fn all() -> Vec<&'static Kernels> {
        isa::TABLES
            .iter()
            .copied()
            .filter(|table| (table.available)())
            .collect()
    }

    /// The names of all tables in this binary, whether the machine can run them or not.
    pub fn known() -> impl Iterator<Item = &'static str> {
        isa::TABLES.iter().map(|table| table.name)
    }

    /// The table called "portable", "avx2" or "avx512", if this machine can run it.
    pub fn by_name(name: &str) -> Option<&'static Kernels> {
        Self::all().into_iter().find(|table| table.name == name)
    }

    /// Whether this machine has products of bf16 in this instruction set.
    pub fn has_bf16(&self) -> bool {
        self.pairs.as_ref().is_some_and(|pairs| (pairs.available)())
    }

    /// The name of the instruction set.
    pub fn name(&self) -> &'static str {
        self.name
    }
}

/// The extent of a stack of maps, `[image][pixel][channel]`; for tokens a pixel is a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Maps in the stack.
    pub images: usize,
    /// Pixels (rows times columns) in a map.
    pub pixels: usize,
    /// Values in a pixel.
    pub channels: usize,
}

impl Shape {
    /// Values in the stack.
    pub fn len(&self) -> usize {
        self.images * self.pixels * self.channels
    }

    /// Whether there is no value at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The row of channels that `rows` has for an image: one each, or one for all.
    ///
    /// # Panics
    /// If `rows` is neither.
    pub(crate) fn rows_of<'a>(self, rows: &'a [f32]) -> impl Fn(usize) -> &'a [f32] + Send + Sync {
        let shared = rows.len() == self.channels;
        assert!(
            shared || rows.len() == self.images * self.channels,
            "{} values are neither a row of {} channels nor one for each of {} images",
            rows.len(),
            self.channels,
            self.images
        );
        move |image| {
            let first = if shared { 0 } else { image * self.channels };
            &rows[first..][..self.channels]
        }
    }
}
