//! From a map's pixels to the points, and from the points to a map: what both ways begin and end with.

use std::ops::Range;

use super::grid::{Grid, LINE, Points, Tiles};
use super::transform::Gather;
use super::{Pixels, Products};
use crate::Kernels;
use crate::conv::{Layer, Maps};
use crate::group_norm::{Gathered, Run};
use crate::threads::{self, Output};

/// Channels that are copied and transformed at a time: whole vectors of every instruction set.
pub(super) const CHUNK: usize = 64;

impl Kernels {
    /// Copies some channels of a rectangle's pixels, normalised if the layer wants it, and
    /// transforms its tiles.
    ///
    /// # Safety
    /// `to` has place for the rectangle's tiles, whose `channels` are this thread's to write.
    pub(super) unsafe fn transform_pixels(
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

    /// Transforms the products of a rectangle's tiles into outputs.
    ///
    /// # Safety
    /// `products` has the rectangle's tiles, of which the target's channels of the output are this
    /// thread's to write.
    pub(super) unsafe fn transform_products(
        &self,
        target: &Target<'_>,
        tiles: &Tiles,
        products: Points,
    ) {
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
pub(super) struct Target<'a> {
    pub(super) layer: &'a Layer<'a>,
    pub(super) grid: &'a Grid,
    pub(super) channels: Range<usize>,
    /// Channels of a pixel.
    pub(super) outputs: usize,
    pub(super) out: Output,
    pub(super) gathered: &'a Gathered,
    /// Which part of the sums these outputs are.
    pub(super) part: usize,
}
