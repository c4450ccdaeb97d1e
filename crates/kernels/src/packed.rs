//! Packed weights: the order in which products and direct convolutions read them, and the precision
//! in which they are kept.

use crate::Kernels;
use crate::gemm::PIECE;
use crate::half::{self, Half};
use crate::simd::{MOST_LANES, PANEL_VECTORS, Simd};
use crate::threads::piece;
use rayon::prelude::*;
use std::ops::Range;

/// Weights in the order in which [`Kernels::product`] and [`Kernels::convolution`] read them, for
/// one instruction set.
///
/// `[panel][tap][input][output in the panel]`; the last panel is filled up with zeros.
#[derive(Clone, Debug)]
pub struct PackedMatrix {
    stored: Stored,
    outputs: usize,
    inputs: usize,
    kernel: usize,
    panel_width: usize,
    table: &'static str,
}

/// The memory of a packed weight, for another one.
#[derive(Debug)]
pub struct PackedMemory(Panels);

impl PackedMemory {
    /// Its size.
    pub fn bytes(&self) -> usize {
        size_of_val::<[f32]>(&self.0)
    }
}

/// The numbers of all panels.
#[derive(Clone, Debug)]
pub(crate) enum Stored {
    Single(Panels),
    Half(Half, Vec<u16>),
    /// Two inputs of an output in a float's room, rounded to bf16.
    Pairs(Panels),
}

impl PackedMatrix {
    /// Rows of the weight: channels that come out.
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// Channels that go in; a convolution reduces over `kernel * kernel` times as many values.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// Side of the convolution's kernel; 1 for a linear layer.
    pub fn kernel(&self) -> usize {
        self.kernel
    }

    /// The instruction set it was packed for.
    pub fn table(&self) -> &'static str {
        self.table
    }

    /// Memory that the panels take.
    pub fn bytes(&self) -> usize {
        match &self.stored {
            Stored::Single(panels) | Stored::Pairs(panels) => size_of_val::<[f32]>(panels),
            Stored::Half(_, numbers) => size_of_val::<[u16]>(numbers),
        }
    }

    /// Overwrites the rows from `first_output` on with those of `weight`, `[rows, inputs]` or
    /// `[rows, inputs, kernel, kernel]`: for weights that arrive in parts, or are several layers
    /// in one.
    ///
    /// # Panics
    /// If `weight` is not whole rows, or does not fit.
    pub fn write_outputs(&mut self, kernels: &Kernels, first_output: usize, weight: &[f32]) {
        kernels.check_weight(self);
        let row = self.inputs * self.taps();
        let rows = weight.len() / row;
        assert_eq!(weight.len(), rows * row, "weight is not whole rows");
        let end = first_output + rows;
        assert!(end <= self.outputs, "weight has too many rows");
        let (width, taps, inputs) = (self.panel_width, self.taps(), self.inputs);
        let Stored::Single(panels) = &mut self.stored else {
            panic!("the weight is in half precision already");
        };
        panels
            .par_chunks_mut(row * width)
            .enumerate()
            .filter(|(i, _)| (i + 1) * width > first_output && i * width < end)
            .for_each(|(i, panel)| {
                let outputs = first_output.max(i * width)..end.min((i + 1) * width);
                let rows = outputs.start - first_output..outputs.end - first_output;
                let rows = &weight[rows.start * row..rows.end * row];
                let task = PanelRows {
                    rows,
                    inputs,
                    taps,
                    first: outputs.start % width,
                    panel,
                };
                // SAFETY: this machine has the table's instruction set.
                unsafe { (kernels.write_panel)(task) };
            });
    }

    /// The same weights in half precision, if that holds every one of them exactly: f16 or bf16,
    /// by their values. Results don't change by a bit.
    #[must_use]
    pub fn in_half(mut self) -> Self {
        if let Stored::Single(panels) = &self.stored {
            let formats = [Half::Bf16, Half::F16].into_iter();
            let mut found = formats.filter_map(|format| Some((format, format.all(panels)?)));
            if let Some((format, numbers)) = found.next() {
                self.stored = Stored::Half(format, numbers);
            }
        }
        self
    }

    /// The weights rounded to bf16, for products that round their inputs too and sum in f32; as
    /// they are if the machine has no such products ([`Kernels::has_bf16`]) or the inputs of a tap
    /// are odd or few.
    #[must_use]
    pub fn for_bf16(mut self, kernels: &Kernels) -> Self {
        let pairs = kernels.has_bf16() && self.inputs.is_multiple_of(2) && !self.patches();
        if let (true, Stored::Single(panels)) = (pairs, &self.stored) {
            let width = self.panel_width;
            let mut to = Panels::zeros(panels.len() / 2);
            to.par_chunks_mut(width)
                .zip(panels.par_chunks(2 * width))
                .for_each(|(to, from)| {
                    let (even, odd) = from.split_at(width);
                    for (to, pair) in to.iter_mut().zip(even.iter().zip(odd)) {
                        *to = half::pair(*pair.0, *pair.1);
                    }
                });
            self.stored = Stored::Pairs(to);
        }
        self
    }

    /// Gives up the weight but for its memory; weights in half precision have none to reuse.
    pub fn into_memory(self) -> Option<PackedMemory> {
        match self.stored {
            Stored::Single(panels) => Some(PackedMemory(panels)),
            Stored::Half(..) | Stored::Pairs(_) => None,
        }
    }

    pub(crate) fn stored(&self) -> &Stored {
        &self.stored
    }

    /// Numbers of a panel: `[tap][input][output in the panel]`.
    pub(crate) fn panel_size(&self) -> usize {
        self.taps() * self.inputs * self.panel_width
    }

    pub(crate) fn panel_width(&self) -> usize {
        self.panel_width
    }

    /// Places of the kernel.
    pub(crate) fn taps(&self) -> usize {
        self.kernel * self.kernel
    }

    pub(crate) fn panel_count(&self) -> usize {
        self.outputs.div_ceil(self.panel_width)
    }

    /// Whether all taps together are one piece: pixels so small that a tap alone is too short a
    /// sum.
    pub(crate) fn patches(&self) -> bool {
        self.taps() * self.inputs <= PIECE
    }

    /// The pieces of the reduction, in order: of each tap some inputs.
    pub(crate) fn pieces(&self) -> impl Iterator<Item = Piece> + use<> {
        let (taps, inputs) = match self.patches() {
            true => (1, self.taps() * self.inputs),
            false => (self.taps(), self.inputs),
        };
        let count = inputs.div_ceil(PIECE);
        // Even, for pairs of inputs.
        let size = inputs.div_ceil(count).next_multiple_of(2);
        (0..taps).flat_map(move |tap| {
            (0..count).map(move |i| Piece {
                tap,
                inputs: piece(inputs, size, i),
            })
        })
    }
}

/// Rows of a weight on their way to a panel.
pub(crate) struct PanelRows<'a> {
    /// `[outputs, inputs, taps]`.
    pub(crate) rows: &'a [f32],
    pub(crate) inputs: usize,
    pub(crate) taps: usize,
    /// The first row's place in the panel.
    pub(crate) first: usize,
    /// `[tap][input][output in the panel]`.
    pub(crate) panel: &'a mut [f32],
}

/// Writes rows to a panel: squares of vectors are transposed in registers.
///
/// # Safety
/// The machine has `V`'s instruction set.
#[inline(always)]
pub(crate) unsafe fn write_panel_body<V: Simd>(task: PanelRows<'_>) {
    let PanelRows {
        rows,
        inputs,
        taps,
        first,
        panel,
    } = task;
    let (row, width) = (inputs * taps, PANEL_VECTORS * V::LANES);
    let count = rows.len() / row;
    assert!(first + count <= width && panel.len() == row * width);
    let place = |column: usize| (column % taps * inputs + column / taps) * width + first;
    let mut square = [0.0_f32; MOST_LANES * MOST_LANES];
    let (squares, whole) = (count / V::LANES * V::LANES, row / V::LANES * V::LANES);
    for column in (0..whole).step_by(V::LANES) {
        let places: [usize; MOST_LANES] = std::array::from_fn(|i| place(column + i));
        for output in (0..squares).step_by(V::LANES) {
            // SAFETY: the square is inside the rows, its columns inside the panel's rows.
            unsafe {
                let from = rows.as_ptr().add(output * row + column);
                V::transpose(from, row, square.as_mut_ptr());
                let columns = square.chunks_exact(V::LANES).zip(&places);
                for (values, place) in columns.take(V::LANES) {
                    let to = panel.as_mut_ptr().add(place + output);
                    V::load(values.as_ptr()).store(to);
                }
            }
        }
        for output in squares..count {
            for (i, place) in places.iter().enumerate().take(V::LANES) {
                panel[place + output] = rows[output * row + column + i];
            }
        }
    }
    for column in whole..row {
        let place = place(column);
        for output in 0..count {
            panel[place + output] = rows[output * row + column];
        }
    }
}

/// Floats that begin where a cache line does: a vector of weights is then never in two lines.
#[derive(Debug)]
pub(crate) struct Panels {
    /// With room for the way to the next line. Zeros that the system gives take no time before they
    /// are touched, and are then touched by many threads: for gigabytes of weights that is seconds.
    floats: Vec<f32>,
    first: usize,
    count: usize,
}

/// Floats in a cache line.
const LINE: usize = 16;

impl Panels {
    /// At least `count` zeros.
    pub(crate) fn zeros(count: usize) -> Self {
        let count = count.next_multiple_of(LINE);
        let floats = vec![0.0; count + LINE];
        Self {
            first: floats.as_ptr().align_offset(LINE * size_of::<f32>()),
            floats,
            count,
        }
    }
}

/// The copy begins elsewhere in its own memory.
impl Clone for Panels {
    fn clone(&self) -> Self {
        let mut clone = Self::zeros(self.count);
        clone.copy_from_slice(self);
        clone
    }
}

impl std::ops::Deref for Panels {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &self.floats[self.first..][..self.count]
    }
}

impl std::ops::DerefMut for Panels {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.floats[self.first..][..self.count]
    }
}

/// Some inputs of one tap: what is summed before it is added to the output.
pub(crate) struct Piece {
    pub(crate) tap: usize,
    pub(crate) inputs: Range<usize>,
}

impl Kernels {
    /// Packs the weight `[outputs, inputs]` of a linear layer.
    ///
    /// # Panics
    /// If the length of `weight` is another.
    pub fn pack_linear(&self, weight: &[f32], outputs: usize, inputs: usize) -> PackedMatrix {
        self.pack_convolution(weight, outputs, inputs, 1)
    }

    /// Packs the weight `[outputs, inputs, kernel, kernel]` of a convolution.
    ///
    /// # Panics
    /// If the length of `weight` is another, or `inputs` or `kernel` is 0.
    pub fn pack_convolution(
        &self,
        weight: &[f32],
        outputs: usize,
        inputs: usize,
        kernel: usize,
    ) -> PackedMatrix {
        self.pack_convolution_in(None, weight, outputs, inputs, kernel)
    }

    /// The same, in the memory of a weight that is not needed any more, if that is large enough:
    /// where weights are packed again and again, fresh memory costs more than packing.
    ///
    /// # Panics
    /// As [`Kernels::pack_convolution`].
    pub fn pack_convolution_in(
        &self,
        memory: Option<PackedMemory>,
        weight: &[f32],
        outputs: usize,
        inputs: usize,
        kernel: usize,
    ) -> PackedMatrix {
        assert!(inputs > 0 && kernel > 0, "a weight without inputs");
        let size = self.packed_bytes(outputs, inputs * kernel * kernel) / size_of::<f32>();
        let mut packed = self.packed_zeros(0, inputs, kernel);
        packed.outputs = outputs;
        packed.stored = Stored::Single(match memory {
            Some(PackedMemory(panels)) if panels.len() >= size => panels,
            _ => Panels::zeros(size),
        });
        let expected = outputs * inputs * packed.taps();
        assert_eq!(weight.len(), expected, "length of weight");
        packed.write_outputs(self, 0, weight);
        packed
    }

    /// Memory that a weight will take once it is packed; `inputs` counts the kernel's taps too.
    pub fn packed_bytes(&self, outputs: usize, inputs: usize) -> usize {
        outputs.next_multiple_of(self.panel_width) * inputs * size_of::<f32>()
    }

    /// A weight of zeros, to be filled by [`PackedMatrix::write_outputs`].
    ///
    /// # Panics
    /// If `inputs` or `kernel` is 0.
    pub fn packed_zeros(&self, outputs: usize, inputs: usize, kernel: usize) -> PackedMatrix {
        assert!(inputs > 0 && kernel > 0, "a weight without inputs");
        let width = self.panel_width;
        PackedMatrix {
            stored: Stored::Single(Panels::zeros(
                outputs.div_ceil(width) * width * inputs * kernel * kernel,
            )),
            outputs,
            inputs,
            kernel,
            panel_width: width,
            table: self.name,
        }
    }
}
