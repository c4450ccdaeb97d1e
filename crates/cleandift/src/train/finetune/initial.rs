//! What projection heads start from (METHOD of the published trainer): every head the identity.

use super::super::Random;
use crate::graph::Parameter;
use crate::networks::heads::{FREQUENCIES, HeadNorm};

/// Gives a parameter of heads with this norm its first values, drawn from (seed, name) alone.
///
/// What writes into a residual stream is 0, and so is what makes AdaRMS's scale from the condition;
/// norms' scales are 1; frequencies are standard normal; other matrices are uniform in ±1 / √inputs,
/// PyTorch's default.
pub fn fill(parameter: &Parameter, norm: HeadNorm, seed: u64, values: &mut [f32]) {
    let Parameter { name, shape } = parameter;
    let mut random = Random::new(seed, name, 0);
    let conditions = name.ends_with(".norm.linear.weight");
    if name == FREQUENCIES {
        values.fill_with(|| random.normal());
    } else if name.ends_with(".scale") {
        values.fill(1.0);
    } else if name.ends_with(".down_proj.weight") || conditions && norm == HeadNorm::AdaRms {
        values.fill(0.0);
    } else {
        let inputs = *shape.last().expect("the others are matrices");
        let bound = (inputs as f64).sqrt().recip();
        values.fill_with(|| (bound * (2.0 * random.uniform() - 1.0)) as f32);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::networks::heads::{HeadsConfig, HeadsDesign};

    fn initial(norm: HeadNorm, name: &str) -> Vec<f32> {
        let design = HeadsDesign {
            norm,
            width: 16,
            ..HeadsDesign::default()
        };
        let heads = HeadsConfig::new(&design, &[("us6", 64)]);
        let parameters = heads.parameters();
        let parameter = parameters.iter().find(|parameter| parameter.name == name);
        let parameter = parameter.expect(name);
        let mut values = vec![f32::NAN; parameter.size()];
        fill(parameter, norm, 1, &mut values);
        values
    }

    #[test]
    fn heads_start_as_the_identity() {
        let of = |name: &str| initial(HeadNorm::AdaRms, name);
        let layer = |part: &str| of(&format!("adapters.us6.layers.2.{part}.weight"));
        assert!(layer("down_proj").iter().all(|&x| x == 0.0));
        assert!(layer("norm.linear").iter().all(|&x| x == 0.0));
        assert!(
            of("mapping.blocks.1.down_proj.weight")
                .iter()
                .all(|&x| x == 0.0)
        );
        assert!(of("mapping.out_norm.scale").iter().all(|&x| x == 1.0));
    }

    #[test]
    fn other_matrices_are_as_pytorch_draws_them() {
        let up = initial(HeadNorm::AdaRms, "adapters.us6.layers.0.up_proj.weight");
        assert_eq!(up.len(), 2 * 64 * 64);
        // Uniform in ±1/8: variance 1/192, and the standard error of the mean square of n draws is
        // b² √(4 / 45n) = 5e-5; five of them are allowed.
        let square = up.iter().map(|x| f64::from(x * x)).sum::<f64>() / up.len() as f64;
        assert!(up.iter().all(|x| x.abs() <= 0.125));
        assert!((square - 1.0 / 192.0).abs() < 2.6e-4, "{square}");
        // FiLM's linear map is not zero at first.
        let film = initial(HeadNorm::Film, "adapters.us6.layers.0.norm.linear.weight");
        assert_eq!(film.len(), 2 * 64 * 16);
        assert!(film.iter().all(|x| x.abs() <= 0.25) && film[0] != film[1]);
    }
}
