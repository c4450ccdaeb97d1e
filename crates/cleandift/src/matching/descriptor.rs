//! The direction of a feature vector: what is looked for.

use crate::features::FeatureMap;

/// The shortest length that a vector is divided by, as in PyTorch's `F.normalize`.
pub(super) const SHORTEST: f64 = 1e-12;

/// A feature vector scaled to length one; made by [`Field::descriptor`] or
/// [`Field::cell_descriptor`].
///
/// A vector of zeros stays zero: it is similar to nothing.
///
/// [`Field::descriptor`]: super::Field::descriptor
/// [`Field::cell_descriptor`]: super::Field::cell_descriptor
#[derive(Clone, Debug, PartialEq)]
pub struct Descriptor(Vec<f64>);

impl Descriptor {
    /// The weighted sum of some cells of a map, each given by column and row, made unit length.
    pub(super) fn blend(map: &FeatureMap, cells: &[([usize; 2], f64)]) -> Self {
        let mut values = vec![0.0; map.channels()];
        for &([column, row], weight) in cells {
            for (sum, &value) in values.iter_mut().zip(map.cell(column, row)) {
                *sum += weight * f64::from(value);
            }
        }
        let length = dot(&values, &values).sqrt().max(SHORTEST);
        values.iter_mut().for_each(|value| *value /= length);
        Self(values)
    }

    /// The values, one a channel.
    pub fn values(&self) -> &[f64] {
        &self.0
    }
}

/// The dot product in f64, summed in eight interleaved parts (an order that is fixed and quick).
pub(super) fn dot<A, B>(a: &[A], b: &[B]) -> f64
where
    A: Copy + Into<f64>,
    B: Copy + Into<f64>,
{
    let (a, a_rest) = a.as_chunks::<8>();
    let (b, b_rest) = b.as_chunks::<8>();
    let mut parts = [0.0; 8];
    for (a, b) in a.iter().zip(b) {
        for lane in 0..8 {
            parts[lane] += a[lane].into() * b[lane].into();
        }
    }
    for (lane, (&a, &b)) in a_rest.iter().zip(b_rest).enumerate() {
        parts[lane] += a.into() * b.into();
    }
    parts.iter().sum()
}
