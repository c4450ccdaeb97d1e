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
//! *By tiles: large maps, and few weights.* A task has a block of at most [`BLOCK`] tiles, of one
//! image, or all tiles of some images where maps are small. For [`CHUNK`]
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

mod transform;

use crate::Kernels;
use crate::conv::{Layer, Maps};
use crate::gemm::{Block, Start};
use crate::group_norm::{Gathered, Moments, Run};
use crate::memory::Buffer;
use crate::packed::{PackedMatrix, PackedMemory, PanelRows, Stored};
use crate::threads::{self, Output, piece};
use std::ops::Range;

use transform::Gather;
pub(crate) use transform::{Pixels, Products, Taps, input_body, kernel_body, output_body};

/// Rows and columns of tiles in a block.
const BLOCK: [usize; 2] = [6, 8];
/// Channels that are copied and transformed at a time: whole vectors of every instruction set.
const CHUNK: usize = 64;
/// Floats of a cache line: whole vectors of every instruction set, too.
const LINE: usize = 16;
/// Most inputs of a piece of the reduction.
const PIECE: usize = 512;
/// Tiles that share a transformed weight where maps are small, unless one map has more.
const SHARED_TILES: usize = 64;
/// Floats of one point's weights in the second cache, where they are transformed on the way.
const POINT_WEIGHTS: usize = 2048;

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

/// How maps are cut into tiles, and tiles into blocks.
struct Grid {
    kind: Winograd,
    /// Rows and columns of an output map.
    outputs: [usize; 2],
    /// Rows and columns of tiles on a map.
    tiles: [usize; 2],
}

impl Grid {
    fn new(kind: Winograd, maps: Maps) -> Self {
        let outputs = [maps.height, maps.width].map(|side| side * kind.enlargement());
        let tiles = outputs.map(|side| side.div_ceil(kind.outputs()));
        Self {
            kind,
            outputs,
            tiles,
        }
    }

    fn tile_count(&self) -> usize {
        self.tiles[0] * self.tiles[1]
    }

    /// Blocks in a row of blocks, and on a map.
    fn blocks(&self) -> (usize, usize) {
        let across = self.tiles[1].div_ceil(BLOCK[1]);
        (across, across * self.tiles[0].div_ceil(BLOCK[0]))
    }

    /// Images whose tiles make one block: several, where a map has few.
    fn images_in_block(&self, images: usize) -> usize {
        let most = (BLOCK[0] * BLOCK[1] / self.tile_count().max(1)).max(1);
        let blocks = images.div_ceil(most);
        images.div_ceil(blocks.max(1)).max(1)
    }

    /// A block of an image's tiles, numbered by itself from `first` on.
    fn block(&self, image: usize, index: usize, first: usize) -> Tiles {
        let (across, _) = self.blocks();
        let rows = piece(self.tiles[0], BLOCK[0], index / across);
        let columns = piece(self.tiles[1], BLOCK[1], index % across);
        Tiles {
            image,
            first,
            across: columns.len(),
            rows,
            columns,
        }
    }

    /// The same, numbered as a part of the map, whose first tile has the number `first`.
    fn block_of_map(&self, image: usize, index: usize, first: usize) -> Tiles {
        let block = self.block(image, index, 0);
        Tiles {
            first: first + block.rows.start * self.tiles[1] + block.columns.start,
            across: self.tiles[1],
            ..block
        }
    }

    /// All tiles of an image, the first of which has the number `first`.
    fn map(&self, image: usize, first: usize) -> Tiles {
        Tiles {
            image,
            rows: 0..self.tiles[0],
            columns: 0..self.tiles[1],
            first,
            across: self.tiles[1],
        }
    }
}

/// A rectangle of an image's tiles.
struct Tiles {
    image: usize,
    rows: Range<usize>,
    columns: Range<usize>,
    /// The number of the first one, and of tiles in a row, where transformed tiles are kept.
    first: usize,
    across: usize,
}

impl Tiles {
    fn len(&self) -> usize {
        self.rows.len() * self.columns.len()
    }

    /// Row and column in the rectangle, and number, of each.
    fn each(&self) -> impl Iterator<Item = ([usize; 2], usize)> + '_ {
        let columns = self.columns.len();
        (0..self.len()).map(move |i| {
            let (row, column) = (i / columns, i % columns);
            ([row, column], self.first + row * self.across + column)
        })
    }
}

/// Where values at the points lie: `[point][tile][channel]`.
#[derive(Clone, Copy)]
struct Points {
    at: Output,
    /// Floats of a tile: its channels, in whole lines.
    tile: usize,
    /// Floats from a point to the next.
    point: usize,
}

impl Points {
    fn size(kind: Winograd, tiles: usize, channels: usize) -> usize {
        kind.points() * (tiles * channels.next_multiple_of(LINE) + LINE)
    }

    /// For scratch of [`Points::size`].
    fn new(scratch: &mut [f32], tiles: usize, channels: usize) -> Self {
        let tile = channels.next_multiple_of(LINE);
        Self {
            at: Output::new(scratch),
            tile,
            point: tiles * tile + LINE,
        }
    }

    /// Where a tile's values at a point begin.
    ///
    /// # Safety
    /// There is such a tile, and such a point.
    unsafe fn place(&self, point: usize, tile: usize) -> *mut f32 {
        // SAFETY: the caller's promise.
        unsafe { self.at.at(point * self.point + tile * self.tile) }
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

    /// A convolution by tiles: see the module. `out` is `[images, height, width, outputs]`,
    /// twice as high and wide for [`Winograd::Upsampled`]; `moments`, if wanted, become those of
    /// `out`.
    ///
    /// # Panics
    /// If a length does not fit, or the weights were packed for another instruction set.
    pub fn convolution_winograd(
        &self,
        layer: &Layer<'_>,
        w: &WinogradWeights,
        moments: Option<&mut Moments>,
        out: &mut [f32],
    ) {
        assert_eq!(w.table, self.name, "the weight is another table's");
        let grid = Grid::new(w.kind, layer.maps);
        layer.check(w.inputs, w.outputs, grid.outputs, out);
        let width = w.outputs.next_multiple_of(self.panel_width);
        let (_, blocks) = grid.blocks();
        let images = layer.maps.images;
        let together = grid.images_in_block(images);
        let gathered = Gathered::new(moments.is_some(), images * blocks, w.outputs);
        let out = Output::new(out);
        threads::for_each(images.div_ceil(together) * blocks, |task| {
            let block = task % blocks;
            let members = piece(images, together, task / blocks);
            let tiles_of_one = grid.block(0, block, 0).len();
            let tiles = members.len() * tiles_of_one;
            let members = members.enumerate();
            let members = members.map(|(i, image)| grid.block(image, block, i * tiles_of_one));
            let pixels = Points::size(w.kind, tiles, w.inputs);
            let products = Points::size(w.kind, tiles, width);
            threads::with_scratch(pixels + products, |scratch| {
                let (pixels, products) = scratch.split_at_mut(pixels);
                let pixels = Points::new(pixels, tiles, w.inputs);
                let products = Points::new(products, tiles, width);
                for tiles in members.clone() {
                    for chunk in 0..w.inputs.div_ceil(CHUNK) {
                        let channels = piece(w.inputs, CHUNK, chunk);
                        // SAFETY: `pixels` has place for this task's tiles.
                        unsafe { self.transform_pixels(layer, &grid, &tiles, channels, pixels) };
                    }
                }
                for point in 0..w.kind.points() {
                    // SAFETY: both have this point's rows of the task's tiles.
                    unsafe { self.multiply(w, point, tiles, pixels, products) };
                }
                for tiles in members {
                    let target = Target {
                        layer,
                        grid: &grid,
                        channels: 0..w.outputs,
                        outputs: w.outputs,
                        out,
                        gathered: &gathered,
                        part: tiles.image * blocks + block,
                    };
                    // SAFETY: `products` has these tiles; their outputs are this task's alone.
                    unsafe { self.transform_products(&target, &tiles, products) };
                }
            });
        });
        if let Some(moments) = moments {
            gathered.reduce(blocks, moments);
        }
    }

    /// A convolution by outputs: see the module; `w` is packed as for direct convolution.
    ///
    /// # Panics
    /// If a length does not fit, or the weights were packed for another instruction set or kernel.
    pub fn convolution_winograd_small(
        &self,
        kind: Winograd,
        layer: &Layer<'_>,
        w: &PackedMatrix,
        moments: Option<&mut Moments>,
        out: &mut [f32],
    ) {
        self.check_weight(w);
        assert_eq!(w.kernel(), 3, "the weight's kernel");
        let grid = Grid::new(kind, layer.maps);
        let (inputs, outputs) = (w.inputs(), w.outputs());
        layer.check(inputs, outputs, grid.outputs, out);
        let images = layer.maps.images;
        let together = (SHARED_TILES / grid.tile_count().max(1)).clamp(1, images.max(1));
        let gathered = Gathered::new(moments.is_some(), images, outputs);
        let out = Output::new(out);
        for first in (0..images).step_by(together) {
            let group = first..images.min(first + together);
            let tiles = group.len() * grid.tile_count();
            threads::with_scratch(Points::size(kind, tiles, inputs), |scratch| {
                let pixels = Points::new(scratch, tiles, inputs);
                let (chunks, (_, blocks)) = (inputs.div_ceil(CHUNK), grid.blocks());
                threads::for_each(group.len() * blocks * chunks, |task| {
                    let (place, chunk) = (task / chunks, task % chunks);
                    let (member, block) = (place / blocks, place % blocks);
                    let first = member * grid.tile_count();
                    let block = grid.block_of_map(group.start + member, block, first);
                    let channels = piece(inputs, CHUNK, chunk);
                    // SAFETY: `pixels` has place for all tiles of the group; no other task has
                    // this block's channels.
                    unsafe { self.transform_pixels(layer, &grid, &block, channels, pixels) };
                });
                threads::for_each(outputs.div_ceil(self.panel_width), |panel| {
                    let target = Target {
                        layer,
                        grid: &grid,
                        channels: piece(outputs, self.panel_width, panel),
                        outputs,
                        out,
                        gathered: &gathered,
                        part: 0,
                    };
                    // SAFETY: `pixels` has all tiles of the group; a panel is one task's.
                    unsafe { self.panel(&target, group.clone(), panel, w, pixels) };
                });
            });
        }
        if let Some(moments) = moments {
            gathered.reduce(1, moments);
        }
    }

    /// Copies some channels of a rectangle's pixels, normalised if the layer wants it, and
    /// transforms its tiles.
    ///
    /// # Safety
    /// `to` has place for the rectangle's tiles, whose `channels` are this thread's to write.
    unsafe fn transform_pixels(
        &self,
        layer: &Layer<'_>,
        grid: &Grid,
        tiles: &Tiles,
        channels: Range<usize>,
        to: Points,
    ) {
        let kind = grid.kind;
        let stride = channels.len().next_multiple_of(LINE);
        let side = |tiles: &Range<usize>| (tiles.len() - 1) * kind.step() + kind.window();
        let [rows, columns] = [side(&tiles.rows), side(&tiles.columns)];
        let [top, left] = [tiles.rows.start, tiles.columns.start].map(|tile| tile * kind.step());
        threads::with_scratch(rows * columns * stride, |halo| {
            for (row, to) in halo.chunks_mut(columns * stride).enumerate() {
                let row = (top + row).checked_sub(1);
                self.copy_row(layer, tiles.image, (row, left), channels.clone(), to);
            }
            for ([row, column], tile) in tiles.each() {
                let corner = (row * columns + column) * kind.step() * stride;
                // SAFETY: this machine has this table's instruction set; the window lies in the
                // copied pixels, whose channels are whole vectors, as a tile's are; the caller's
                // promise for the rest.
                unsafe {
                    let pixels = Pixels {
                        from: halo[corner..].as_ptr(),
                        pixel: stride,
                        row: columns * stride,
                        channels: stride,
                        to: to.place(0, tile).add(channels.start),
                        point: to.point,
                    };
                    (self.winograd_input)(kind, &pixels);
                }
            }
        });
    }

    /// Copies a row of pixels around tiles: from the map's row `row` and from column `left - 1` on,
    /// zeros where there is no such pixel.
    fn copy_row(
        &self,
        layer: &Layer<'_>,
        image: usize,
        (row, left): (Option<usize>, usize),
        channels: Range<usize>,
        to: &mut [f32],
    ) {
        let Maps { height, width, .. } = layer.maps;
        let stride = channels.len().next_multiple_of(LINE);
        let Some(row) = row.filter(|row| *row < height) else {
            return to.fill(0.0);
        };
        let before = usize::from(left == 0);
        let pixels = (to.len() / stride - before).min(width - (left + before - 1));
        let (edge, to) = to.split_at_mut(before * stride);
        let (to, beyond) = to.split_at_mut(pixels * stride);
        edge.fill(0.0);
        beyond.fill(0.0);
        let inputs = layer.inputs();
        let first = (image * height + row) * width + left + before - 1;
        let run = Run {
            from: &layer.x[first * inputs + channels.start..],
            pixel: inputs,
            channels: channels.len(),
            affine: layer.norm.map(|norm| norm.part(image, channels)),
            to,
            stride,
        };
        // SAFETY: this machine has this table's instruction set; the pixels are inside a row of
        // the map, and `to` has whole vectors for each.
        unsafe { (self.copy_pixels)(run) };
    }

    /// At a point, all tiles' inputs times that point's weights.
    ///
    /// # Safety
    /// `from` and `to` have the point's rows of `tiles` tiles, these for this thread to write.
    unsafe fn multiply(
        &self,
        w: &WinogradWeights,
        point: usize,
        tiles: usize,
        from: Points,
        to: Points,
    ) {
        let mut rows = [std::ptr::null(); BLOCK[0] * BLOCK[1]];
        let pieces = w.inputs.div_ceil(PIECE);
        let depth = w.inputs.div_ceil(pieces);
        for index in 0..pieces {
            let inputs = piece(w.inputs, depth, index);
            // SAFETY: each row has the piece's inputs; `to` has a row for each tile.
            unsafe {
                for (tile, row) in rows.iter_mut().enumerate().take(tiles) {
                    *row = from.place(point, tile).add(inputs.start);
                }
                (self.product)(&Block {
                    rows: &rows[..tiles],
                    depth: inputs.len(),
                    panels: &w.panels[point * w.point() + inputs.start * w.panel_width..],
                    panel_stride: w.inputs * w.panel_width,
                    columns: w.outputs,
                    start: if index == 0 {
                        Start::Nothing
                    } else {
                        Start::Output
                    },
                    residual: None,
                    out: to.place(point, 0),
                    out_stride: to.tile,
                });
            }
        }
    }

    /// One panel of a small map's outputs.
    ///
    /// # Safety
    /// `pixels` has all tiles of the images in `group`; the panel's outputs of these images are
    /// this thread's to write.
    unsafe fn panel(
        &self,
        target: &Target<'_>,
        group: Range<usize>,
        panel: usize,
        w: &PackedMatrix,
        pixels: Points,
    ) {
        let (kind, width) = (target.grid.kind, self.panel_width);
        let tiles = group.len() * target.grid.tile_count();
        let depth = POINT_WEIGHTS / width;
        let point = POINT_WEIGHTS + LINE;
        let weights = kind.points() * point;
        let unpacked = match w.stored() {
            Stored::Half(..) | Stored::Rows(_) => 9 * POINT_WEIGHTS,
            _ => 0,
        };
        let products_size = Points::size(kind, tiles, width);
        threads::with_scratch(weights + unpacked + products_size, |scratch| {
            let (weights, rest) = scratch.split_at_mut(weights);
            let (unpacked, products) = rest.split_at_mut(unpacked);
            let products = Points::new(products, tiles, width);
            for first in (0..w.inputs()).step_by(depth) {
                let inputs = first..w.inputs().min(first + depth);
                let (from, tap) = self.taps_of(w, panel, &inputs, unpacked);
                let taps = Taps {
                    from: from.as_ptr(),
                    tap,
                    count: inputs.len() * width,
                    to: weights.as_mut_ptr(),
                    point,
                };
                // SAFETY: this machine has this table's instruction set; the panel has these
                // inputs under each tap, and `weights` place for them at each point.
                unsafe { (self.winograd_kernel)(kind, &taps) };
                for (index, weights) in weights.chunks(point).enumerate() {
                    // SAFETY: both have the tiles' rows at this point.
                    unsafe {
                        self.multiply_shared(index, &inputs, tiles, pixels, weights, products);
                    }
                }
            }
            for (member, image) in group.clone().enumerate() {
                let tiles = target.grid.map(image, member * target.grid.tile_count());
                let target = Target {
                    part: image,
                    channels: target.channels.clone(),
                    ..*target
                };
                // SAFETY: `products` has the group's tiles; the caller's promise.
                unsafe { self.transform_products(&target, &tiles, products) };
            }
        });
    }

    /// The weights of some inputs of a panel, from the first one under the first tap on, and how
    /// many floats it is to the next tap; in `unpacked` if they are kept in another form.
    fn taps_of<'a>(
        &self,
        w: &'a PackedMatrix,
        panel: usize,
        inputs: &Range<usize>,
        unpacked: &'a mut [f32],
    ) -> (&'a [f32], usize) {
        let width = self.panel_width;
        let (row, count) = (w.inputs() * width, inputs.len() * width);
        let first = panel * w.panel_size() + inputs.start * width;
        match w.stored() {
            Stored::Single(panels) => (&panels[first..], row),
            Stored::Half(format, numbers) => {
                for (tap, to) in unpacked.chunks_mut(count).take(9).enumerate() {
                    let from = &numbers[first + tap * row..][..count];
                    // SAFETY: this machine has this table's instruction set; a panel is whole
                    // vectors wide.
                    unsafe { (self.widen)(*format, from, to) };
                }
                (unpacked, count)
            }
            Stored::Rows(rows) => {
                let (rows, outputs) = w.part_of_panel(rows, panel, inputs.start);
                let taps = &mut unpacked[..9 * count];
                if outputs < width {
                    taps.fill(0.0);
                }
                let task = PanelRows {
                    rows,
                    row: 9 * w.inputs(),
                    count: outputs,
                    inputs: inputs.len(),
                    taps: 9,
                    first: 0,
                    panel: taps,
                };
                // SAFETY: this machine has this table's instruction set.
                unsafe { (self.write_panel)(task) };
                (unpacked, count)
            }
            Stored::Pairs(_) => panic!("bf16 is too coarse for Winograd's transforms"),
        }
    }

    /// At a point, some inputs of all tiles times their weights for one panel.
    ///
    /// # Safety
    /// `from` and `to` have the point's rows of `tiles` tiles, these for this thread to write.
    unsafe fn multiply_shared(
        &self,
        point: usize,
        inputs: &Range<usize>,
        tiles: usize,
        from: Points,
        weights: &[f32],
        to: Points,
    ) {
        let mut rows = [std::ptr::null(); SHARED_TILES];
        for first in (0..tiles).step_by(SHARED_TILES) {
            let count = SHARED_TILES.min(tiles - first);
            // SAFETY: each row has these inputs; `to` has a row of a panel for each tile.
            unsafe {
                for (tile, row) in rows.iter_mut().enumerate().take(count) {
                    *row = from.place(point, first + tile).add(inputs.start);
                }
                (self.product)(&Block {
                    rows: &rows[..count],
                    depth: inputs.len(),
                    panels: weights,
                    panel_stride: 0,
                    columns: self.panel_width,
                    start: if inputs.start == 0 {
                        Start::Nothing
                    } else {
                        Start::Output
                    },
                    residual: None,
                    out: to.place(point, first),
                    out_stride: to.tile,
                });
            }
        }
    }

    /// Transforms the products of a rectangle's tiles into outputs.
    ///
    /// # Safety
    /// `products` has the rectangle's tiles, of which the target's channels of the output are this
    /// thread's to write.
    unsafe fn transform_products(&self, target: &Target<'_>, tiles: &Tiles, products: Points) {
        let kind = target.grid.kind;
        let [height, width] = target.grid.outputs;
        let count = target.channels.len();
        let side = kind.outputs();
        let first = tiles.image * height * width * target.outputs + target.channels.start;
        let gathering = if target.gathered.is_wanted() {
            3 * count
        } else {
            0
        };
        threads::with_scratch(gathering, |sums| {
            let mut gather = (gathering > 0).then(|| Gather::new(sums, count));
            for ([row, column], tile) in tiles.each() {
                let [y, x] =
                    [tiles.rows.start + row, tiles.columns.start + column].map(|tile| tile * side);
                let place = first + (y * width + x) * target.outputs;
                // SAFETY: this machine has this table's instruction set; the tile's corner is on
                // the map, where residual and output have the same places; the caller's promise.
                unsafe {
                    (self.winograd_output)(
                        kind,
                        &Products {
                            from: products.place(0, tile),
                            point: products.point,
                            channels: count,
                            bias: target.layer.bias_of(
                                target.outputs,
                                tiles.image,
                                &target.channels,
                            ),
                            to: target.out.at(place),
                            residual: target
                                .layer
                                .residual
                                .map(|residual| residual[place..].as_ptr()),
                            pixel: target.outputs,
                            row: width * target.outputs,
                            extent: [side.min(height - y), side.min(width - x)],
                            gather,
                        },
                    );
                }
                if let Some(gather) = &mut gather {
                    gather.first = false;
                }
            }
            if gathering > 0 {
                let covered = |tiles: &Range<usize>, side_length: usize| {
                    (tiles.end * side).min(side_length) - tiles.start * side
                };
                let pixels = covered(&tiles.rows, height) * covered(&tiles.columns, width);
                // SAFETY: a part and a range of channels belong to one task.
                unsafe {
                    target
                        .gathered
                        .put(target.part, &target.channels, pixels, sums)
                };
            }
        });
    }
}

/// Some channels of a convolution's output.
struct Target<'a> {
    layer: &'a Layer<'a>,
    grid: &'a Grid,
    channels: Range<usize>,
    /// Channels of a pixel.
    outputs: usize,
    out: Output,
    gathered: &'a Gathered,
    /// Which part of the sums these outputs are.
    part: usize,
}
