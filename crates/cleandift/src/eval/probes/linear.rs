//! A linear map from the channels of a cell to classes or bins, and its file.

use std::collections::BTreeMap;
use std::path::Path;

use cleandift_kernels::Kernels;

use crate::checkpoint::{Dtype, TensorData, Weights, write_safetensors};
use crate::eval::EvalError;
use crate::graph::Parameters;

/// A linear layer on features: a 1x1 convolution.
#[derive(Clone, Debug, PartialEq)]
pub struct LinearProbe {
    /// Classes or bins.
    pub outputs: usize,
    /// Channels.
    pub inputs: usize,
    /// `[output][input]`.
    pub weight: Vec<f32>,
    /// `[output]`.
    pub bias: Vec<f32>,
}

impl LinearProbe {
    /// The outputs for cells `[cell][channel]`: `[cell][output]`.
    ///
    /// # Panics
    /// If the cells are not whole.
    pub fn logits(&self, kernels: &Kernels, cells: &[f32]) -> Vec<f32> {
        let mut logits = vec![0.0; cells.len() / self.inputs * self.outputs];
        let packed = kernels.pack_linear(&self.weight, self.outputs, self.inputs);
        kernels.product(cells, &packed, Some(&self.bias), &mut logits);
        logits
    }

    /// Reads a probe in the form in which CleanDIFT publishes its depth probe: `weight`
    /// `[outputs, inputs, 1, 1]` (or without the last two) and `bias` `[outputs]`.
    ///
    /// # Errors
    /// If the file is none, or its tensors are others.
    pub fn open(path: &Path) -> Result<Self, EvalError> {
        let weights = Weights::open(path)?;
        let shapes = [weights.shape("weight"), weights.shape("bias")];
        let (outputs, inputs) = match shapes {
            [Some(&[o, i, 1, 1] | &[o, i]), Some(&[bias])] if bias == o && o > 0 && i > 0 => (o, i),
            [weight, bias] => {
                let words = |shape: Option<&[usize]>| {
                    shape.map_or_else(|| "absent".to_owned(), |shape| format!("{shape:?}"))
                };
                return Err(EvalError::malformed(
                    path,
                    format!("`weight` {}, `bias` {}", words(weight), words(bias)),
                    "a probe: `weight` [outputs, inputs, 1, 1] and `bias` [outputs]",
                ));
            }
        };
        Ok(Self {
            outputs,
            inputs,
            weight: weights.read("weight")?,
            bias: weights.read("bias")?,
        })
    }

    /// Writes the form that [`LinearProbe::open`] reads, in f32; `metadata` says what it was
    /// trained on.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn save(&self, path: &Path, metadata: &BTreeMap<String, String>) -> Result<(), EvalError> {
        let tensors = [
            TensorData {
                name: "weight",
                shape: &[self.outputs, self.inputs, 1, 1],
                values: &self.weight,
                dtype: Dtype::F32,
            },
            TensorData {
                name: "bias",
                shape: &[self.outputs],
                values: &self.bias,
                dtype: Dtype::F32,
            },
        ];
        Ok(write_safetensors(path, &tensors, metadata)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_comes_back_as_it_was_saved() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("probe.safetensors");
        let probe = LinearProbe {
            outputs: 2,
            inputs: 3,
            weight: vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0],
            bias: vec![0.5, -0.5],
        };
        probe.save(&path, &BTreeMap::new()).unwrap();
        assert_eq!(LinearProbe::open(&path).unwrap(), probe);
        let logits = probe.logits(Kernels::best(), &[1.0, 0.0, -1.0]);
        assert_eq!(logits, [-1.5, -2.5]);
    }

    /// The published depth probe: `weight` [256, 1280, 1, 1] and `bias` [256] in bf16.
    #[test]
    fn the_published_form_loads() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cleandift_sd21_depth_probe.safetensors");
        let (weight, bias) = (vec![0.5; 256 * 1280], vec![1.0; 256]);
        let tensors = [
            TensorData {
                name: "weight",
                shape: &[256, 1280, 1, 1],
                values: &weight,
                dtype: Dtype::BF16,
            },
            TensorData {
                name: "bias",
                shape: &[256],
                values: &bias,
                dtype: Dtype::BF16,
            },
        ];
        write_safetensors(&path, &tensors, &BTreeMap::new()).unwrap();
        // The published file has 656,024 bytes.
        assert_eq!(path.metadata().unwrap().len(), 656_024);
        let probe = LinearProbe::open(&path).unwrap();
        assert_eq!((probe.outputs, probe.inputs), (256, 1280));
        assert_eq!((probe.weight, probe.bias), (weight, bias));
    }

    #[test]
    fn another_file_is_refused_with_its_shapes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("other.safetensors");
        let tensors = [TensorData {
            name: "weight",
            shape: &[2, 3],
            values: &[0.0; 6],
            dtype: Dtype::F32,
        }];
        write_safetensors(&path, &tensors, &BTreeMap::new()).unwrap();
        let error = LinearProbe::open(&path).unwrap_err().to_string();
        assert!(error.contains("`weight` [2, 3], `bias` absent"), "{error}");
    }
}
