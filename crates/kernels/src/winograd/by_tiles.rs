//! The way by tiles: large maps, and few weights.

use super::WinogradWeights;
use super::grid::{BLOCK, Grid, Points};
use super::maps::{CHUNK, Target};
use crate::Kernels;
use crate::conv::Layer;
use crate::gemm::{Block, Start};
use crate::group_norm::{Gathered, Moments};
use crate::threads::{self, Output, piece};

/// Most inputs of a piece of the reduction.
const PIECE: usize = 512;

impl Kernels {
    /// A convolution by tiles: see the module. `out` is `[images, height, width, outputs]`,
    /// twice as high and wide for [`Winograd::Upsampled`](super::Winograd::Upsampled); `moments`, if
    /// wanted, become those of `out`.
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
}
