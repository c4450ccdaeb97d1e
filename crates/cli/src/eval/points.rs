//! The correspondence tasks: which data, by which protocol.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use cleandift::eval::correspondence::{Correspondence, PairSet};
use cleandift::eval::datasets::coco::{self, Across};
use cleandift::eval::datasets::{Draw, cub, keypoint_table, pf_pascal, pf_willow, spair};
use cleandift::eval::protocols::{DIFT, Pose, Protocol};
use cleandift::image::Size;

use super::common::CommonArguments;
use super::run::{Defaults, Prepared};
use crate::failure::Failure;

/// By which protocol.
#[derive(Args, Clone, Debug)]
pub struct ProtocolArguments {
    /// dift, sd-dino or tlfr: how pictures are fitted, points read off, errors counted
    #[arg(long, value_name = "NAME", default_value_t = DIFT)]
    protocol: Protocol,

    /// How tlfr tells whether a source is to be turned: by neighbours alone, or within the data set's
    /// object masks (SPair-71k's folder Segmentation)
    #[arg(long, value_name = "HOW", default_value = "neighbours")]
    pose: PoseArgument,

    /// Features made elsewhere (DINOv2, …), joined as sd-dino does: a folder of .npy or
    /// .safetensors named after the pictures, or one .safetensors file
    #[arg(long, value_name = "PATH")]
    fuse: Option<PathBuf>,
}

/// How poses are compared.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum PoseArgument {
    Neighbours,
    Masks,
}

impl From<PoseArgument> for Pose {
    fn from(how: PoseArgument) -> Self {
        match how {
            PoseArgument::Neighbours => Self::Neighbours,
            PoseArgument::Masks => Self::Masks,
        }
    }
}

/// Which pairs, where a data set has no list of them.
#[derive(Args, Clone, Debug)]
pub struct DrawArguments {
    /// At most so many pairs
    #[arg(long, value_name = "N", default_value_t = 1000)]
    pairs: usize,

    /// The seed that pairs are drawn by
    #[arg(long, value_name = "S", default_value_t = 0)]
    pair_seed: u64,
}

impl DrawArguments {
    fn draw(&self) -> Draw {
        Draw {
            count: self.pairs,
            seed: self.pair_seed,
        }
    }
}

impl ProtocolArguments {
    fn prepare(&self, set: PairSet) -> Prepared {
        let mut protocol = self.protocol;
        // Only a protocol that tries poses is told how.
        protocol.pose = protocol.pose.map(|_| self.pose.into());
        Prepared {
            defaults: Defaults {
                fit: protocol.fit,
                resample: protocol.resample,
                size: protocol
                    .canvas
                    .map(|side| Size::from(cleandift::image::Extent::new(side, side))),
                window: protocol.window,
                taps: protocol.taps.join(","),
            },
            fuse: self.fuse.clone(),
            task: Box::new(Correspondence::new(set, protocol)),
        }
    }
}

/// Semantic correspondence on SPair-71k
#[derive(Args, Debug)]
pub struct SpairArguments {
    /// The folder that is or holds `SPair-71k`
    #[arg(long, value_name = "DIR")]
    data: PathBuf,

    /// trn, val or test
    #[arg(long, default_value = "test")]
    split: String,

    #[command(flatten)]
    protocol: ProtocolArguments,

    #[command(flatten)]
    pub common: CommonArguments,
}

impl SpairArguments {
    pub fn prepare(&self) -> Result<Prepared, Failure> {
        Ok(self.protocol.prepare(spair::load(&self.data, &self.split)?))
    }
}

/// Semantic correspondence on PF-PASCAL
#[derive(Args, Debug)]
pub struct PfPascalArguments {
    /// The folder with `JPEGImages` and `Annotations`
    #[arg(long, value_name = "DIR")]
    data: PathBuf,

    /// The list of pairs; default: `test_pairs.csv` in the folder
    #[arg(long, value_name = "FILE")]
    list: Option<PathBuf>,

    #[command(flatten)]
    protocol: ProtocolArguments,

    #[command(flatten)]
    pub common: CommonArguments,
}

impl PfPascalArguments {
    pub fn prepare(&self) -> Result<Prepared, Failure> {
        let list = self
            .list
            .clone()
            .unwrap_or_else(|| self.data.join("test_pairs.csv"));
        Ok(self.protocol.prepare(pf_pascal::load(&self.data, &list)?))
    }
}

/// Semantic correspondence on PF-WILLOW
#[derive(Args, Debug)]
pub struct PfWillowArguments {
    /// The folder that is or holds `PF-dataset`
    #[arg(long, value_name = "DIR")]
    data: PathBuf,

    #[command(flatten)]
    protocol: ProtocolArguments,

    #[command(flatten)]
    pub common: CommonArguments,
}

impl PfWillowArguments {
    pub fn prepare(&self) -> Result<Prepared, Failure> {
        Ok(self.protocol.prepare(pf_willow::load(&self.data)?))
    }
}

/// Which animals are paired.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Pairing {
    /// Two of a species.
    IntraSpecies,
    /// Two species of a family.
    CrossSpecies,
    /// Two families.
    CrossFamily,
}

impl From<Pairing> for Across {
    fn from(pairing: Pairing) -> Self {
        match pairing {
            Pairing::IntraSpecies => Across::Species,
            Pairing::CrossSpecies => Across::Family,
            Pairing::CrossFamily => Across::Families,
        }
    }
}

/// Correspondence between animals on AP-10K
#[derive(Args, Debug)]
pub struct Ap10kArguments {
    /// The folder with `annotations` and `data`
    #[arg(long, value_name = "DIR")]
    data: PathBuf,

    /// Which annotations: ap10k-SPLIT.json
    #[arg(long, default_value = "test-split1")]
    split: String,

    /// Which animals are paired
    #[arg(long, default_value = "intra-species")]
    pairing: Pairing,

    #[command(flatten)]
    draw: DrawArguments,

    #[command(flatten)]
    protocol: ProtocolArguments,

    #[command(flatten)]
    pub common: CommonArguments,
}

impl Ap10kArguments {
    pub fn prepare(&self) -> Result<Prepared, Failure> {
        let (across, draw) = (self.pairing.into(), self.draw.draw());
        let set = coco::load_ap10k(&self.data, &self.split, across, draw)?;
        Ok(self.protocol.prepare(set))
    }
}

/// Correspondence between birds of a species on CUB-200-2011
#[derive(Args, Debug)]
pub struct CubArguments {
    /// The folder `CUB_200_2011`
    #[arg(long, value_name = "DIR")]
    data: PathBuf,

    #[command(flatten)]
    draw: DrawArguments,

    #[command(flatten)]
    protocol: ProtocolArguments,

    #[command(flatten)]
    pub common: CommonArguments,
}

impl CubArguments {
    pub fn prepare(&self) -> Result<Prepared, Failure> {
        Ok(self
            .protocol
            .prepare(cub::load(&self.data, self.draw.draw())?))
    }
}

/// Correspondence on any keypoints: a COCO json, or a folder with a CSV table and a tar of pictures
#[derive(Args, Debug)]
pub struct KeypointsArguments {
    /// The folder of the table, or of the pictures of --annotations
    #[arg(long, value_name = "DIR")]
    data: PathBuf,

    /// Keypoints in COCO's form
    #[arg(long, value_name = "FILE")]
    annotations: Option<PathBuf>,

    /// The table's split
    #[arg(long, default_value = "test")]
    split: String,

    #[command(flatten)]
    draw: DrawArguments,

    #[command(flatten)]
    protocol: ProtocolArguments,

    #[command(flatten)]
    pub common: CommonArguments,
}

impl KeypointsArguments {
    pub fn prepare(&self) -> Result<Prepared, Failure> {
        let draw = self.draw.draw();
        let set = match &self.annotations {
            Some(file) => coco::load(file, &self.data, Across::Species, draw)?,
            None => keypoint_table::load(&self.data, &self.split, draw)?,
        };
        Ok(self.protocol.prepare(set))
    }
}
