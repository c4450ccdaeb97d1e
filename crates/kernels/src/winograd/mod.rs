//! 3x3 convolution, stride 1, by Winograd's algorithms: a quarter of the multiplications.
//!
//! A tile of pixels and a kernel are seen as polynomials in two variables and multiplied at
//! points, where a product of polynomials is a product of numbers:
//! `out = Aᵀ [(G w Gᵀ) · (Bᵀ x B)] A`, where `·` is, at each point, a product of matrices over all
//! tiles, inputs and outputs. (Lavin and Gray, arXiv 1509.09308.) Per output and input, direct
//! convolution takes 9 multiplications, F(4x4, 3x3) 36 for 16 outputs, F(2x2, 3x3) 16 for 4. A
//! third transform convolves a map enlarged to twice its size by nearest neighbours, which never
//! exists: 36 for 16 as well. In f32 the rounding error of F(4x4) is three to four times that of
//! direct convolution, that of the other two is smaller than it; with half-precision operands
//! F(4x4) would be too coarse. `transform` has the three.
//!
//! # Two ways through memory
//!
//! *By tiles: large maps, and few weights.* A task has a block of at most [`grid::BLOCK`] tiles, of one
//! image, or all tiles of some images where maps are small. For [`maps::CHUNK`]
//! channels at a time, the block's pixels and a border around them are copied to a small scratch,
//! zeros where the map ends; if a group norm and SiLU stand before the convolution, they are applied
//! on the way, once for each pixel. Its tiles are transformed to `[point][tile][input]`. Then each
//! point's rows are multiplied with that point's weights, kept transformed in memory
//! ([`WinogradWeights`]), and the products of each tile are transformed back, with bias and residual
//! added and the sums gathered that the next group norm will want.
//!
//! *By outputs: small maps with many weights.* Where a map has few tiles, layers are wide:
//! transformed weights would take gigabytes and be read from memory for a handful of tiles. There the pixels of all
//! tiles are transformed first; then a task has one panel of outputs, and transforms the weights of
//! some inputs ([`PackedMatrix`], as for direct
//! convolution) into the second cache just before
//! multiplying them with all tiles. That costs about 100 instructions for 16 weights, against 36
//! products for each tile.
//!
//! The points' rows begin a cache line apart from a multiple of the page size: else all 36 would
//! fall on the same few lines of the first cache. Inputs are never split among threads, and a tile's
//! arithmetic does not depend on its neighbours: the same bits for any cut.

mod by_outputs;
mod by_tiles;
mod grid;
mod maps;
mod transform;

use crate::Kernels;
use crate::memory::Buffer;
use crate::packed::{PackedMemory, PanelRows};
use crate::threads::{self, Output, piece};

pub(crate) use transform::{Pixels, Products, Taps, input_body, kernel_body, output_body};

/// An algorithm for a 3x3 convolution of stride 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Winograd {
    /// F(4x4, 3x3).
    Four,
    /// F(2x2, 3x3).
    Two,
    /// Four by four outputs of a map that is first enlarged to twice its height and width by
    /// nearest neighbours.
    Upsampled,
}

/// Weights of a 3x3 convolution at the points, `[point][panel][input][output in the panel]`, for
/// one instruction set.
#[derive(Clone, Debug)]
pub struct WinogradWeights {
    kind: Winograd,
    panels: Buffer,
    outputs: usize,
    inputs: usize,
    panel_width: usize,
    table: &'static str,
}

impl WinogradWeights {
    /// Memory that they take.
    pub fn bytes(&self) -> usize {
        size_of_val::<[f32]>(&self.panels)
    }

    /// Gives up the weights but for their memory.
    pub fn into_memory(self) -> PackedMemory {
        PackedMemory(self.panels)
    }

    pub(crate) fn into_panels(self) -> Buffer {
        self.panels
    }

    /// Floats of one point's weights.
    fn point(&self) -> usize {
        self.outputs.next_multiple_of(self.panel_width) * self.inputs
    }
}

impl Kernels {
    /// Memory that the weights of a 3x3 convolution will take at the points.
    pub fn winograd_bytes(&self, kind: Winograd, outputs: usize, inputs: usize) -> usize {
        outputs.next_multiple_of(self.panel_width) * inputs * kind.points() * size_of::<f32>()
    }

    /// Transforms the weight `[outputs, inputs, 3, 3]` of a convolution.
    ///
    /// # Panics
    /// If the length of `weight` is another, or `inputs` is 0.
    pub fn pack_winograd(
        &self,
        kind: Winograd,
        weight: &[f32],
        outputs: usize,
        inputs: usize,
    ) -> WinogradWeights {
        self.pack_winograd_in(None, kind, weight, outputs, inputs)
    }

    /// The same, in the memory of a weight that is not needed any more, if that is large enough.
    ///
    /// # Panics
    /// As [`Kernels::pack_winograd`].
    pub fn pack_winograd_in(
        &self,
        memory: Option<PackedMemory>,
        kind: Winograd,
        weight: &[f32],
        outputs: usize,
        inputs: usize,
    ) -> WinogradWeights {
        assert_eq!(weight.len(), outputs * inputs * 9, "length of weight");
        assert!(inputs > 0, "a weight without inputs");
        let width = self.panel_width;
        let size = self.winograd_bytes(kind, outputs, inputs) / size_of::<f32>();
        let panels = PackedMemory::or_new(memory, size);
        let mut packed = self.winograd_weights(kind, panels, outputs, inputs);
        let point = packed.point();
        let to = Output::new(&mut packed.panels);
        threads::for_each(outputs.div_ceil(width), |panel| {
            let rows = piece(outputs, width, panel);
            let rows = &weight[rows.start * inputs * 9..rows.end * inputs * 9];
            threads::with_scratch(9 * inputs * width, |taps| {
                taps.fill(0.0);
                let task = PanelRows {
                    rows,
                    row: 9 * inputs,
                    count: rows.len() / (9 * inputs),
                    inputs,
                    taps: 9,
                    first: 0,
                    panel: taps,
                };
                // SAFETY: this machine has this table's instruction set.
                unsafe { (self.write_panel)(task) };
                let taps = Taps {
                    from: taps.as_ptr(),
                    tap: inputs * width,
                    count: inputs * width,
                    // SAFETY: a panel is inside a point's weights, and this task's alone.
                    to: unsafe { to.at(panel * inputs * width) },
                    point,
                };
                // SAFETY: this machine has this table's instruction set; `taps` has nine times
                // `inputs * width` floats, like each point's panel.
                unsafe { (self.winograd_kernel)(kind, &taps) };
            });
        });
        packed
    }

    /// Weights whose panels are written, or will be.
    pub(crate) fn winograd_weights(
        &self,
        kind: Winograd,
        panels: Buffer,
        outputs: usize,
        inputs: usize,
    ) -> WinogradWeights {
        WinogradWeights {
            kind,
            panels,
            outputs,
            inputs,
            panel_width: self.panel_width,
            table: self.name,
        }
    }
}
