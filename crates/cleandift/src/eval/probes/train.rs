//! Training of probes on the cells of frozen features.

use cleandift_kernels::{Adam, Kernels};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use super::LinearProbe;
use crate::eval::EvalError;

/// What a probe learns: a loss of its outputs, and the loss's gradient.
pub trait Objective {
    /// What is known of a cell.
    type Target: Copy;

    /// How many outputs a cell has.
    fn outputs(&self) -> usize;

    /// The loss of a batch of cells in step `step`, and its gradient with respect to `logits`
    /// (`[cell][output]`).
    fn loss(&self, step: usize, logits: &[f32], targets: &[Self::Target]) -> (f64, Vec<f32>);
}

/// The cells of one picture of which something is known.
#[derive(Clone, Debug, PartialEq)]
pub struct Example<T> {
    /// Standardised features, `[cell][channel]`.
    pub cells: Vec<f32>,
    /// What is known of each cell.
    pub targets: Vec<T>,
}

/// Pictures to learn from.
pub trait Examples<T> {
    /// How many there are.
    fn len(&self) -> usize;

    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// One of them.
    ///
    /// # Errors
    /// If its features cannot be made.
    fn get(&mut self, index: usize) -> Result<Example<T>, EvalError>;
}

/// How probes are trained: AdamW with a linear warm-up and a cosine decay to zero, gradients
/// clipped by their norm.
#[derive(Clone, Debug, PartialEq)]
pub struct Recipe {
    /// Steps.
    pub steps: usize,
    /// Pictures a step.
    pub batch: usize,
    /// Steps in which the learning rate rises.
    pub warm_up: usize,
    /// The largest norm of a gradient.
    pub clip: f64,
    /// Decides the first weights and the order of the pictures.
    pub seed: u64,
}

/// What is chosen on a validation part.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Choice {
    /// The highest learning rate.
    pub learning_rate: f64,
    /// The weight decay.
    pub weight_decay: f64,
}

impl Recipe {
    /// The share of the highest rate in a step, counted from 0.
    fn rate(&self, step: usize) -> f64 {
        if step < self.warm_up {
            return (step + 1) as f64 / self.warm_up as f64;
        }
        let left = (self.steps - self.warm_up).max(1) as f64;
        let angle = std::f64::consts::PI * (step - self.warm_up) as f64 / left;
        0.5 * (1.0 + angle.cos())
    }
}

/// Trains a probe for each choice, all on the same batches, so that the features are read once for
/// all of them. `watch` is called after each step with its number.
///
/// Weights begin as those of PyTorch's layers do: uniform in ±1/√channels.
///
/// # Errors
/// If an example cannot be made, or `watch` fails.
///
/// # Panics
/// If there are no examples.
pub fn train<O: Objective>(
    kernels: &Kernels,
    objective: &O,
    recipe: &Recipe,
    choices: &[Choice],
    channels: usize,
    examples: &mut dyn Examples<O::Target>,
    watch: &mut dyn FnMut(usize) -> Result<(), EvalError>,
) -> Result<Vec<LinearProbe>, EvalError> {
    let mut random = ChaCha8Rng::seed_from_u64(recipe.seed);
    let first = initial(objective.outputs(), channels, &mut random);
    let mut learners: Vec<Learner> = choices
        .iter()
        .map(|&choice| Learner::new(first.clone(), choice))
        .collect();
    let mut order = Order::new(examples.len(), random);
    for step in 0..recipe.steps {
        let (mut cells, mut targets) = (Vec::new(), Vec::new());
        for _ in 0..recipe.batch.min(examples.len()) {
            let example = examples.get(order.next())?;
            cells.extend(example.cells);
            targets.extend(example.targets);
        }
        if !targets.is_empty() {
            for learner in &mut learners {
                let logits = learner.probe.logits(kernels, &cells);
                let (_, slope) = objective.loss(step, &logits, &targets);
                let gradient = gradient(kernels, &cells, &slope, objective.outputs());
                learner.update(kernels, gradient, recipe.rate(step), recipe.clip);
            }
        }
        watch(step)?;
    }
    Ok(learners.into_iter().map(|learner| learner.probe).collect())
}

/// A probe and what Adam remembers of it, with decoupled weight decay (Loshchilov and Hutter, ICLR
/// 2019), as PyTorch's `AdamW`.
struct Learner {
    probe: LinearProbe,
    choice: Choice,
    /// Both moments of the weight and of the bias.
    moments: [[Vec<f32>; 2]; 2],
    steps: u32,
}

/// Gradients of a probe's weight and bias.
pub(super) struct Gradient {
    pub(super) weight: Vec<f32>,
    pub(super) bias: Vec<f32>,
}

impl Learner {
    fn new(probe: LinearProbe, choice: Choice) -> Self {
        let moments = [&probe.weight, &probe.bias].map(|values| {
            let zeros = vec![0.0; values.len()];
            [zeros.clone(), zeros]
        });
        Self {
            probe,
            choice,
            moments,
            steps: 0,
        }
    }

    fn update(&mut self, kernels: &Kernels, mut gradient: Gradient, share: f64, clip: f64) {
        let rate = share * self.choice.learning_rate;
        let all = || gradient.weight.iter().chain(&gradient.bias);
        let norm = all()
            .map(|&g| f64::from(g) * f64::from(g))
            .sum::<f64>()
            .sqrt();
        let factor = (clip / (norm + 1e-6)).min(1.0) as f32;
        self.steps += 1;
        let step = Adam {
            rate,
            betas: [0.9, 0.999],
            eps: 1e-8,
            step: self.steps,
        };
        let kept = (1.0 - rate * self.choice.weight_decay) as f32;
        let weight = (&mut self.probe.weight, &mut gradient.weight);
        let bias = (&mut self.probe.bias, &mut gradient.bias);
        for ((values, gradient), [first, second]) in
            [weight, bias].into_iter().zip(&mut self.moments)
        {
            gradient.iter_mut().for_each(|g| *g *= factor);
            values.iter_mut().for_each(|value| *value *= kept);
            kernels.adam(values, gradient, first, second, &step);
        }
    }
}

/// From the slope of the loss at the outputs, `[cell][output]`, to that at the parameters.
pub(super) fn gradient(
    kernels: &Kernels,
    cells: &[f32],
    slope: &[f32],
    outputs: usize,
) -> Gradient {
    let inputs = cells.len() / (slope.len() / outputs);
    let (mut weight, mut bias) = (vec![0.0; outputs * inputs], vec![0.0; outputs]);
    kernels.product_weight_gradient(cells, slope, inputs, outputs, &mut weight);
    kernels.row_sums(slope, outputs, &mut bias);
    Gradient { weight, bias }
}

fn initial(outputs: usize, inputs: usize, random: &mut ChaCha8Rng) -> LinearProbe {
    let bound = 1.0 / (inputs as f64).sqrt();
    let mut uniform = |count: usize| -> Vec<f32> {
        let draw = |random: &mut ChaCha8Rng| {
            let unit = f64::from(random.next_u32()) / f64::from(u32::MAX);
            (bound * (2.0 * unit - 1.0)) as f32
        };
        (0..count).map(|_| draw(random)).collect()
    };
    LinearProbe {
        outputs,
        inputs,
        weight: uniform(outputs * inputs),
        bias: uniform(outputs),
    }
}

/// All examples in a random order, again and again in another one.
struct Order {
    random: ChaCha8Rng,
    places: Vec<usize>,
    used: usize,
}

impl Order {
    fn new(count: usize, random: ChaCha8Rng) -> Self {
        assert!(count > 0, "nothing to learn from");
        Self {
            random,
            places: (0..count).collect(),
            used: count,
        }
    }

    fn next(&mut self) -> usize {
        if self.used == self.places.len() {
            self.used = 0;
            // Fisher and Yates.
            for last in (1..self.places.len()).rev() {
                let other = self.random.next_u64() % (last as u64 + 1);
                self.places.swap(last, other as usize);
            }
        }
        self.used += 1;
        self.places[self.used - 1]
    }
}

#[cfg(test)]
mod tests {
    use super::super::CrossEntropy;
    use super::*;

    /// Two pictures, two cells each: the class is the sign of the second channel.
    struct Signs;

    impl Examples<u8> for Signs {
        fn len(&self) -> usize {
            2
        }

        fn get(&mut self, index: usize) -> Result<Example<u8>, EvalError> {
            let noise = index as f32 - 0.5;
            Ok(Example {
                cells: vec![noise, 1.0, -noise, -1.0],
                targets: vec![1, 0],
            })
        }
    }

    fn recipe(seed: u64) -> Recipe {
        Recipe {
            steps: 200,
            batch: 1,
            warm_up: 20,
            clip: 35.0,
            seed,
        }
    }

    fn trained(seed: u64) -> Vec<LinearProbe> {
        let objective = CrossEntropy::new(2);
        let choices = [0.0, 20.0].map(|weight_decay| Choice {
            learning_rate: 0.05,
            weight_decay,
        });
        let kernels = Kernels::best();
        let recipe = recipe(seed);
        train(
            kernels,
            &objective,
            &recipe,
            &choices,
            2,
            &mut Signs,
            &mut |_| Ok(()),
        )
        .unwrap()
    }

    #[test]
    fn a_probe_learns_and_decay_keeps_it_small() {
        let probes = trained(1);
        let logits = probes[0].logits(Kernels::best(), &[0.0, 2.0, 0.0, -2.0]);
        assert!(
            logits[1] > logits[0] + 2.0 && logits[2] > logits[3] + 2.0,
            "{logits:?}"
        );
        let size = |probe: &LinearProbe| probe.weight.iter().map(|w| w * w).sum::<f32>();
        assert!(size(&probes[1]) < 0.5 * size(&probes[0]));
    }

    #[test]
    fn the_seed_decides() {
        assert_eq!(trained(1), trained(1));
        assert_ne!(trained(1), trained(2));
    }

    /// Thirty steps of `torch.optim.AdamW` in f64 (`scripts/make_eval_dense_golden.py`), with
    /// gradients clipped at 0.2.
    #[test]
    fn steps_are_those_of_pytorch() {
        use crate::graph::Parameters;
        let path = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/tests/golden/eval/dense.safetensors"
        );
        let golden = crate::checkpoint::Weights::open(path.as_ref()).unwrap();
        let read = |name: &str| golden.read(&format!("adam/{name}")).unwrap();
        let probe = LinearProbe {
            outputs: 3,
            inputs: 5,
            weight: read("weight"),
            bias: read("bias"),
        };
        let choice = Choice {
            learning_rate: 0.02,
            weight_decay: 0.3,
        };
        let mut learner = Learner::new(probe, choice);
        let (cells, kernels) = (read("cells"), Kernels::best());
        let classes: Vec<u8> = read("classes").iter().map(|&class| class as u8).collect();
        for step in 0..30 {
            let logits = learner.probe.logits(kernels, &cells);
            let (_, slope) = CrossEntropy::new(3).loss(step, &logits, &classes);
            let gradient = gradient(kernels, &cells, &slope, 3);
            learner.update(kernels, gradient, 1.0, 0.2);
        }
        let found = learner.probe.weight.iter().chain(&learner.probe.bias);
        let expected = [read("trained_weight"), read("trained_bias")].concat();
        for (found, expected) in found.zip(expected) {
            assert!((found - expected).abs() < 1e-5, "{found} {expected}");
        }
    }

    #[test]
    fn every_example_comes_once_a_round() {
        let mut order = Order::new(5, ChaCha8Rng::seed_from_u64(0));
        for _ in 0..3 {
            let mut round: Vec<_> = (0..5).map(|_| order.next()).collect();
            round.sort_unstable();
            assert_eq!(round, [0, 1, 2, 3, 4]);
        }
    }

    /// Rises to the full rate at the last step of the warm-up, then falls along a cosine.
    #[test]
    fn the_rate_over_time() {
        let recipe = recipe(0);
        assert_eq!(recipe.rate(0), 0.05);
        assert_eq!(recipe.rate(19), 1.0);
        assert_eq!(recipe.rate(20), 1.0);
        assert!((recipe.rate(110) - 0.5).abs() < 1e-15);
    }

    /// d/dw of the sum of slope times output is the slope times the input.
    #[test]
    fn the_gradient_of_a_linear_map() {
        let (cells, slope) = ([1.0, 2.0, 3.0, 4.0, 5.0, 6.0], [1.0, 0.0, 0.5, -1.0]);
        let found = gradient(Kernels::best(), &cells, &slope, 2);
        assert_eq!(found.weight, [3.0, 4.5, 6.0, -4.0, -5.0, -6.0]);
        assert_eq!(found.bias, [1.5, -1.0]);
    }
}
