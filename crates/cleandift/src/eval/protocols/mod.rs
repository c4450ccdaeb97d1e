//! How published work measures correspondence, as explicit, named choices.
//!
//! | | `dift` | `sd-dino` | `tlfr` |
//! |---|---|---|---|
//! | from | DIFT, arXiv 2306.03881 | A Tale of Two Features, arXiv 2305.15347 | Telling Left from Right, arXiv 2311.17034 |
//! | picture onto canvas | squashed, bicubic | padded with black, Lanczos | the same |
//! | seen | whole | in windows of 512 | in windows of 512 |
//! | features | us6 | us8, us5, us2, each reduced to 256 components of the pair | us8, us5, us2 |
//! | readout | most similar pixel | most similar cell | window soft arg-max (5 cells, 0.02) |
//! | error measured | in pixels of the target | on a canvas of 840 | on a canvas of 840 |
//! | correct if error | `<=` α · side | `<` α · side | `<` α · side |
//! | first figure | over all points | over points by category, weighted by pairs | over all points |
//! | pose alignment | no | no | by mutual neighbours, or within masks |
//! | prompt | a photo of a … | A photo of a … | A photo of a … |
//!
//! # Where they differ from the published code
//!
//! `sd-dino` there finds components from random directions, which differ from run to run; here they
//! are always the same. `tlfr` there compares poses within masks that another network makes (SAM);
//! here it is the code's own variant without masks, the mean distance of mutual nearest neighbours,
//! on the grid of the features, or the same comparison within the data set's own masks
//! ([`Pose::Masks`]). Both there condition the model on a caption and on ODISE's embedding of
//! the picture; here, as in the CleanDIFT paper, on the caption alone.

mod descriptors;
mod mirror;
mod pose;

pub use descriptors::{describe, describe_together};
pub use mirror::{mirror_of, mirror_pairs_by_name};
pub use pose::{POSE_CELLS, masked_distance, mutual_distance};

use std::fmt;
use std::str::FromStr;

use serde_json::json;

use super::{EvalError, Settings};
use crate::image::{Extent, Filter, Fit, Frame, Resample};
use crate::matching::Readout;

/// A named protocol.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Protocol {
    /// Its name.
    pub name: &'static str,
    /// How a picture gets onto the canvas.
    pub fit: Fit,
    /// How it is resampled.
    pub resample: Resample,
    /// The canvas's sides, if the protocol fixes them; else the model's own.
    pub canvas: Option<usize>,
    /// The sides of the windows through which a model sees a larger canvas, if not whole.
    pub window: Option<usize>,
    /// The taps whose maps are joined, the one with the finest grid first.
    pub taps: &'static [&'static str],
    /// How many components of a pair's cells each tap's channels are reduced to, if at all.
    pub components: Option<usize>,
    /// What stands before the category in the prompt.
    pub prompt: &'static str,
    /// How a match is read off.
    pub readout: Readout,
    /// Where errors are measured.
    pub space: Space,
    /// Whether an error of exactly α · side is wrong.
    pub strict: bool,
    /// Which average comes first.
    pub average: Average,
    /// How it is decided whether the source is turned left to right before it is matched, if that
    /// is tried at all.
    pub pose: Option<Pose>,
}

/// Where points are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Space {
    /// In pixels of the pictures.
    Picture,
    /// On a square canvas of this side, onto which the picture is padded.
    Canvas(usize),
}

/// How the poses of two objects are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pose {
    /// By the mean distance of mutual nearest neighbours, without masks.
    Neighbours,
    /// By the mean distance to the nearest neighbour, within masks of the objects.
    Masks,
}

impl Pose {
    /// What reports call it.
    fn words(self) -> &'static str {
        match self {
            Self::Neighbours => "by mutual nearest neighbours",
            Self::Masks => "by nearest neighbours within masks",
        }
    }
}

/// How points become one figure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Average {
    /// Correct points over all points.
    Points,
    /// Correct over all points within each category, then the mean weighted by numbers of pairs.
    Categories,
    /// The mean over pairs of the share of correct points.
    Images,
}

/// The side of the canvas on which "A Tale of Two Features" and "Telling Left from Right" compare
/// points: 60 patches of 14 pixels.
const PATCHES: usize = 840;

/// DIFT, arXiv 2306.03881; also CleanDIFT's own.
pub const DIFT: Protocol = Protocol {
    name: "dift",
    fit: Fit::Squash,
    resample: Resample::Filter(Filter::Bicubic),
    canvas: None,
    window: None,
    taps: &["us6"],
    components: None,
    prompt: "a photo of a ",
    readout: Readout::ArgMax,
    space: Space::Picture,
    strict: false,
    average: Average::Points,
    pose: None,
};

/// "A Tale of Two Features", arXiv 2305.15347.
pub const SD_DINO: Protocol = Protocol {
    name: "sd-dino",
    fit: Fit::Pad,
    resample: Resample::Filter(Filter::Lanczos),
    canvas: Some(960),
    window: Some(512),
    taps: &["us8", "us5", "us2"],
    components: Some(256),
    prompt: "A photo of a ",
    readout: Readout::Cell,
    space: Space::Canvas(PATCHES),
    strict: true,
    average: Average::Categories,
    pose: None,
};

/// "Telling Left from Right", arXiv 2311.17034, zero-shot.
pub const TLFR: Protocol = Protocol {
    name: "tlfr",
    components: None,
    readout: Readout::WindowSoftArgMax {
        window: 5,
        temperature: 0.02,
    },
    average: Average::Points,
    pose: Some(Pose::Neighbours),
    ..SD_DINO
};

/// All protocols.
pub const ALL: [Protocol; 3] = [DIFT, SD_DINO, TLFR];

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl FromStr for Protocol {
    type Err = EvalError;

    fn from_str(text: &str) -> Result<Self, EvalError> {
        ALL.into_iter()
            .find(|known| known.name == text)
            .ok_or_else(|| {
                let names = ALL.map(|known| known.name).join(", ");
                EvalError::Unsuitable(format!("unknown protocol `{text}`; choose one of: {names}"))
            })
    }
}

impl Protocol {
    /// The prompt for a category.
    pub fn prompt_for(&self, category: &str) -> String {
        match category {
            "" => String::new(),
            category => format!("{}{category}", self.prompt),
        }
    }

    /// The choices, in words.
    pub fn settings(&self) -> Settings {
        let readout = match self.readout {
            Readout::ArgMax => "most similar pixel".to_owned(),
            Readout::Cell => "most similar cell".to_owned(),
            Readout::WindowSoftArgMax {
                window,
                temperature,
            } => format!("soft arg-max, window {window}, temperature {temperature}"),
        };
        let space = match self.space {
            Space::Picture => "pixels of the target".to_owned(),
            Space::Canvas(side) => format!("a canvas of {side}"),
        };
        let settings = [
            ("protocol", json!(self.name)),
            ("components", json!(self.components)),
            ("readout", json!(readout)),
            ("errors_in", json!(space)),
            ("correct_if", json!(if self.strict { "<" } else { "<=" })),
            ("pose_alignment", json!(self.pose.map(Pose::words))),
        ];
        settings
            .map(|(key, value)| (key.to_owned(), value))
            .into_iter()
            .collect()
    }

    /// Where points of a picture lie in the space of this protocol.
    pub fn placement(&self, picture: Extent, frame: &Frame) -> Placement {
        match self.space {
            Space::Picture => Placement {
                frame: *frame,
                scale: 1.0,
                offset: [0.0; 2],
                centred: 0.0,
            },
            Space::Canvas(side) => {
                let canvas = Extent::new(side, side);
                let long = picture.width.max(picture.height);
                // The published code rounds the short side, and the half of the rest down.
                let offset = |pixels: usize| {
                    let resized = (side * pixels) as f64 / long as f64;
                    ((side as f64 - resized.round_ties_even()) / 2.0).floor()
                };
                Placement {
                    frame: Frame::squash(canvas, canvas),
                    scale: side as f64 / long as f64,
                    offset: [offset(picture.width), offset(picture.height)],
                    // Points there are measured from the edge of the first pixel.
                    centred: 0.5,
                }
            }
        }
    }
}

/// How points of one picture become points of a protocol's space.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Placement {
    /// The frame that lays a feature map over the space.
    pub frame: Frame,
    /// The space's units per pixel of the picture.
    pub scale: f64,
    offset: [f64; 2],
    /// What the coordinate of a pixel's centre is.
    centred: f64,
}

impl Placement {
    /// From the picture to the space.
    pub fn place(&self, [x, y]: [f64; 2]) -> [f64; 2] {
        [
            x * self.scale + self.offset[0],
            y * self.scale + self.offset[1],
        ]
    }

    /// From the space to the picture.
    pub fn picture(&self, [x, y]: [f64; 2]) -> [f64; 2] {
        [
            (x - self.offset[0]) / self.scale,
            (y - self.offset[1]) / self.scale,
        ]
    }

    /// From the space to the frame's coordinates (pixel centres at whole numbers), kept on the
    /// canvas.
    pub fn to_frame(&self, point: [f64; 2]) -> [f64; 2] {
        let Extent { width, height } = self.frame.picture;
        let inside = |v: f64, pixels: usize| (v - self.centred).clamp(-0.5, pixels as f64 - 0.5);
        [inside(point[0], width), inside(point[1], height)]
    }

    /// The other way round.
    ///
    /// `sd-dino` takes 14 i + 6.5 as the centre of patch i, `tlfr` 14 i + 7: a cell's centre is
    /// already right for the first.
    pub fn of_frame(&self, point: [f64; 2], readout: Readout) -> [f64; 2] {
        match readout {
            Readout::WindowSoftArgMax { .. } => point.map(|v| v + self.centred),
            Readout::Cell | Readout::ArgMax => point,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By the published formulas: source patch `int(60/840 x) + 60 int(60/840 y)`, predicted point
    /// `14 i + 6.5` (sd-dino) and `14 i + 7` (tlfr).
    #[test]
    fn patches_are_those_of_the_published_code() {
        let cells = Extent::new(60, 60);
        let picture = Extent::new(500, 375);
        let frame = Frame::squash(picture, Extent::new(960, 960));
        let placement = SD_DINO.placement(picture, &frame);
        for x in [0.0, 13.9, 14.0, 300.0, 832.3, 839.9] {
            let [cell, _] = placement.frame.to_cell(cells, placement.to_frame([x, x]));
            assert_eq!(
                (cell + 0.5 + 1e-9).floor(),
                (60.0f64 / 840.0 * x + 1e-9).floor(),
                "{x}"
            );
        }
        let centre = placement.frame.from_cell(cells, [3.0, 0.0]);
        let hard = placement.of_frame(centre, SD_DINO.readout);
        let soft = placement.of_frame(centre, TLFR.readout);
        assert!((hard[0] - 48.5).abs() < 1e-9 && (soft[0] - 49.0).abs() < 1e-9);
        // 840 / 500 = 1.68; 375 * 1.68 = 630, int((840 - 630) / 2) = 105.
        let placed = placement.place([100.0, 10.0]);
        assert!((placed[0] - 168.0).abs() < 1e-9 && (placed[1] - 121.8).abs() < 1e-9);
    }

    #[test]
    fn names() {
        for protocol in ALL {
            assert_eq!(protocol.name.parse::<Protocol>().unwrap(), protocol);
        }
        assert!(
            "geo"
                .parse::<Protocol>()
                .unwrap_err()
                .to_string()
                .contains("sd-dino")
        );
    }
}
