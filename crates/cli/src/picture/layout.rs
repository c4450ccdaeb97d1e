//! Where everything lies on a match picture.

use cleandift::image::Extent;

use super::pen::LINE;

/// White around the sheet.
pub const MARGIN: u32 = 24;
/// White between panels.
pub const GAP: u32 = 16;
/// Between the pictures, the heat maps and the scale of colours.
const SECTION: u32 = 20;
/// The largest size of the scale of colours.
const SCALE: (u32, u32) = (272, 8);

/// Pictures are brought to a common height: that of the highest, between these.
const HEIGHTS: (u32, u32) = (320, 768);
/// No picture is drawn wider than this.
const WIDEST: u32 = 1024;
/// All pictures side by side are not wider than this, unless they would become too low.
const ROW: u32 = 2048;
/// How low pictures may become to fit into a row.
const LOWEST: u32 = 160;
/// Room for a caption under a narrow picture.
const NARROWEST: u32 = 96;
/// More heat maps than this are broken into rows.
const IN_A_ROW: usize = 5;
/// More heat maps than this may become as narrow as their captions allow.
const MANY: usize = 16;
/// The width that a few heat maps should have.
const READABLE: u32 = 140;
/// The longest side of a heat map below all pictures.
const TILE: u32 = 400;

/// A rectangle of pixels of the sheet.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Area {
    pub left: u32,
    pub top: u32,
    pub width: u32,
    pub height: u32,
}

impl Area {
    pub fn bottom(self) -> u32 {
        self.top + self.height
    }

    /// Where a point of a picture lies that fills this area.
    pub fn place(self, picture: Extent, [x, y]: [f64; 2]) -> [f32; 2] {
        let along = |start: u32, length: u32, v: f64, pixels: usize| {
            (f64::from(start) + (v + 0.5) * f64::from(length) / pixels as f64 - 0.5) as f32
        };
        [
            along(self.left, self.width, x, picture.width),
            along(self.top, self.height, y, picture.height),
        ]
    }
}

/// The areas of a match picture.
#[derive(Clone, Debug, PartialEq)]
pub struct Layout {
    /// The whole sheet.
    pub sheet: Extent,
    /// The source and the targets, in this order; a line of text goes below each.
    pub pictures: Vec<Area>,
    /// The width that the caption of each picture may take.
    pub captions: Vec<u32>,
    /// For each target its heat maps, one a point or none; a line of text goes below each.
    pub heats: Vec<Vec<Area>>,
    /// The scale of colours, if there are heat maps; a line of text goes below it.
    pub scale: Option<Area>,
}

impl Layout {
    /// Lays out pictures (the source first), and for each target a number of heat maps: below
    /// the target, or over the whole width if it is the only one and has several.
    pub fn new(pictures: &[Extent], heats: &[usize]) -> Self {
        let (pictures, captions) = row(pictures);
        let slots = || {
            pictures
                .iter()
                .zip(&captions)
                .map(|(area, &width)| (area, width))
        };
        let right = slots().map(|(area, width)| area.left + width).max();
        let width = right.unwrap_or(0).max(MARGIN + HEIGHTS.0) - MARGIN;
        let mut bottom = pictures.iter().map(|area| area.bottom()).max().unwrap_or(0) + LINE;
        let top = bottom + SECTION;
        let spread = matches!(heats, [several] if *several > 1);
        let narrowest = slots().skip(1).map(|(_, slot)| slot).min().unwrap_or(width);
        let heats: Vec<Vec<Area>> = (slots().skip(1).zip(heats))
            .map(|((&target, slot), &count)| {
                if spread {
                    let columns = columns(count, width);
                    tiles(target, count, columns, [MARGIN, top], width, TILE)
                } else {
                    let columns = columns(count, narrowest);
                    tiles(target, count, columns, [target.left, top], slot, WIDEST)
                }
            })
            .collect();
        let lowest = heats.iter().flatten().map(|area| area.bottom()).max();
        let scale = lowest.map(|lowest| {
            bottom = lowest + LINE;
            let area = Area {
                left: MARGIN,
                top: if spread { bottom + SECTION } else { top },
                width: SCALE.0.min(if spread { width } else { captions[0] }),
                height: SCALE.1,
            };
            bottom = bottom.max(area.bottom() + LINE);
            area
        });
        Self {
            sheet: Extent::new((width + 2 * MARGIN) as usize, (bottom + MARGIN) as usize),
            pictures,
            captions,
            heats,
            scale,
        }
    }
}

/// Pictures side by side, and the width for their captions.
fn row(pictures: &[Extent]) -> (Vec<Area>, Vec<u32>) {
    let highest = pictures.iter().map(|p| p.height as u32).max().unwrap_or(0);
    let mut height = highest.clamp(HEIGHTS.0, HEIGHTS.1);
    let gaps = GAP * (pictures.len() as u32).saturating_sub(1);
    let width: u32 = pictures.iter().map(|&p| fit(p, WIDEST, height).0).sum();
    if width + gaps > ROW {
        let share = f64::from(ROW.saturating_sub(gaps)) / f64::from(width);
        height = ((f64::from(height) * share) as u32).max(LOWEST);
    }
    let sizes: Vec<(u32, u32)> = pictures.iter().map(|&p| fit(p, WIDEST, height)).collect();
    let band = sizes.iter().map(|&(_, height)| height).max().unwrap_or(0);
    let mut left = MARGIN;
    let place = |(width, height)| {
        let area = Area {
            left,
            top: MARGIN + (band - height) / 2,
            width,
            height,
        };
        left += width.max(NARROWEST) + GAP;
        area
    };
    let areas = sizes.iter().copied().map(place).collect();
    let captions = sizes
        .iter()
        .map(|&(width, _)| width.max(NARROWEST))
        .collect();
    (areas, captions)
}

/// How many of `count` heat maps to put side by side in `width` pixels: all of a few, else so that
/// the rows are about equally full.
fn columns(count: usize, width: u32) -> usize {
    let least = if count > MANY { NARROWEST } else { READABLE };
    let most = ((width + GAP) / (least + GAP)).max(1) as usize;
    if count <= IN_A_ROW.min(most) {
        return count.max(1);
    }
    let wanted = ((count as f64 * 1.6).sqrt().ceil() as usize).min(most);
    count.div_ceil(count.div_ceil(wanted))
}

/// Equal areas of a target's shape in rows within `width` pixels; no side longer than the
/// target's or than `longest`.
fn tiles(
    target: Area,
    count: usize,
    columns: usize,
    [left, top]: [u32; 2],
    width: u32,
    longest: u32,
) -> Vec<Area> {
    let slot = (width + GAP) / columns as u32 - GAP;
    let shape = Extent::new(target.width as usize, target.height as usize);
    let (wide, high) = fit(
        shape,
        slot.min(target.width).min(longest),
        target.height.min(longest),
    );
    let (across, down) = (wide.max(NARROWEST) + GAP, high + LINE + GAP / 2);
    (0..count)
        .map(|index| Area {
            left: left + (index % columns) as u32 * across,
            top: top + (index / columns) as u32 * down,
            width: wide,
            height: high,
        })
        .collect()
}

/// The largest size with the shape of `picture` within a box.
fn fit(picture: Extent, width: u32, height: u32) -> (u32, u32) {
    let (w, h) = (picture.width.max(1) as f64, picture.height.max(1) as f64);
    let scale = (f64::from(width) / w).min(f64::from(height) / h);
    (
        ((w * scale).round() as u32).clamp(1, width.max(1)),
        ((h * scale).round() as u32).clamp(1, height.max(1)),
    )
}
