//! The tasks on whole pictures: masks carried through videos, depth, segmentation, classification.

use std::path::PathBuf;

use clap::Args;
use cleandift::eval::classification::{Classification, Classifier};
use cleandift::eval::datasets::classes::ClassSet;
use cleandift::eval::datasets::davis;
use cleandift::eval::datasets::depths::DepthSet;
use cleandift::eval::datasets::masks::{MaskOptions, MaskSet};
use cleandift::eval::depth::Depth;
use cleandift::eval::probes::{Propagation, Vote};
use cleandift::eval::segmentation::Segmentation;
use cleandift::eval::video::Video;
use cleandift::eval::{Probing, Task};
use cleandift::image::{Filter, Fit, Resample, Size};

use super::common::CommonArguments;
use super::run::{Defaults, PROBES, Prepared};
use crate::arguments::parse_positive;
use crate::failure::Failure;

/// The paper's tap for dense tasks.
const DENSE_TAP: &str = "us6";

/// The tap that classifies best in the paper.
const CLASS_TAP: &str = "mid";

/// DIFT's tap for videos.
const VIDEO_TAP: &str = "us9";

/// What is told to the model about every picture.
#[derive(Args, Clone, Debug)]
struct PromptArguments {
    /// The prompt for all pictures
    #[arg(long, value_name = "TEXT")]
    prompt: Option<String>,
}

impl PromptArguments {
    fn or(&self, default: &str) -> String {
        self.prompt.clone().unwrap_or_else(|| default.to_owned())
    }
}

/// How a probe is made.
#[derive(Args, Clone, Debug)]
struct ProbeArguments {
    /// A probe that is used as it is, such as the published depth probe; nothing is trained
    #[arg(long, value_name = "FILE")]
    probe: Option<PathBuf>,

    /// The seed of training
    #[arg(long, value_name = "S", default_value_t = 0, conflicts_with = "probe")]
    probe_seed: u64,
}

impl ProbeArguments {
    /// Trained probes go into the output's folder.
    fn probing(&self, common: &CommonArguments) -> Probing {
        Probing {
            seed: self.probe_seed,
            load: self.probe.clone(),
            save: Some(common.output.join(PROBES)),
            ..Probing::default()
        }
    }
}

fn prepared(
    task: impl Task + 'static,
    taps: &str,
    size: Option<Size>,
    resample: Resample,
) -> Prepared {
    Prepared {
        task: Box::new(task),
        defaults: Defaults {
            fit: Fit::Squash,
            resample,
            size,
            window: None,
            taps: taps.to_owned(),
        },
        fuse: None,
    }
}

const BICUBIC: Resample = Resample::Filter(Filter::Bicubic);

/// Masks of objects carried from a video's first frame to the others (DAVIS 2017)
#[derive(Args, Debug)]
pub struct DavisArguments {
    /// The folder that is or holds `DAVIS`
    #[arg(long, value_name = "DIR")]
    data: PathBuf,

    /// val or train
    #[arg(long, default_value = "val")]
    part: String,

    /// The temperature of similarities
    #[arg(long, value_name = "T", default_value_t = Propagation::DIFT.temperature,
        value_parser = parse_temperature)]
    temperature: f64,

    /// How many of the most similar cells count
    #[arg(long, value_name = "N", default_value_t = Propagation::DIFT.top,
        value_parser = parse_positive)]
    top: usize,

    /// Frames looked at beside the first
    #[arg(long, value_name = "N", default_value_t = Propagation::DIFT.frames)]
    previous: usize,

    /// How far masks may move, in cells
    #[arg(long, value_name = "N", default_value_t = Propagation::DIFT.radius)]
    radius: usize,

    #[command(flatten)]
    prompt: PromptArguments,

    #[command(flatten)]
    pub common: CommonArguments,
}

/// A number above 0.
fn parse_temperature(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if number > 0.0 && number.is_finite() => Ok(number),
        _ => Err("expected a number above 0".to_owned()),
    }
}

impl DavisArguments {
    pub fn prepare(&self) -> Result<Prepared, Failure> {
        let sequences = davis::open(&self.data, &self.part)?;
        let settings = Propagation {
            temperature: self.temperature,
            top: self.top,
            frames: self.previous,
            radius: self.radius,
        };
        let task = Video::new(sequences, &self.part, settings, &self.prompt.or(""));
        let size = "native:64".parse()?;
        Ok(prepared(task, VIDEO_TAP, Some(size), BICUBIC))
    }
}

/// Depth by a linear probe (NYU Depth v2, any pictures with registered depth)
#[derive(Args, Debug)]
pub struct DepthArguments {
    /// The folder with nyu_depth_v2_labeled.mat, nyu_train.txt, FastDepth's files, train-*.tar, or
    /// train and test
    #[arg(long, value_name = "DIR")]
    data: PathBuf,

    /// Neighbouring frames that are taken as one; default: 1 for NYU, 5 for others
    #[arg(long, value_name = "N", value_parser = parse_positive)]
    block: Option<usize>,

    #[command(flatten)]
    probe: ProbeArguments,

    #[command(flatten)]
    prompt: PromptArguments,

    #[command(flatten)]
    pub common: CommonArguments,
}

impl DepthArguments {
    pub fn prepare(&self) -> Result<Prepared, Failure> {
        let set = DepthSet::open(&self.data, self.block)?;
        let prompt = self.prompt.or("A photo of a room");
        let task = Depth::new(set, self.probe.probing(&self.common), &prompt);
        Ok(prepared(task, DENSE_TAP, None, Resample::Tensor))
    }
}

/// A class for each pixel by a linear probe (PASCAL VOC, CamVid, any pictures with masks)
#[derive(Args, Debug)]
pub struct SegmentationArguments {
    /// The folder that is or holds VOC2012, or has lists or folders of pictures and masks
    #[arg(long, value_name = "DIR")]
    data: PathBuf,

    /// The label of unknown pixels beside 255; default: what the list of classes calls void
    #[arg(long, value_name = "LABEL")]
    void: Option<u8>,

    /// Neighbouring frames that are taken as one; default: 1 for VOC, 5 for others
    #[arg(long, value_name = "N", value_parser = parse_positive)]
    block: Option<usize>,

    #[command(flatten)]
    probe: ProbeArguments,

    #[command(flatten)]
    prompt: PromptArguments,

    #[command(flatten)]
    pub common: CommonArguments,
}

impl SegmentationArguments {
    pub fn prepare(&self) -> Result<Prepared, Failure> {
        let options = MaskOptions {
            void: self.void,
            block: self.block,
        };
        let set = MaskSet::open(&self.data, options)?;
        let probing = self.probe.probing(&self.common);
        let task = Segmentation::new(set, probing, &self.prompt.or(""));
        Ok(prepared(task, DENSE_TAP, None, BICUBIC))
    }
}

/// The class of a picture by its nearest neighbours (ImageNet folders, WebDataset, CIFAR)
#[derive(Args, Debug)]
pub struct KnnArguments {
    /// The folder with train/CLASS and val/CLASS, train-*.tar and val-*.tar, or CIFAR's binaries
    #[arg(long, value_name = "DIR")]
    data: PathBuf,

    /// How many neighbours vote; the first number ranks
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "10,1,5,20,100",
        value_parser = parse_positive)]
    k: Vec<usize>,

    /// Weigh votes by exp(cosine / T) instead of equally; DINOv2 has 0.07
    #[arg(long, value_name = "T", value_parser = parse_temperature)]
    temperature: Option<f64>,

    #[command(flatten)]
    prompt: PromptArguments,

    #[command(flatten)]
    pub common: CommonArguments,
}

impl KnnArguments {
    pub fn prepare(&self) -> Result<Prepared, Failure> {
        let vote = match self.temperature {
            Some(temperature) => Vote::Weighted { temperature },
            None => Vote::Equal,
        };
        let classifier = Classifier::Neighbours {
            ks: self.k.clone(),
            vote,
        };
        let set = ClassSet::open(&self.data)?;
        let task = Classification::new(set, classifier, &self.prompt.or(""));
        Ok(prepared(task, CLASS_TAP, None, BICUBIC))
    }
}

/// The class of a picture by a linear probe (ImageNet folders, WebDataset, CIFAR)
#[derive(Args, Debug)]
pub struct LinearArguments {
    /// The folder with train/CLASS and val/CLASS, train-*.tar and val-*.tar, or CIFAR's binaries
    #[arg(long, value_name = "DIR")]
    data: PathBuf,

    #[command(flatten)]
    prompt: PromptArguments,

    #[command(flatten)]
    pub common: CommonArguments,
}

impl LinearArguments {
    pub fn prepare(&self) -> Result<Prepared, Failure> {
        let classifier = Classifier::linear(Some(self.common.output.join(PROBES)));
        let set = ClassSet::open(&self.data)?;
        let task = Classification::new(set, classifier, &self.prompt.or(""));
        Ok(prepared(task, CLASS_TAP, None, BICUBIC))
    }
}
