//! What training makes small.

use std::sync::Arc;

use super::data::Batch;
use super::{Masters, TrainError};

/// Takes each trained parameter's name and gradient, as soon as it is complete: the parameter is
/// not read again in this step and may be changed at once.
pub type Sink<'s> = &'s mut (dyn FnMut(&str, &[f32]) + Send);

/// From a batch to losses and gradients.
///
/// Everything random in it is drawn by the samples' numbers: a sample's loss is the same in any
/// batch.
pub trait Objective {
    /// Runs forth and back. The gradients are those of the mean over the batch of the total loss.
    ///
    /// # Errors
    /// If the batch does not fit, or a value is not finite.
    fn run(
        &mut self,
        masters: &Arc<Masters>,
        batch: &Batch,
        sink: Sink<'_>,
    ) -> Result<Losses, TrainError>;

    /// The losses alone, with noise that depends on the samples' numbers and not on the run's seed.
    ///
    /// # Errors
    /// As [`Objective::run`].
    fn validate(&mut self, masters: &Arc<Masters>, batch: &Batch) -> Result<Losses, TrainError>;
}

/// A batch's losses, each the mean over its samples.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Losses {
    /// What is made small.
    pub total: f64,
    /// What it is made of, or what else is worth a look, by name.
    pub parts: Vec<(String, f64)>,
}

impl Losses {
    /// The mean of several batches' losses, each with its weight; nothing, of nothing.
    pub fn mean<'l>(all: impl IntoIterator<Item = (&'l Self, f64)>) -> Self {
        let mut sum = Self::default();
        let mut weights = 0.0;
        for (losses, weight) in all {
            weights += weight;
            sum.total += weight * losses.total;
            for (index, (name, loss)) in losses.parts.iter().enumerate() {
                if sum.parts.len() == index {
                    sum.parts.push((name.clone(), 0.0));
                }
                sum.parts[index].1 += weight * loss;
            }
        }
        if weights > 0.0 {
            sum.total /= weights;
            sum.parts.iter_mut().for_each(|(_, loss)| *loss /= weights);
        }
        sum
    }

    /// Whether all of them are numbers.
    pub fn is_finite(&self) -> bool {
        self.total.is_finite() && self.parts.iter().all(|(_, loss)| loss.is_finite())
    }
}
