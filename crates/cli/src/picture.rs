//! Draws the result of a match: source and targets side by side with numbered points, below them
//! a heat map a point. Takes plain data and gives a picture; what is matched, and how, is not
//! decided here.

mod colour;
mod layout;
pub mod pen;

use cleandift::image::Extent;
use image::imageops::{self, FilterType};
use image::{Rgb, RgbImage};

use layout::{Area, Layout};
use pen::Weight;

/// More points than this are drawn as small dots: three digits do not fit into a marker.
const NUMBERED: usize = 99;
/// Lines between many points would hide the pictures.
const LINED: usize = 32;

/// Everything that a match picture shows.
pub struct MatchPicture<'a> {
    /// The source.
    pub source: Panel<'a>,
    /// The points that were asked for, in pixels of the source.
    pub points: &'a [[f64; 2]],
    /// Where they were found.
    pub targets: &'a [Target<'a>],
}

/// A picture with a caption, usually its file's name.
#[derive(Clone, Copy)]
pub struct Panel<'a> {
    /// The pixels.
    pub picture: &'a RgbImage,
    /// A few words below it.
    pub caption: &'a str,
}

/// A target with what was found in it.
pub struct Target<'a> {
    /// The target.
    pub panel: Panel<'a>,
    /// One a point, in their order.
    pub found: &'a [Found],
}

/// Where a point was found.
pub struct Found {
    /// In pixels of the target.
    pub point: [f64; 2],
    /// The similarity there.
    pub similarity: f64,
    /// Similarities all over the target; drawn if all points of the target have one.
    pub heat: Option<Heat>,
}

/// Similarities over a picture, at any resolution.
pub struct Heat {
    /// Columns and rows of values.
    pub extent: Extent,
    /// `[row][column]`; NaN where nothing is known.
    pub values: Vec<f32>,
}

/// Draws a match picture.
pub fn draw(match_picture: &MatchPicture) -> RgbImage {
    let MatchPicture {
        source, targets, ..
    } = match_picture;
    let panels: Vec<Panel> = std::iter::once(*source)
        .chain(targets.iter().map(|target| target.panel))
        .collect();
    let extents: Vec<Extent> = panels.iter().map(|panel| extent(panel.picture)).collect();
    let heats = |target: &Target| {
        let known = target.found.iter().all(|found| found.heat.is_some());
        if known { target.found.len() } else { 0 }
    };
    let layout = Layout::new(&extents, &targets.iter().map(heats).collect::<Vec<_>>());
    let Extent { width, height } = layout.sheet;
    let mut sheet = RgbImage::from_pixel(width as u32, height as u32, colour::PAPER);

    let scaled: Vec<RgbImage> = (panels.iter().zip(&layout.pictures))
        .map(|(panel, &area)| resized(panel.picture, area))
        .collect();
    for (index, (panel, &area)) in panels.iter().zip(&layout.pictures).enumerate() {
        let (left, top) = (area.left.into(), area.top.into());
        imageops::replace(&mut sheet, &scaled[index], left, top);
        let caption = pen::shortened(panel.caption, layout.captions[index]);
        let below = [area.left.into(), i64::from(area.bottom()) + 6];
        pen::text(&mut sheet, below, &caption, Weight::Regular, colour::INK);
    }
    draw_points(&mut sheet, match_picture, &layout);
    for ((target, areas), ground) in targets.iter().zip(&layout.heats).zip(&scaled[1..]) {
        for (index, (&area, found)) in areas.iter().zip(target.found).enumerate() {
            draw_heat(&mut sheet, ground, found, area);
            let at = area.place(extent(target.panel.picture), found.point);
            ring(&mut sheet, at, area);
            describe(&mut sheet, found, index, area);
        }
    }
    if let Some(area) = layout.scale {
        draw_scale(&mut sheet, area);
    }
    sheet
}

/// Lines between source and target if there is only one target, and the markers.
fn draw_points(sheet: &mut RgbImage, match_picture: &MatchPicture, layout: &Layout) {
    let MatchPicture {
        source,
        points,
        targets,
    } = match_picture;
    let numbered = points.len() <= NUMBERED;
    let place = |panel: &Panel, area: &Area, point| area.place(extent(panel.picture), point);
    let asked: Vec<[f32; 2]> = (points.iter())
        .map(|&point| place(source, &layout.pictures[0], point))
        .collect();
    let found: Vec<Vec<[f32; 2]>> = (targets.iter().zip(&layout.pictures[1..]))
        .map(|(target, area)| {
            let points = target.found.iter().take(points.len());
            points
                .map(|found| place(&target.panel, area, found.point))
                .collect()
        })
        .collect();
    if let ([found], true) = (&found[..], points.len() <= LINED) {
        for (index, (&from, &to)) in asked.iter().zip(found).enumerate() {
            pen::line(sheet, from, to, 4.0, colour::PAPER, 0.45);
            pen::line(sheet, from, to, 2.0, colour::of_point(index), 0.95);
        }
    }
    for points in std::iter::once(&asked).chain(&found) {
        for (index, &at) in points.iter().enumerate().rev() {
            mark(sheet, at, index, numbered);
        }
    }
}

/// A disc in the point's colour with a white and a dark rim, and its number.
fn mark(sheet: &mut RgbImage, at: [f32; 2], index: usize, numbered: bool) {
    let radius = if numbered { 10.0 } else { 4.0 };
    let colour = colour::of_point(index);
    pen::disc(sheet, at, radius + 2.5, colour::INK, 0.7);
    pen::disc(sheet, at, radius + 1.5, colour::PAPER, 1.0);
    pen::disc(sheet, at, radius, colour, 1.0);
    if numbered {
        let number = (index + 1).to_string();
        pen::centred_text(
            sheet,
            at,
            &number,
            Weight::Bold,
            colour::readable_on(colour),
        );
    }
}

/// The greyed target under its similarities.
fn draw_heat(sheet: &mut RgbImage, target: &RgbImage, found: &Found, area: Area) {
    let Some(heat) = &found.heat else { return };
    let [lowest, highest] = heat.range();
    for (x, y, &pixel) in resized(target, area).enumerate_pixels() {
        let value = (heat.at(x, y, area) - lowest) / (highest - lowest).max(f32::MIN_POSITIVE);
        let pixel = colour::heated(colour::greyed(pixel), value);
        sheet.put_pixel(area.left + x, area.top + y, pixel);
    }
}

/// Below an area: the point's colour and number, and the similarity where it was found.
fn describe(sheet: &mut RgbImage, found: &Found, index: usize, area: Area) {
    let (left, top) = (i64::from(area.left), i64::from(area.bottom()) + 5);
    let dot = [left as f32 + 5.5, top as f32 + 7.5];
    pen::disc(sheet, dot, 5.5, colour::of_point(index), 1.0);
    let number = (index + 1).to_string();
    pen::text(sheet, [left + 17, top], &number, Weight::Bold, colour::INK);
    let similarity = format!("{:.2}", found.similarity);
    let after = left + 25 + i64::from(pen::text_width(&number, Weight::Bold));
    pen::text(
        sheet,
        [after, top],
        &similarity,
        Weight::Regular,
        colour::FAINT,
    );
}

/// An open ring, so that the place itself stays visible; smaller in small areas.
fn ring(sheet: &mut RgbImage, [x, y]: [f32; 2], area: Area) {
    const STEPS: usize = 24;
    let radius = (0.03 * area.width.min(area.height) as f32).clamp(4.0, 7.0);
    let corner = |step: usize| {
        let (sin, cos) = (step as f32 * std::f32::consts::TAU / STEPS as f32).sin_cos();
        [x + radius * cos, y + radius * sin]
    };
    for (width, colour) in [(3.6, colour::INK), (1.8, colour::PAPER)] {
        for step in 0..STEPS {
            pen::line(sheet, corner(step), corner(step + 1), width, colour, 1.0);
        }
    }
}

/// The colours from the least to the most similar, as they look on a grey picture.
fn draw_scale(sheet: &mut RgbImage, area: Area) {
    for y in area.top..area.bottom() {
        for x in 0..area.width {
            let value = x as f32 / (area.width - 1).max(1) as f32;
            sheet.put_pixel(area.left + x, y, colour::heated(Rgb([150; 3]), value));
        }
    }
    let all = "least to most similar, in each map";
    let fits = pen::text_width(all, Weight::Regular) <= area.width;
    let words = if fits { all } else { "similarity" };
    let below = [area.left.into(), i64::from(area.bottom()) + 5];
    pen::text(sheet, below, words, Weight::Regular, colour::FAINT);
}

impl Heat {
    /// The lowest and the highest known value.
    fn range(&self) -> [f32; 2] {
        let known = || {
            self.values
                .iter()
                .copied()
                .filter(|value| value.is_finite())
        };
        [
            known().fold(f32::INFINITY, f32::min),
            known().fold(f32::NEG_INFINITY, f32::max),
        ]
    }

    /// The value under a pixel of an area that the map fills, interpolated.
    fn at(&self, x: u32, y: u32, area: Area) -> f32 {
        let between = |pixel: u32, pixels: u32, cells: usize| {
            let position = (pixel as f32 + 0.5) * cells as f32 / pixels as f32 - 0.5;
            let position = position.clamp(0.0, (cells - 1) as f32);
            let low = position as usize;
            (low, (low + 1).min(cells - 1), position - low as f32)
        };
        let Extent { width, height } = self.extent;
        let (left, right, u) = between(x, area.width, width);
        let (top, bottom, v) = between(y, area.height, height);
        let value = |column: usize, row: usize| self.values[row * width + column];
        let along = |row| value(left, row) + u * (value(right, row) - value(left, row));
        along(top) + v * (along(bottom) - along(top))
    }
}

fn extent(picture: &RgbImage) -> Extent {
    Extent::new(picture.width() as usize, picture.height() as usize)
}

/// A picture at the size of an area; much enlarged ones keep their pixels visible.
fn resized(picture: &RgbImage, area: Area) -> RgbImage {
    let filter = if area.width >= 6 * picture.width() {
        FilterType::Nearest
    } else {
        FilterType::CatmullRom
    };
    imageops::resize(picture, area.width, area.height, filter)
}

#[cfg(test)]
mod tests;
