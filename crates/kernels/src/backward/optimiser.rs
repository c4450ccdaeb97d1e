//! The arithmetic of an optimiser's step.

use crate::Kernels;
use crate::simd::Simd;
use crate::threads::rows_in_task;
use rayon::prelude::*;

/// A step of Adam (Kingma and Ba, arXiv 1412.6980, algorithm 1), without weight decay.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Adam {
    /// The learning rate.
    pub rate: f64,
    /// How much of each moment's average stays, for the first and the second moment.
    pub betas: [f64; 2],
    /// What is added to the root of the second moment, once its bias is taken off.
    pub eps: f64,
    /// The number of this step, from 1.
    pub step: u32,
}

/// Some parameters in a step, all as long.
pub(crate) struct Parameters<'a> {
    values: &'a mut [f32],
    gradients: &'a [f32],
    first: &'a mut [f32],
    second: &'a mut [f32],
}

/// The numbers of a step, as its arithmetic uses them.
pub(crate) struct AdamFactors {
    /// How much stays of the second moment.
    keep: f32,
    /// How much comes to each moment.
    take: [f32; 2],
    /// One by the root of the second moment's bias.
    root: f32,
    eps: f32,
    /// The learning rate by the first moment's bias, negative.
    rate: f32,
}

impl Kernels {
    /// One step of Adam, as PyTorch's: `m += (1 - b1) (g - m)`, `v = b2 v + (1 - b2) g²`, and
    /// `p -= rate / (1 - b1^t) * m / (sqrt(v) / sqrt(1 - b2^t) + eps)`. Both moments are zeros
    /// before the first step.
    ///
    /// # Panics
    /// If the lengths differ, or the step is 0.
    pub fn adam(
        &self,
        parameters: &mut [f32],
        gradients: &[f32],
        first: &mut [f32],
        second: &mut [f32],
        step: &Adam,
    ) {
        assert!(step.step > 0, "steps count from 1");
        let count = parameters.len();
        assert_eq!(gradients.len(), count, "length of gradients");
        assert_eq!(first.len(), count, "length of the first moments");
        assert_eq!(second.len(), count, "length of the second moments");
        let factors = step.factors();
        let task = rows_in_task(1);
        parameters
            .par_chunks_mut(task)
            .zip(gradients.par_chunks(task))
            .zip(first.par_chunks_mut(task).zip(second.par_chunks_mut(task)))
            .for_each(|((values, gradients), (first, second))| {
                let parameters = Parameters {
                    values,
                    gradients,
                    first,
                    second,
                };
                // SAFETY: this machine has this table's instruction set; the lengths are equal.
                unsafe { (self.adam)(&factors, parameters) }
            });
    }
}

impl Adam {
    fn factors(&self) -> AdamFactors {
        let bias = self.betas.map(|beta| 1.0 - beta.powf(f64::from(self.step)));
        AdamFactors {
            keep: self.betas[1] as f32,
            take: self.betas.map(|beta| (1.0 - beta) as f32),
            root: (1.0 / bias[1].sqrt()) as f32,
            eps: self.eps as f32,
            rate: (-self.rate / bias[0]) as f32,
        }
    }
}

/// A step of Adam for some parameters.
///
/// # Safety
/// The machine has `V`'s instruction set; the slices are as long.
#[inline(always)]
pub(crate) unsafe fn adam_body<V: Simd>(factors: &AdamFactors, parameters: Parameters<'_>) {
    let Parameters {
        values,
        gradients,
        first,
        second,
    } = parameters;
    // SAFETY: the slices are as long; the last vector touches only what is left.
    unsafe {
        for i in (0..values.len()).step_by(V::LANES) {
            let left = values.len() - i;
            let value = values.as_mut_ptr().add(i);
            let (m, v) = (first.as_mut_ptr().add(i), second.as_mut_ptr().add(i));
            let gradient = V::load_up_to(gradients.as_ptr().add(i), left);
            let mean = V::load_up_to(m, left);
            let mean = gradient.sub(mean).mul_add(V::fill(factors.take[0]), mean);
            let square = V::load_up_to(v, left).mul(V::fill(factors.keep));
            let square = gradient
                .mul(gradient)
                .mul_add(V::fill(factors.take[1]), square);
            mean.store_up_to(m, left);
            square.store_up_to(v, left);
            let root = square
                .sqrt()
                .mul_add(V::fill(factors.root), V::fill(factors.eps));
            mean.mul(root.reciprocal())
                .mul_add(V::fill(factors.rate), V::load_up_to(value, left))
                .store_up_to(value, left);
        }
    }
}
