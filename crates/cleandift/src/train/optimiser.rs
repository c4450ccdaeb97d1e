//! From gradients to changed parameters: Adam, and the average of what it passed through.

use std::collections::BTreeMap;
use std::sync::Arc;

use cleandift_kernels::{Adam, Kernels};
use serde::{Deserialize, Serialize};

use super::Masters;
use super::config::{ConfigError, demand, demand_positive};
use crate::graph::Parameters;

/// Adam (Kingma and Ba, arXiv 1412.6980) with decoupled weight decay (Loshchilov and Hutter, arXiv
/// 1711.05101).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OptimiserConfig {
    /// The learning rate at its highest.
    pub rate: f64,
    /// How much of the gradients' mean and of their mean square each step keeps.
    pub betas: [f64; 2],
    /// What a parameter loses in each step, as a share of it, times the learning rate. Matrices,
    /// kernels and tables only: never biases, norms and single numbers.
    pub weight_decay: f64,
    /// The greatest norm of all gradients together: longer ones are scaled down to it. Needs all
    /// gradients at once, as much memory as the parameters.
    pub clip: Option<f64>,
    /// Passes, each over other samples, whose gradients' mean makes one step. More than one needs
    /// all gradients at once, too.
    pub accumulate: usize,
    /// How much of the parameters' average each step keeps, at last: early on less, `(1 + step) /
    /// (10 + step)`. None: no average is kept.
    pub average: Option<f64>,
}

impl Default for OptimiserConfig {
    fn default() -> Self {
        Self {
            rate: 1e-4,
            betas: [0.9, 0.999],
            weight_decay: 0.0,
            clip: None,
            accumulate: 1,
            average: None,
        }
    }
}

impl OptimiserConfig {
    /// Added to the root of the mean square.
    pub const EPSILON: f64 = 1e-8;

    /// Checks what no type can say.
    ///
    /// # Errors
    /// The first value that makes no sense.
    pub fn check(&self) -> Result<(), ConfigError> {
        demand_positive(self.accumulate, "optimiser.accumulate")?;
        let keeps = |share: f64| (0.0..1.0).contains(&share);
        let [first, second] = self.betas;
        let words = format!("is [{first}, {second}], expected shares from 0 to less than 1");
        demand(keeps(first) && keeps(second), "optimiser.betas", words)?;
        let average = self.average.unwrap_or_default();
        let words = format!("is {average}, expected a share from 0 to less than 1");
        demand(keeps(average), "optimiser.average", words)?;
        let rate = self.rate;
        let words = format!("is {rate}, expected a positive number");
        demand(rate.is_finite() && rate > 0.0, "optimiser.rate", words)?;
        let decay = self.weight_decay;
        let words = format!("is {decay}, expected 0 or a positive number");
        let decays = decay.is_finite() && decay >= 0.0;
        demand(decays, "optimiser.weight_decay", words)?;
        let clip = self.clip.unwrap_or(1.0);
        let words = format!("is {clip}, expected a positive number");
        demand(clip > 0.0, "optimiser.clip", words)
    }

    /// Whether a parameter can be changed as soon as its gradient is known.
    pub fn is_fused(&self) -> bool {
        self.clip.is_none() && self.accumulate == 1
    }

    /// What a run that trains so many values keeps from step to step.
    pub fn footprint(&self, trained: usize) -> Footprint {
        let values = size_of::<f32>() * trained;
        Footprint {
            parameters: values,
            moments: 2 * values,
            average: self.average.map_or(0, |_| values),
            gradients: if self.is_fused() { 0 } else { values },
        }
    }
}

/// What a run keeps from step to step, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Footprint {
    /// The trained parameters in f32.
    pub parameters: usize,
    /// Both of Adam's moments.
    pub moments: usize,
    /// The parameters' average, if one is kept.
    pub average: usize,
    /// Gradients of all parameters at once, where clipping or accumulation needs them; with fused
    /// updates each is gone before the next comes.
    pub gradients: usize,
}

impl Footprint {
    /// In memory.
    pub fn memory(&self) -> usize {
        self.parameters + self.moments + self.average + self.gradients
    }

    /// A saved state on the disk.
    pub fn state(&self) -> usize {
        self.parameters + self.moments + self.average
    }
}

/// The means of a parameter's gradients and of their squares.
pub type Moments = [Vec<f32>; 2];

/// Changes parameters by their gradients.
#[derive(Clone, Debug)]
pub struct Optimiser {
    config: OptimiserConfig,
    kernels: &'static Kernels,
    moments: BTreeMap<String, Moments>,
}

impl Optimiser {
    /// With moments from a state, or none before the first step.
    pub fn new(
        config: OptimiserConfig,
        kernels: &'static Kernels,
        moments: BTreeMap<String, Moments>,
    ) -> Self {
        Self {
            config,
            kernels,
            moments,
        }
    }

    /// The moments of each parameter that was changed.
    pub fn moments(&self) -> &BTreeMap<String, Moments> {
        &self.moments
    }

    /// Changes one parameter in step number `step`, from 1, with a learning rate of `rate`.
    ///
    /// # Panics
    /// If there is no such parameter, or the gradient has another length.
    pub fn apply(&mut self, masters: &Masters, name: &str, gradient: &[f32], step: u64, rate: f64) {
        let adam = Adam {
            rate,
            betas: self.config.betas,
            eps: OptimiserConfig::EPSILON,
            step: u32::try_from(step).unwrap_or(u32::MAX),
        };
        let decays = masters.shape(name).is_some_and(|shape| shape.len() > 1);
        let kept = (1.0 - rate * self.config.weight_decay) as f32;
        if !self.moments.contains_key(name) {
            let zeros = || vec![0.0; gradient.len()];
            self.moments.insert(name.to_owned(), [zeros(), zeros()]);
        }
        let [first, second] = self.moments.get_mut(name).expect("it is there by now");
        masters.update(name, |values| {
            if decays && kept != 1.0 {
                values.iter_mut().for_each(|value| *value *= kept);
            }
            self.kernels.adam(values, gradient, first, second, &adam);
        });
    }
}

/// All gradients of a step, for what needs them at once.
#[derive(Clone, Debug, Default)]
pub struct Gradients {
    sums: BTreeMap<String, Vec<f32>>,
}

impl Gradients {
    /// Adds a pass's gradient of one parameter.
    pub fn add(&mut self, name: &str, gradient: &[f32]) {
        match self.sums.get_mut(name) {
            Some(sum) => sum.iter_mut().zip(gradient).for_each(|(sum, g)| *sum += g),
            None => {
                self.sums.insert(name.to_owned(), gradient.to_vec());
            }
        }
    }

    /// Multiplies all of them.
    pub fn scale(&mut self, factor: f64) {
        let values = self.sums.values_mut().flatten();
        values.for_each(|value| *value = (f64::from(*value) * factor) as f32);
    }

    /// The Euclidean norm of all of them together, summed in f64 in the order of names.
    pub fn norm(&self) -> f64 {
        let square = |values: &Vec<f32>| -> f64 {
            let values = values.iter().copied().map(f64::from);
            values.map(|value| value * value).sum()
        };
        self.sums.values().map(square).sum::<f64>().sqrt()
    }

    /// Scales them down to a norm of `greatest`, if they are longer, as PyTorch's `clip_grad_norm_`
    /// does, and returns the norm that they had.
    pub fn clip(&mut self, greatest: f64) -> f64 {
        let norm = self.norm();
        let factor = greatest / (norm + 1e-6);
        if factor < 1.0 {
            self.scale(factor);
        }
        norm
    }

    /// Names and gradients, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[f32])> {
        let sums = self.sums.iter();
        sums.map(|(name, values)| (name.as_str(), values.as_slice()))
    }
}

/// The exponential average of the parameters over the steps.
#[derive(Clone, Debug)]
pub struct Average {
    masters: Arc<Masters>,
    keep: f64,
}

impl Average {
    /// Begins with `masters`, whose values it may share with those in training.
    pub fn new(masters: Masters, keep: f64) -> Self {
        let masters = Arc::new(masters);
        Self { masters, keep }
    }

    /// The averaged parameters.
    pub fn masters(&self) -> &Arc<Masters> {
        &self.masters
    }

    /// Takes in the parameters after step number `step`, from 1.
    pub fn update(&mut self, parameters: &Masters, step: u64) {
        let keep = self.keep.min((1.0 + step as f64) / (10.0 + step as f64));
        let take = (1.0 - keep) as f32;
        for name in parameters.names() {
            let new = parameters.values(name);
            self.masters.update(name, |average| {
                let pairs = average.iter_mut().zip(new.iter());
                pairs.for_each(|(average, new)| *average += take * (new - *average));
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn masters() -> Masters {
        Masters::new([
            ("matrix".to_owned(), vec![1, 2], vec![1.0, -2.0]),
            ("bias".to_owned(), vec![2], vec![0.5, 0.0]),
        ])
    }

    /// AdamW as algorithm 2 of its paper has it, for one value.
    fn by_definition(mut value: f64, gradients: &[f64], rate: f64, decay: f64) -> f64 {
        let (mut first, mut second) = (0.0, 0.0);
        for (step, g) in (1..).zip(gradients) {
            first = 0.9 * first + 0.1 * g;
            second = 0.999 * second + 0.001 * g * g;
            let mean = first / (1.0 - 0.9_f64.powi(step));
            let square: f64 = second / (1.0 - 0.999_f64.powi(step));
            value -= rate * (mean / (square.sqrt() + 1e-8) + decay * value);
        }
        value
    }

    #[test]
    fn adam_decays_matrices_and_nothing_else() {
        let config = OptimiserConfig {
            weight_decay: 0.1,
            ..OptimiserConfig::default()
        };
        let masters = masters();
        let mut optimiser = Optimiser::new(config, Kernels::best(), BTreeMap::new());
        let gradients = [[0.3_f32, -0.2], [0.1, 0.4], [-0.5, 0.0]];
        for (step, gradient) in (1..).zip(&gradients) {
            for name in ["matrix", "bias"] {
                optimiser.apply(&masters, name, gradient, step, 0.01);
            }
        }
        for (name, start, decay) in [("matrix", [1.0, -2.0], 0.1), ("bias", [0.5, 0.0], 0.0)] {
            for (place, (found, start)) in masters.values(name).iter().zip(start).enumerate() {
                let gradients = gradients.map(|gradient| f64::from(gradient[place]));
                let expected = by_definition(start, &gradients, 0.01, decay);
                let error = (f64::from(*found) - expected).abs();
                assert!(error < 1e-6, "{name}: {found} {expected}");
            }
        }
    }

    #[test]
    fn gradients_are_clipped_together() {
        let mut gradients = Gradients::default();
        gradients.add("a", &[1.0, 0.0]);
        gradients.add("b", &[2.0]);
        gradients.add("a", &[1.0, 4.0]);
        // (2, 4) and 2: a norm of √24.
        assert!((gradients.norm() - 24.0_f64.sqrt()).abs() < 1e-12);
        assert!((gradients.clip(100.0) - 24.0_f64.sqrt()).abs() < 1e-12);
        assert!((gradients.norm() - 24.0_f64.sqrt()).abs() < 1e-12);
        gradients.clip(0.5);
        assert!((gradients.norm() - 0.5).abs() < 1e-6);
    }

    #[test]
    fn an_average_follows() {
        let masters = masters();
        let mut average = Average::new(masters.clone(), 0.9);
        masters.update("matrix", |values| values.fill(3.0));
        average.update(&masters, 1);
        // (1 + 1) / (10 + 1) stays in the first step: 2/11 of 1, 9/11 of 3.
        let found = average.masters().values("matrix")[0];
        assert!((found - 29.0 / 11.0).abs() < 1e-6, "{found}");
        average.update(&masters, 1000);
        let found = average.masters().values("matrix")[0];
        let expected = 0.9 * 29.0 / 11.0 + 0.1 * 3.0;
        assert!((found - expected).abs() < 1e-6, "{found}");
        assert_eq!(*masters.values("matrix"), [3.0, 3.0]);
    }
}
