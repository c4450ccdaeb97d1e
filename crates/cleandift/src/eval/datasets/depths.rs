//! Pictures with a measured depth for every pixel, whatever files they come from.

use std::path::Path;
use std::sync::Arc;

use super::{Annotated, Split, nyu, nyu_lists, rgbd};
use crate::archive::Place;
use crate::eval::EvalError;
use crate::eval::dense::DepthMap;
use crate::eval::metrics::depth::DepthRange;
use crate::image::Plane;

/// A picture and its depths.
pub type Measured = Annotated<DepthOrigin>;

/// Where depths are.
#[derive(Clone, Debug)]
pub enum DepthOrigin {
    /// A 16-bit PNG in millimetres.
    Png(Place),
    /// A file that holds many maps as plain numbers.
    Stack {
        /// The file.
        stack: Arc<dyn DepthStack>,
        /// Which map.
        index: usize,
    },
}

/// A file that holds many depth maps as plain numbers.
pub trait DepthStack: std::fmt::Debug + Send + Sync {
    /// One of its maps.
    ///
    /// # Errors
    /// If it cannot be read.
    fn depth(&self, index: usize) -> Result<DepthMap, EvalError>;
}

/// Steps of a 16-bit depth map a metre.
const PER_METRE: f32 = 1000.0;

impl Measured {
    /// The depths of its pixels.
    ///
    /// # Errors
    /// If they cannot be read.
    pub fn depths(&self) -> Result<DepthMap, EvalError> {
        match &self.origin {
            DepthOrigin::Stack { stack, index } => stack.depth(*index),
            DepthOrigin::Png(place) => {
                let name = place.name();
                let plane = Plane::decode(&place.bytes()?, &name)?;
                Ok(DepthMap::from_plane(&plane, PER_METRE, &name)?)
            }
        }
    }
}

/// A data set for depth.
#[derive(Clone, Debug)]
pub struct DepthSet {
    /// What was found, in words.
    pub layout: String,
    /// Which depths count.
    pub range: DepthRange,
    /// How many neighbouring frames are taken as one; 1 if the pictures are independent.
    pub block: usize,
    /// The pictures.
    pub split: Split<Measured>,
}

/// What a folder may hold.
const LAYOUTS: &str = "nyu_depth_v2_labeled.mat with splits.mat, nyu_train.txt and nyu_test.txt, \
    train/**/*.h5 and val/**/*.h5 (FastDepth), train-*.tar and test-*.tar with KEY.color.jpg and \
    KEY.depth.png (WebDataset), or folders train and test with such files or with folders rgb and \
    depth";

impl DepthSet {
    /// Opens a folder of one of the known layouts. `block` is how many neighbouring frames are
    /// taken as one: by default 1 for NYU, whose pictures are taken as independent, and 5 for
    /// others, which may be videos.
    ///
    /// # Errors
    /// If it is missing, of no known layout, or what it holds is malformed.
    pub fn open(folder: &Path, block: Option<usize>) -> Result<Self, EvalError> {
        if !folder.is_dir() {
            return Err(EvalError::missing(
                folder,
                format!("expected a folder with {LAYOUTS}"),
            ));
        }
        if let Some(set) = nyu::open(folder, block)? {
            return Ok(set);
        }
        if let Some(set) = nyu_lists::open(folder, block)? {
            return Ok(set);
        }
        if let Some(set) = rgbd::open(folder, block)? {
            return Ok(set);
        }
        Err(EvalError::malformed(
            folder,
            "none of the known layouts",
            LAYOUTS,
        ))
    }
}
