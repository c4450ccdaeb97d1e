//! The values that parameters have before they have learned anything.

use crate::graph::Parameter;
use crate::networks::diffusion::CLASS_TABLE;
use crate::train::Random;

/// Layers that begin as zeros, as in guided diffusion (Dhariwal and Nichol, arXiv 2105.05233): what
/// residual blocks and transformers add, and the whole network's output.
const ZEROS: [&str; 3] = [".conv2.weight", ".proj_out.weight", "conv_out.weight"];

/// A parameter's first values, drawn from (seed, name) alone: matrices and kernels uniform in ±1 /
/// √inputs, as PyTorch initialises its layers, or zeros; the class table standard normal; norms'
/// weights ones; biases zeros.
pub fn initial(parameter: &Parameter, seed: u64) -> Vec<f32> {
    let Parameter { name, shape } = parameter;
    let count = parameter.size();
    let mut random = Random::new(seed, name, 0);
    match shape.as_slice() {
        _ if name == CLASS_TABLE => random.normals(count),
        _ if ZEROS.iter().any(|end| name.ends_with(end)) => vec![0.0; count],
        [_, inputs @ ..] if !inputs.is_empty() => {
            let bound = (inputs.iter().product::<usize>() as f64).sqrt().recip();
            let values = (0..count).map(|_| (bound * (2.0 * random.uniform() - 1.0)) as f32);
            values.collect()
        }
        _ if name.ends_with(".bias") => vec![0.0; count],
        _ => vec![1.0; count],
    }
}
