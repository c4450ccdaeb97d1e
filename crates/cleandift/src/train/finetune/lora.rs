//! Low-rank adaptation (Hu and others, arXiv 2106.09685): a layer's weight W stays as it is, and
//! `W + scale B A` takes its place, with B `[outputs, rank]` and A `[rank, inputs]` trained.
//!
//! The networks don't know of it: the engine reads the sum, and gives the gradient of the sum.

use cleandift_kernels::Kernels;

use super::super::{Masters, Random};
use crate::graph::Parameter;

/// Which layers are adapted, and how.
#[derive(Clone, Debug, PartialEq)]
pub struct Lora {
    /// The rank of `B A`.
    pub rank: usize,
    /// The factor of `B A`.
    pub scale: f64,
    /// Parts of module paths, such as `attn1`, `attn2.to_v` or `ff`: layers in whose path one of
    /// them stands are adapted.
    pub layers: Vec<String>,
}

/// The two factors of a layer, as parameters in training.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Factors {
    /// `MODULE.lora_A.weight`, `[rank, inputs, ...]`: of a convolution with the kernel's sides.
    pub a: Parameter,
    /// `MODULE.lora_B.weight`, `[outputs, rank, ...]`: of a convolution with sides of 1.
    pub b: Parameter,
}

impl Lora {
    /// The factors of a parameter's layer, if it is the weight of an adapted one.
    pub fn factors(&self, name: &str, shape: &[usize]) -> Option<Factors> {
        let module = name.strip_suffix(".weight")?;
        let [outputs, inputs, kernel @ ..] = shape else {
            return None;
        };
        let stands = |part: &String| stands_in(part, module);
        self.layers.iter().any(stands).then(|| Factors {
            a: Parameter {
                name: format!("{module}.lora_A.weight"),
                shape: [&[self.rank, *inputs], kernel].concat(),
            },
            b: Parameter {
                name: format!("{module}.lora_B.weight"),
                shape: [&[*outputs, self.rank], &vec![1; kernel.len()][..]].concat(),
            },
        })
    }

    /// The first of the layers' parts that stands in the path of no adapted weight.
    pub(super) fn unknown<'n>(
        &self,
        adapted: impl Iterator<Item = &'n String> + Clone,
    ) -> Option<&str> {
        let layers = self.layers.iter().map(String::as_str);
        let mut unknown = layers.filter(|part| {
            let mut modules = adapted
                .clone()
                .filter_map(|name| name.strip_suffix(".weight"));
            !modules.any(|module| stands_in(part, module))
        });
        unknown.next()
    }

    /// Adds `scale B A` to a weight.
    pub fn add(&self, kernels: &Kernels, a: &[f32], b: &[f32], weight: &mut [f32]) {
        let mut product = vec![0.0; weight.len()];
        let inputs = a.len() / self.rank;
        kernels.product_input_gradient(b, a, self.rank, inputs, &mut product);
        let scale = self.scale as f32;
        for (w, ba) in weight.iter_mut().zip(product) {
            *w += scale * ba;
        }
    }

    /// The gradients of A and B from that of the weight: `scale Bᵀ dW` and `scale dW Aᵀ`.
    pub fn gradients(&self, kernels: &Kernels, a: &[f32], b: &[f32], dw: &[f32]) -> [Vec<f32>; 2] {
        let (rank, inputs) = (self.rank, a.len() / self.rank);
        let (mut da, mut db) = (vec![0.0; a.len()], vec![0.0; b.len()]);
        kernels.product_weight_gradient(dw, b, inputs, rank, &mut da);
        let transposed: Vec<f32> = (0..inputs)
            .flat_map(|i| (0..rank).map(move |r| a[r * inputs + i]))
            .collect();
        kernels.product_input_gradient(dw, &transposed, inputs, rank, &mut db);
        let scale = self.scale as f32;
        da.iter_mut().chain(&mut db).for_each(|d| *d *= scale);
        [da, db]
    }
}

/// Whether part of a module's path, such as `attn2.to_v`, stands in it.
fn stands_in(part: &str, module: &str) -> bool {
    format!(".{module}.").contains(&format!(".{part}."))
}

impl Factors {
    /// What they start from, as in peft: A uniform in ±1 / √inputs, B 0.
    pub fn initial(&self, seed: u64) -> [Vec<f32>; 2] {
        let mut random = Random::new(seed, &self.a.name, 0);
        let inputs: usize = self.a.shape[1..].iter().product();
        let bound = (inputs as f64).sqrt().recip();
        let uniform = |_| (bound * (2.0 * random.uniform() - 1.0)) as f32;
        [
            (0..self.a.size()).map(uniform).collect(),
            vec![0.0; self.b.size()],
        ]
    }

    /// Their values as they are now.
    pub fn values(&self, masters: &Masters) -> [std::sync::Arc<Vec<f32>>; 2] {
        [&self.a, &self.b].map(|factor| masters.values(&factor.name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lora(layers: &[&str]) -> Lora {
        Lora {
            rank: 2,
            scale: 0.5,
            layers: layers.iter().map(|&layer| layer.to_owned()).collect(),
        }
    }

    #[test]
    fn layers_are_told_by_parts_of_their_path() {
        let adapted = |name: &str, layers| lora(layers).factors(name, &[4, 3]).is_some();
        let query = "down_blocks.0.attentions.1.transformer_blocks.0.attn1.to_q.weight";
        assert!(adapted(query, &["attn1"]));
        assert!(adapted(query, &["ff", "attn1.to_q"]));
        assert!(!adapted(query, &["attn"]));
        assert!(!adapted("down_blocks.0.attn1.to_out.0.bias", &["attn1"]));
        let conv = lora(&["conv1"]).factors("mid_block.resnets.0.conv1.weight", &[8, 5, 3, 3]);
        let conv = conv.unwrap();
        assert_eq!(conv.a.name, "mid_block.resnets.0.conv1.lora_A.weight");
        assert_eq!(conv.a.shape, [2, 5, 3, 3]);
        assert_eq!(conv.b.shape, [8, 2, 1, 1]);
    }

    #[test]
    fn sums_and_gradients_are_those_of_the_formula() {
        let lora = lora(&["ff"]);
        let (outputs, inputs, rank) = (3, 4, 2);
        let a: Vec<f32> = (0..8).map(|i| (i as f32 * 0.7).sin()).collect();
        let b: Vec<f32> = (0..6).map(|i| (i as f32 * 1.3).cos()).collect();
        let dw: Vec<f32> = (0..12).map(|i| (i as f32 * 0.3).sin()).collect();
        for kernels in Kernels::all() {
            let mut weight = vec![1.0; 12];
            lora.add(kernels, &a, &b, &mut weight);
            let [da, db] = lora.gradients(kernels, &a, &b, &dw);
            for o in 0..outputs {
                for i in 0..inputs {
                    let ba: f32 = (0..rank).map(|r| b[o * rank + r] * a[r * inputs + i]).sum();
                    assert!((weight[o * inputs + i] - (1.0 + 0.5 * ba)).abs() < 1e-6);
                }
            }
            for r in 0..rank {
                for i in 0..inputs {
                    let d: f32 = (0..outputs)
                        .map(|o| b[o * rank + r] * dw[o * inputs + i])
                        .sum();
                    assert!((da[r * inputs + i] - 0.5 * d).abs() < 1e-6);
                }
                for o in 0..outputs {
                    let d: f32 = (0..inputs)
                        .map(|i| dw[o * inputs + i] * a[r * inputs + i])
                        .sum();
                    assert!((db[o * rank + r] - 0.5 * d).abs() < 1e-6);
                }
            }
        }
    }
}
