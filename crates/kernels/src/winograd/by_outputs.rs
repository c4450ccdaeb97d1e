//! The way by outputs: small maps with many weights.

use std::ops::Range;

use super::grid::{Grid, LINE, Points};
use super::maps::{CHUNK, Target};
use super::{Taps, Winograd};
use crate::Kernels;
use crate::conv::Layer;
use crate::gemm::{Block, Start};
use crate::group_norm::{Gathered, Moments};
use crate::packed::{PackedMatrix, PanelRows, Stored};
use crate::threads::{self, Output, piece};

/// Tiles that share a transformed weight where maps are small, unless one map has more.
const SHARED_TILES: usize = 64;
/// Floats of one point's weights in the second cache, where they are transformed on the way.
const POINT_WEIGHTS: usize = 2048;

impl Kernels {
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
}
