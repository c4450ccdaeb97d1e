//! Multinomial logistic regression, solved to its optimum.

use cleandift_kernels::Kernels;
use rayon::prelude::*;

use super::LinearProbe;
use super::cross_entropy::softmax_loss;
use super::train::{Gradient, gradient};

/// The problem that scikit-learn's `LogisticRegression(C=strength)` solves: the sum of the
/// negative log-probabilities of the true classes, times `strength`, plus half the squared length
/// of the weights (the biases are free).
///
/// It has one optimum, found by L-BFGS (Liu and Nocedal 1989) from zero: no seed, no schedule.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LogisticRegression {
    /// scikit-learn's `C`: the smaller, the more the weights are held back.
    pub strength: f64,
    /// The most iterations.
    pub iterations: usize,
    /// It ends when no component of the gradient of the mean loss is larger.
    pub tolerance: f64,
}

impl LogisticRegression {
    /// With this strength, and scikit-learn's defaults: at most 100 iterations, a tolerance of 1e-4.
    pub fn new(strength: f64) -> Self {
        Self {
            strength,
            iterations: 100,
            tolerance: 1e-4,
        }
    }

    /// Fits `outputs` classes to rows of features, `[row][feature]`, and their classes.
    ///
    /// # Panics
    /// If the rows are not as many as the classes, or there are none.
    pub fn fit(
        &self,
        kernels: &Kernels,
        rows: &[f32],
        classes: &[usize],
        outputs: usize,
    ) -> LinearProbe {
        assert!(!classes.is_empty(), "nothing to learn from");
        let inputs = rows.len() / classes.len();
        assert_eq!(rows.len(), inputs * classes.len(), "a class for each row");
        let problem = Problem {
            kernels,
            rows,
            classes,
            outputs,
            inputs,
            penalty: 1.0 / (self.strength * classes.len() as f64),
        };
        let parameters = self.descend(&problem);
        problem.probe(&parameters)
    }

    /// L-BFGS with backtracking.
    fn descend(&self, problem: &Problem) -> Vec<f64> {
        let mut at = vec![0.0; problem.outputs * (problem.inputs + 1)];
        let (mut loss, mut slope) = problem.evaluate(&at);
        let mut memory = Memory::default();
        for _ in 0..self.iterations {
            let steepest = slope.iter().fold(0.0f64, |most, s| most.max(s.abs()));
            if steepest <= self.tolerance {
                break;
            }
            let direction = memory.direction(&slope);
            let descent = dot(&direction, &slope);
            let mut length = match memory.is_empty() {
                true => 1.0 / dot(&slope, &slope).sqrt(),
                false => 1.0,
            };
            let found = (0..30).find_map(|_| {
                let next: Vec<f64> = (at.iter().zip(&direction))
                    .map(|(at, direction)| at + length * direction)
                    .collect();
                let (next_loss, next_slope) = problem.evaluate(&next);
                // Armijo's condition.
                let enough = next_loss <= loss + 1e-4 * length * descent;
                length *= 0.5;
                enough.then_some((next, next_loss, next_slope))
            });
            // No shorter step helps: this is as near as the arithmetic comes.
            let Some((next, next_loss, next_slope)) = found else {
                break;
            };
            memory.push(difference(&next, &at), difference(&next_slope, &slope));
            (at, loss, slope) = (next, next_loss, next_slope);
        }
        at
    }
}

/// The function that is minimised. Its parameters are the weights `[output][input]`, then the
/// biases.
struct Problem<'a> {
    kernels: &'a Kernels,
    rows: &'a [f32],
    classes: &'a [usize],
    outputs: usize,
    inputs: usize,
    penalty: f64,
}

impl Problem<'_> {
    fn probe(&self, parameters: &[f64]) -> LinearProbe {
        let narrow = |values: &[f64]| values.iter().map(|&value| value as f32).collect();
        let (weight, bias) = parameters.split_at(self.outputs * self.inputs);
        LinearProbe {
            outputs: self.outputs,
            inputs: self.inputs,
            weight: narrow(weight),
            bias: narrow(bias),
        }
    }

    /// The mean loss with its penalty, and the gradient.
    fn evaluate(&self, parameters: &[f64]) -> (f64, Vec<f64>) {
        let scale = 1.0 / self.classes.len() as f64;
        let mut slopes = self.probe(parameters).logits(self.kernels, self.rows);
        let losses: Vec<f64> = slopes
            .par_chunks_exact_mut(self.outputs)
            .zip(self.classes)
            .map(|(row, &class)| {
                let logits = row.to_vec();
                softmax_loss(&logits, class, 1.0, row)
            })
            .collect();
        // Summed in order, whatever thread they came from.
        let loss = scale * losses.iter().sum::<f64>();
        let Gradient { weight: sums, bias } =
            gradient(self.kernels, self.rows, &slopes, self.outputs);
        let (weight, _) = parameters.split_at(sums.len());
        let of_weight = sums.iter().zip(weight);
        let of_weight =
            of_weight.map(|(&sum, weight)| scale * f64::from(sum) + self.penalty * weight);
        let of_bias = bias.iter().map(|&sum| scale * f64::from(sum));
        let gradient: Vec<f64> = of_weight.chain(of_bias).collect();
        (loss + 0.5 * self.penalty * dot(weight, weight), gradient)
    }
}

/// The last steps, from which L-BFGS knows the curvature.
#[derive(Default)]
struct Memory {
    /// Steps, the changes of the gradient, and one over their product.
    steps: std::collections::VecDeque<(Vec<f64>, Vec<f64>, f64)>,
}

impl Memory {
    const LENGTH: usize = 10;

    fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    fn push(&mut self, step: Vec<f64>, change: Vec<f64>) {
        let product = dot(&step, &change);
        if product > 0.0 {
            self.steps.push_back((step, change, 1.0 / product));
        }
        if self.steps.len() > Self::LENGTH {
            self.steps.pop_front();
        }
    }

    /// The way down that curvature suggests: two loops over the steps.
    fn direction(&self, slope: &[f64]) -> Vec<f64> {
        let mut direction: Vec<f64> = slope.iter().map(|slope| -slope).collect();
        let mut shares = Vec::new();
        for (step, change, inverse) in self.steps.iter().rev() {
            let share = inverse * dot(step, &direction);
            add(&mut direction, change, -share);
            shares.push(share);
        }
        if let Some((_, change, inverse)) = self.steps.back() {
            let scale = 1.0 / (inverse * dot(change, change));
            direction.iter_mut().for_each(|value| *value *= scale);
        }
        for ((step, change, inverse), share) in self.steps.iter().zip(shares.iter().rev()) {
            let other = inverse * dot(change, &direction);
            add(&mut direction, step, share - other);
        }
        direction
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn difference(a: &[f64], b: &[f64]) -> Vec<f64> {
    a.iter().zip(b).map(|(a, b)| a - b).collect()
}

fn add(to: &mut [f64], values: &[f64], factor: f64) {
    to.iter_mut()
        .zip(values)
        .for_each(|(to, value)| *to += factor * value);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two rows ±1 with classes 1 and 0: by symmetry the biases are equal and the weights are ∓w,
    /// with w the root of (per row) C · 2 · p = w, p = 1 / (1 + exp(2 w)).
    #[test]
    fn the_optimum_of_two_points() {
        let solver = LogisticRegression {
            tolerance: 1e-6,
            ..LogisticRegression::new(2.0)
        };
        let probe = solver.fit(Kernels::best(), &[1.0, -1.0], &[1, 0], 2);
        let w = f64::from(probe.weight[1]);
        let p = 1.0 / (1.0 + (2.0 * w).exp());
        assert!((2.0 * 2.0 * p - w).abs() < 1e-4, "{w}");
        assert!((probe.weight[0] + probe.weight[1]).abs() < 1e-5);
        assert!((probe.bias[0] - probe.bias[1]).abs() < 1e-5);
    }

    /// Without knowledge of the rows, the biases give the classes' shares.
    #[test]
    fn biases_are_free() {
        let rows = vec![0.0; 4];
        let probe = LogisticRegression::new(1e-3).fit(Kernels::best(), &rows, &[0, 0, 0, 1], 2);
        let difference = f64::from(probe.bias[0] - probe.bias[1]);
        assert!((difference - 3f64.ln()).abs() < 1e-3, "{difference}");
    }
}
