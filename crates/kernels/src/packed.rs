//! Packed weights: the order in which products and direct convolutions read them, and the precision
//! in which they are kept.

use crate::Kernels;
use crate::gemm::PIECE;
use crate::half::{self, Half};
use crate::memory::Buffer;
use crate::simd::{MOST_LANES, PANEL_VECTORS, Simd};
use crate::threads::piece;
use rayon::prelude::*;
use std::ops::Range;
use std::sync::Arc;

/// Weights in the order in which [`Kernels::product`] and [`Kernels::convolution`] read them, for
/// one instruction set.
///
/// `[panel][tap][input][output in the panel]`; the last panel is filled up with zeros. Or, for weights
/// that change before they are read often ([`Kernels::weight_as_stored`]), the order of checkpoints:
/// then each task packs what it needs into its scratch.
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
pub struct PackedMemory(pub(crate) Buffer);

impl PackedMemory {
    /// Its size.
    pub fn bytes(&self) -> usize {
        size_of_val::<[f32]>(&self.0)
    }

    /// At least `size` floats: this memory, if that is large enough.
    pub(crate) fn or_new(memory: Option<Self>, size: usize) -> Buffer {
        match memory {
            Some(Self(panels)) if panels.len() >= size => panels,
            _ => Buffer::zeros(size),
        }
    }
}

/// The numbers of all panels.
#[derive(Clone, Debug)]
pub(crate) enum Stored {
    Single(Buffer),
    Half(Half, Vec<u16>),
    /// Two inputs of an output in a float's room, rounded to bf16.
    Pairs(Buffer),
    /// Not packed: `[output, input, tap]`.
    Rows(Arc<Vec<f32>>),
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

    /// Memory that the panels take; none for weights as stored.
    pub fn bytes(&self) -> usize {
        match &self.stored {
            Stored::Rows(_) => 0,
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
            panic!("the weight is in half precision already, or not to be packed");
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
                    row,
                    count: outputs.len(),
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
    /// by their values; and the memory they were in. Results don't change by a bit.
    #[must_use]
    pub fn in_half(self) -> (Self, Option<PackedMemory>) {
        let found = match &self.stored {
            Stored::Single(panels) => {
                let panels = &panels[..self.floats()];
                let formats = [Half::Bf16, Half::F16].into_iter();
                let mut found = formats.filter_map(|format| Some((format, format.all(panels)?)));
                found.next()
            }
            _ => None,
        };
        match found {
            Some((format, numbers)) => self.stored_as(Stored::Half(format, numbers)),
            None => (self, None),
        }
    }

    /// The weights rounded to bf16, for products that round their inputs too and sum in f32, and the
    /// memory they were in; as they are if the machine has no such products ([`Kernels::has_bf16`])
    /// or the inputs of a tap are odd or few.
    #[must_use]
    pub fn for_bf16(self, kernels: &Kernels) -> (Self, Option<PackedMemory>) {
        let pairs = kernels.has_bf16() && self.inputs.is_multiple_of(2) && !self.patches();
        let (true, Stored::Single(panels)) = (pairs, &self.stored) else {
            return (self, None);
        };
        let (width, panels) = (self.panel_width, &panels[..self.floats()]);
        let mut to = Buffer::zeros(panels.len() / 2);
        to.par_chunks_mut(width)
            .zip(panels.par_chunks(2 * width))
            .for_each(|(to, from)| half::pair_rows(from, width, to));
        self.stored_as(Stored::Pairs(to))
    }

    /// The weight with its numbers in another memory, and the one they were in.
    fn stored_as(mut self, stored: Stored) -> (Self, Option<PackedMemory>) {
        let single = match std::mem::replace(&mut self.stored, stored) {
            Stored::Single(panels) => Some(PackedMemory(panels)),
            _ => None,
        };
        (self, single)
    }

    /// Gives up the weight but for its memory; weights in half precision have none to reuse.
    pub fn into_memory(self) -> Option<PackedMemory> {
        match self.stored {
            Stored::Single(panels) => Some(PackedMemory(panels)),
            Stored::Half(..) | Stored::Pairs(_) | Stored::Rows(_) => None,
        }
    }

    pub(crate) fn stored(&self) -> &Stored {
        &self.stored
    }

    /// Numbers of a panel: `[tap][input][output in the panel]`.
    pub(crate) fn panel_size(&self) -> usize {
        self.taps() * self.inputs * self.panel_width
    }

    /// Numbers of all panels; their memory can be larger.
    fn floats(&self) -> usize {
        self.panel_size() * self.panel_count()
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

    /// Some inputs of a panel of rows as they are stored, from the first row's first of them on, and
    /// how many rows there are.
    pub(crate) fn part_of_panel<'w>(
        &self,
        rows: &'w [f32],
        panel: usize,
        first_input: usize,
    ) -> (&'w [f32], usize) {
        let outputs = piece(self.outputs, self.panel_width, panel);
        let first = (outputs.start * self.inputs + first_input) * self.taps();
        (&rows[first..], outputs.len())
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

/// Rows of a weight, or some inputs of them, on their way to a panel.
pub(crate) struct PanelRows<'a> {
    /// From the first row's first input on: `[output, input, tap]`.
    pub(crate) rows: &'a [f32],
    /// Floats from a row to the next.
    pub(crate) row: usize,
    /// How many rows.
    pub(crate) count: usize,
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
        row,
        count,
        inputs,
        taps,
        first,
        panel,
    } = task;
    let (columns, width) = (inputs * taps, PANEL_VECTORS * V::LANES);
    assert!(first + count <= width && panel.len() == columns * width);
    assert!(columns <= row && (count == 0 || (count - 1) * row + columns <= rows.len()));
    let place = |column: usize| (column % taps * inputs + column / taps) * width + first;
    let mut square = [0.0_f32; MOST_LANES * MOST_LANES];
    let (squares, whole) = (count / V::LANES * V::LANES, columns / V::LANES * V::LANES);
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
    for column in whole..columns {
        let place = place(column);
        for output in 0..count {
            panel[place + output] = rows[output * row + column];
        }
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
        packed.stored = Stored::Single(PackedMemory::or_new(memory, size));
        let expected = outputs * inputs * packed.taps();
        assert_eq!(weight.len(), expected, "length of weight");
        if let Stored::Single(panels) = &mut packed.stored {
            // What fills up the last panel may be another weight's.
            let whole = outputs / self.panel_width * self.panel_width;
            panels[whole * inputs * kernel * kernel..size].fill(0.0);
        }
        packed.write_outputs(self, 0, weight);
        packed
    }

    /// A weight `[outputs, inputs]`, or `[outputs, inputs, 3, 3]` for Winograd's algorithms, that is
    /// used as it is: each task of [`Kernels::product`] and [`Kernels::convolution_winograd_small`]
    /// packs its part anew. Worth it where a weight is used once or twice before it changes; results
    /// are the same to the bit.
    ///
    /// # Panics
    /// If the length of `weight` is another, or `inputs` is 0.
    pub fn weight_as_stored(
        &self,
        weight: Arc<Vec<f32>>,
        outputs: usize,
        inputs: usize,
        kernel: usize,
    ) -> PackedMatrix {
        let expected = outputs * inputs * kernel * kernel;
        assert_eq!(weight.len(), expected, "length of weight");
        let mut packed = self.packed_zeros(0, inputs, kernel);
        packed.outputs = outputs;
        packed.stored = Stored::Rows(weight);
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
            stored: Stored::Single(Buffer::zeros(
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
