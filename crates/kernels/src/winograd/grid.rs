//! How maps are cut into tiles and tiles into blocks, and where their values at the points lie.

use std::ops::Range;

use super::Winograd;
use crate::conv::Maps;
use crate::threads::{Output, piece};

/// Rows and columns of tiles in a block.
pub(super) const BLOCK: [usize; 2] = [6, 8];
/// Floats of a cache line: whole vectors of every instruction set, too.
pub(super) const LINE: usize = 16;

/// How maps are cut into tiles, and tiles into blocks.
pub(super) struct Grid {
    pub(super) kind: Winograd,
    /// Rows and columns of an output map.
    pub(super) outputs: [usize; 2],
    /// Rows and columns of tiles on a map.
    pub(super) tiles: [usize; 2],
}

impl Grid {
    pub(super) fn new(kind: Winograd, maps: Maps) -> Self {
        let outputs = [maps.height, maps.width].map(|side| side * kind.enlargement());
        let tiles = outputs.map(|side| side.div_ceil(kind.outputs()));
        Self {
            kind,
            outputs,
            tiles,
        }
    }

    pub(super) fn tile_count(&self) -> usize {
        self.tiles[0] * self.tiles[1]
    }

    /// Blocks in a row of blocks, and on a map.
    pub(super) fn blocks(&self) -> (usize, usize) {
        let across = self.tiles[1].div_ceil(BLOCK[1]);
        (across, across * self.tiles[0].div_ceil(BLOCK[0]))
    }

    /// Images whose tiles make one block: several, where a map has few.
    pub(super) fn images_in_block(&self, images: usize) -> usize {
        let most = (BLOCK[0] * BLOCK[1] / self.tile_count().max(1)).max(1);
        let blocks = images.div_ceil(most);
        images.div_ceil(blocks.max(1)).max(1)
    }

    /// A block of an image's tiles, numbered by itself from `first` on.
    pub(super) fn block(&self, image: usize, index: usize, first: usize) -> Tiles {
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
    pub(super) fn block_of_map(&self, image: usize, index: usize, first: usize) -> Tiles {
        let block = self.block(image, index, 0);
        Tiles {
            first: first + block.rows.start * self.tiles[1] + block.columns.start,
            across: self.tiles[1],
            ..block
        }
    }

    /// All tiles of an image, the first of which has the number `first`.
    pub(super) fn map(&self, image: usize, first: usize) -> Tiles {
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
pub(super) struct Tiles {
    pub(super) image: usize,
    pub(super) rows: Range<usize>,
    pub(super) columns: Range<usize>,
    /// The number of the first one, and of tiles in a row, where transformed tiles are kept.
    pub(super) first: usize,
    pub(super) across: usize,
}

impl Tiles {
    pub(super) fn len(&self) -> usize {
        self.rows.len() * self.columns.len()
    }

    /// Row and column in the rectangle, and number, of each.
    pub(super) fn each(&self) -> impl Iterator<Item = ([usize; 2], usize)> + '_ {
        let columns = self.columns.len();
        (0..self.len()).map(move |i| {
            let (row, column) = (i / columns, i % columns);
            ([row, column], self.first + row * self.across + column)
        })
    }
}

/// Where values at the points lie: `[point][tile][channel]`.
#[derive(Clone, Copy)]
pub(super) struct Points {
    pub(super) at: Output,
    /// Floats of a tile: its channels, in whole lines.
    pub(super) tile: usize,
    /// Floats from a point to the next.
    pub(super) point: usize,
}

impl Points {
    pub(super) fn size(kind: Winograd, tiles: usize, channels: usize) -> usize {
        kind.points() * (tiles * channels.next_multiple_of(LINE) + LINE)
    }

    /// For scratch of [`Points::size`].
    pub(super) fn new(scratch: &mut [f32], tiles: usize, channels: usize) -> Self {
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
    pub(super) unsafe fn place(&self, point: usize, tile: usize) -> *mut f32 {
        // SAFETY: the caller's promise.
        unsafe { self.at.at(point * self.point + tile * self.tile) }
    }
}
