//! Values outside a graph: a batch of maps.

use super::node::Shape;

/// Values of some images, each `[row][column][channel]`, one after the other.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor<T> {
    /// The number of images.
    pub images: usize,
    /// The shape of each.
    pub shape: Shape,
    /// All values.
    pub data: Vec<T>,
}

impl<T: Copy> Tensor<T> {
    /// A batch of `images` maps.
    ///
    /// # Panics
    /// If the number of values does not fit.
    pub fn new(images: usize, shape: Shape, data: Vec<T>) -> Self {
        assert_eq!(
            data.len(),
            images * shape.size(),
            "{images} images of {shape}"
        );
        Self {
            images,
            shape,
            data,
        }
    }

    /// One image's values. A tensor of one image serves for every image of a batch.
    pub fn image(&self, index: usize) -> &[T] {
        let size = self.shape.size();
        let index = if self.images == 1 { 0 } else { index };
        &self.data[index * size..(index + 1) * size]
    }

    /// From `[image][channel][row][column]`, as files keep maps.
    pub fn from_channels_first(images: usize, shape: Shape, data: &[T]) -> Self {
        assert_eq!(
            data.len(),
            images * shape.size(),
            "{images} images of {shape}"
        );
        let cells = shape.cells();
        let mut values = Vec::with_capacity(data.len());
        for image in data.chunks_exact(shape.size()) {
            for cell in 0..cells {
                values.extend((0..shape.channels).map(|channel| image[channel * cells + cell]));
            }
        }
        Self {
            images,
            shape,
            data: values,
        }
    }

    /// To `[image][channel][row][column]`.
    pub fn to_channels_first(&self) -> Vec<T> {
        let cells = self.shape.cells();
        let mut values = Vec::with_capacity(self.data.len());
        for image in self.data.chunks_exact(self.shape.size()) {
            for channel in 0..self.shape.channels {
                values.extend((0..cells).map(|cell| image[cell * self.shape.channels + channel]));
            }
        }
        values
    }
}

/// A graph was given inputs that do not fit it, or its parameters could not be read.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// An input is not there.
    #[error("the graph needs an input `{0}`")]
    MissingInput(String),
    /// An input has another shape.
    #[error("input `{name}` is {found}, expected {expected}")]
    InputShape {
        /// The input.
        name: String,
        /// The shape given.
        found: Shape,
        /// The shape needed.
        expected: Shape,
    },
    /// Inputs of different batches.
    #[error("input `{name}` holds {found} images, the batch has {expected}")]
    InputImages {
        /// The input.
        name: String,
        /// Images given.
        found: usize,
        /// Images expected.
        expected: usize,
    },
    /// A parameter could not be read.
    #[error(transparent)]
    Read(#[from] super::ReadError),
}

/// A named value given to, or got from, a graph.
pub type Named<T> = (String, Tensor<T>);

/// Finds an input among those given and checks its shape and its number of images (1 serves for
/// any batch).
pub(crate) fn find_input<'t, T>(
    inputs: &'t [(&str, &'t Tensor<T>)],
    name: &str,
    expected: Shape,
    images: usize,
) -> Result<&'t Tensor<T>, RunError> {
    let (_, tensor) = inputs
        .iter()
        .find(|(given, _)| *given == name)
        .ok_or_else(|| RunError::MissingInput(name.to_owned()))?;
    if tensor.shape != expected {
        let (name, found) = (name.to_owned(), tensor.shape);
        return Err(RunError::InputShape {
            name,
            found,
            expected,
        });
    }
    if tensor.images != 1 && tensor.images != images {
        let (name, found) = (name.to_owned(), tensor.images);
        return Err(RunError::InputImages {
            name,
            found,
            expected: images,
        });
    }
    Ok(tensor)
}
