//! What the network sees: numbers in [-1, 1].

use super::{Extent, Picture};

/// An image as the network takes it: `[row][column][3]` (red, green, blue), from -1 (black) to 1.
#[derive(Clone, Debug, PartialEq)]
pub struct Pixels {
    extent: Extent,
    values: Vec<f32>,
}

impl Pixels {
    /// The image of `extent` with these values, `[row][column][3]`.
    ///
    /// # Panics
    /// If the number of values is not `height * width * 3`.
    pub fn new(extent: Extent, values: Vec<f32>) -> Self {
        assert_eq!(values.len(), extent.width * extent.height * 3);
        Self { extent, values }
    }

    /// Width and height.
    pub fn extent(&self) -> Extent {
        self.extent
    }

    /// All values, `[row][column][3]`.
    pub fn values(&self) -> &[f32] {
        &self.values
    }
}

impl From<&Picture> for Pixels {
    fn from(picture: &Picture) -> Self {
        let values = value_of_byte();
        Self {
            extent: picture.extent(),
            values: picture
                .rgb()
                .iter()
                .map(|&byte| values[usize::from(byte)])
                .collect(),
        }
    }
}

/// The value of each byte: `v / 255 * 2 - 1`, every step rounded to f32 as PyTorch does after
/// torchvision's `to_tensor`.
pub(super) fn value_of_byte() -> [f32; 256] {
    std::array::from_fn(|byte| byte as f32 / 255.0 * 2.0 - 1.0)
}
