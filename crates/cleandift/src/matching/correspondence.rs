//! From points of a source picture to points of a target picture.

use super::descriptor::Descriptor;
use super::error::MatchError;
use super::field::Field;
use super::scan::{Block, Candidate};
use super::window::{best_cell, window_soft_argmax, within};
use crate::image::Extent;

/// Cells around the best pixel, in each direction, that a runner-up must be beyond; the
/// margin keeps a pixel exactly 2 cells away inside, on either side.
const NEIGHBOURHOOD: f64 = 2.0 + 1e-9;

/// Points whose dot products are kept at the same time.
const BATCH: usize = 64;

/// How a point is read from similarities.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Readout {
    /// The most similar pixel, both maps interpolated to the pixels of their pictures: the
    /// published procedure of CleanDIFT and DIFT.
    #[default]
    ArgMax,
    /// The centre of the most similar cell; the source is the cell that holds the point. The
    /// protocol of "A Tale of Two Features" (arXiv 2305.15347).
    Cell,
    /// The most similar cell and the softmax around it ([`window_soft_argmax`]); the source is
    /// the cell that holds the point. The zero-shot protocol of "Telling Left from Right".
    WindowSoftArgMax {
        /// Columns and rows of cells on each side of the best cell, published: 5.
        window: usize,
        /// What similarities are divided by, above zero, published: 0.02.
        temperature: f64,
    },
}

/// What to compute about each point.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Options {
    /// How a point is read from similarities.
    pub readout: Readout,
    /// Whether to match each found point back to the source.
    pub mutual: bool,
}

/// Where a source point was found in the target.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Match {
    /// The target pixel, column and row: the most similar one, or where cells are compared the
    /// shown pixel nearest to `refined`.
    pub point: [usize; 2],
    /// Cosine similarity at that pixel; where cells are compared, of the most similar cell.
    pub similarity: f64,
    /// The target point between pixels.
    ///
    /// Arg-max: the peak of the quadratic around the pixel, `point - H⁻¹ g` with slope g and
    /// curvature H from central differences of the similarities of its eight neighbours, at most
    /// half a pixel away along each axis; `point` itself where a neighbour is missing or there is
    /// no peak. Cell: its centre. Soft arg-max: the expected position. Both may lie on the padding
    /// beside the picture.
    pub refined: [f64; 2],
    /// Similarity of the best pixel that is more than 2 cells to the side of, above or below the
    /// found one; for a soft arg-max, of the best cell outside the window, for a cell, of the best
    /// one that is more than 2 cells away. The closer to
    /// `similarity`, the more ambiguous the match. `None` if there is no such pixel or cell.
    pub runner_up: Option<f64>,
    /// Where the found pixel was matched back to, if [`Options::mutual`] asked for it.
    pub returned: Option<Return>,
}

/// Where a found target pixel was matched back to in the source.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Return {
    /// The source pixel, column and row.
    pub point: [usize; 2],
    /// Its distance from the point that was asked for, in pixels of the source picture.
    pub distance: f64,
}

/// Finds points of the source's picture (pixels, also between whole ones) in the target's
/// picture, in the order of the points.
///
/// # Errors
/// If a point lies outside the source picture or its canvas does not show it, if the two maps have
/// different numbers of channels, or if a temperature is not above zero.
pub fn match_points(
    source: &Field,
    points: &[[f64; 2]],
    target: &Field,
    options: &Options,
) -> Result<Vec<Match>, MatchError> {
    let mut matches = find(source, points, target, options.readout)?;
    if options.mutual {
        let found: Vec<[f64; 2]> = (matches.iter())
            .map(|found| found.point.map(|v| v as f64))
            .collect();
        let back = find(target, &found, source, options.readout)?;
        for ((found, back), [x, y]) in matches.iter_mut().zip(back).zip(points) {
            let [back_x, back_y] = back.point.map(|v| v as f64);
            found.returned = Some(Return {
                point: back.point,
                distance: (back_x - x).hypot(back_y - y),
            });
        }
    }
    Ok(matches)
}

/// `count` x `count` points spread evenly over a picture, row by row.
///
/// Each is the centre of its part of the picture, usually between whole pixels.
pub fn grid(picture: Extent, count: usize) -> Vec<[f64; 2]> {
    let centre =
        |index: usize, pixels: usize| (index as f64 + 0.5) * pixels as f64 / count as f64 - 0.5;
    (0..count * count)
        .map(|i| {
            [
                centre(i % count, picture.width),
                centre(i / count, picture.height),
            ]
        })
        .collect()
}

fn find(
    source: &Field,
    points: &[[f64; 2]],
    target: &Field,
    readout: Readout,
) -> Result<Vec<Match>, MatchError> {
    let mut matches = Vec::with_capacity(points.len());
    for points in points.chunks(BATCH) {
        matches.extend(match readout {
            Readout::ArgMax => {
                let descriptors = descriptors(points, |point| source.descriptor(point))?;
                find_pixels(target, &descriptors)?
            }
            Readout::WindowSoftArgMax {
                window,
                temperature,
            } => {
                if !(temperature > 0.0 && temperature.is_finite()) {
                    return Err(MatchError::Temperature(temperature));
                }
                let descriptors = descriptors(points, |point| source.cell_descriptor(point))?;
                let cells = target.extent();
                find_cells(target, &descriptors, window, |similarities, _| {
                    window_soft_argmax(similarities, cells, window, temperature)
                })?
            }
            Readout::Cell => {
                let descriptors = descriptors(points, |point| source.cell_descriptor(point))?;
                let width = target.extent().width;
                let centre = |_: &[f64], best| [(best % width) as f64, (best / width) as f64];
                find_cells(target, &descriptors, NEIGHBOURHOOD as usize, centre)?
            }
        });
    }
    Ok(matches)
}

fn descriptors(
    points: &[[f64; 2]],
    descriptor: impl Fn([f64; 2]) -> Result<Descriptor, MatchError>,
) -> Result<Vec<Descriptor>, MatchError> {
    points.iter().map(|&point| descriptor(point)).collect()
}

fn find_pixels(target: &Field, descriptors: &[Descriptor]) -> Result<Vec<Match>, MatchError> {
    let dots = target.dots(descriptors)?;
    let nowhere: Vec<Block> = vec![[0..0, 0..0]; dots.len()];
    let best: Vec<Candidate> = (target.best_pixels(&dots, &nowhere).into_iter())
        .map(|best| best.expect("a field shows at least one pixel"))
        .collect();
    let around: Vec<Block> = best
        .iter()
        .map(|b| neighbourhood(target, b.point))
        .collect();
    let runners_up = target.best_pixels(&dots, &around);
    let found = best.iter().zip(runners_up).zip(&dots);
    Ok(found
        .map(|((best, runner_up), dots)| Match {
            point: best.point,
            similarity: best.similarity,
            refined: refine(target, dots, best),
            runner_up: runner_up.map(|other| other.similarity),
            returned: None,
        })
        .collect())
}

/// Reads each match from the similarities of cells: `position` gives it among the cells, from all
/// similarities and the place of the best.
fn find_cells(
    target: &Field,
    descriptors: &[Descriptor],
    window: usize,
    position: impl Fn(&[f64], usize) -> [f64; 2],
) -> Result<Vec<Match>, MatchError> {
    let cells = target.extent();
    let find = |descriptor| {
        let similarities = target.cell_similarities(descriptor)?;
        let best = best_cell(&similarities, |_| true).expect("a field has at least one cell");
        let other = best_cell(&similarities, |cell| !within(cells, best, cell, window));
        let refined = target.frame.from_cell(cells, position(&similarities, best));
        Ok(Match {
            point: target.raster.nearest(refined),
            similarity: similarities[best],
            refined,
            runner_up: other.map(|cell| similarities[cell]),
            returned: None,
        })
    };
    descriptors.iter().map(find).collect()
}

/// The pixels at most [`NEIGHBOURHOOD`] cells to the sides of, above or below a pixel.
fn neighbourhood(target: &Field, point: [usize; 2]) -> Block {
    let (frame, cells) = (&target.frame, target.extent());
    let [x, y] = frame.to_cell(cells, point.map(|v| v as f64));
    let first = frame.from_cell(cells, [x - NEIGHBOURHOOD, y - NEIGHBOURHOOD]);
    let last = frame.from_cell(cells, [x + NEIGHBOURHOOD, y + NEIGHBOURHOOD]);
    let pixels = |axis: usize| {
        first[axis].ceil().max(0.0) as usize..last[axis].floor().max(0.0) as usize + 1
    };
    [pixels(0), pixels(1)]
}

/// The peak of the quadratic through the best pixel and its eight neighbours (central
/// differences), at most half a pixel away along each axis.
fn refine(target: &Field, dots: &[f64], best: &Candidate) -> [f64; 2] {
    let [x, y] = best.point;
    let at = |across: isize, down: isize| {
        let neighbour = [x.checked_add_signed(across)?, y.checked_add_signed(down)?];
        target.similarity(dots, neighbour)
    };
    let shift = || {
        let (left, right, above, below) = (at(-1, 0)?, at(1, 0)?, at(0, -1)?, at(0, 1)?);
        let slope = [0.5 * (right - left), 0.5 * (below - above)];
        let across = left - 2.0 * best.similarity + right;
        let down = above - 2.0 * best.similarity + below;
        let mixed = 0.25 * (at(1, 1)? - at(1, -1)? - at(-1, 1)? + at(-1, -1)?);
        let determinant = across * down - mixed * mixed;
        (across < 0.0 && determinant > 0.0).then(|| {
            [
                (mixed * slope[1] - down * slope[0]) / determinant,
                (mixed * slope[0] - across * slope[1]) / determinant,
            ]
        })
    };
    let [across, down] = shift().unwrap_or([0.0; 2]);
    [
        x as f64 + across.clamp(-0.5, 0.5),
        y as f64 + down.clamp(-0.5, 0.5),
    ]
}
