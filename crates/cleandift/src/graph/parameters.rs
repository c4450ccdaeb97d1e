//! What a graph asks of a store of weights: shapes and values by name.

use std::sync::Arc;

/// A named store of parameters, as engines and readers of a graph see it.
///
/// Names are the checkpoint's own, e.g. `down_blocks.0.resnets.0.conv1.weight`; shapes are in
/// PyTorch's order.
pub trait Parameters: Send + Sync {
    /// The shape of a tensor, or `None` if the store does not have it.
    fn shape(&self, name: &str) -> Option<&[usize]>;

    /// All names, in a fixed order.
    fn names(&self) -> Vec<&str>;

    /// Replaces `values` by all values of a tensor, widened to f32 (exact from f16 and bf16).
    fn read_into(&self, name: &str, values: &mut Vec<f32>) -> Result<(), ReadError>;

    /// The store's own values of a tensor, if it keeps them in memory as f32: then nobody needs to
    /// copy them.
    fn lend(&self, _name: &str) -> Option<Arc<Vec<f32>>> {
        None
    }

    /// All values of a tensor, as [`Parameters::read_into`] gives them.
    fn read(&self, name: &str) -> Result<Vec<f32>, ReadError> {
        let mut values = Vec::new();
        self.read_into(name, &mut values)?;
        Ok(values)
    }
}

/// A tensor could not be read: the file shrank, the disk failed, or the name is not there.
#[derive(Debug, thiserror::Error)]
#[error("{file}: `{tensor}`: {reason}")]
pub struct ReadError {
    /// The file, or another name of the store.
    pub file: String,
    /// The tensor's name.
    pub tensor: String,
    /// What went wrong.
    pub reason: String,
}
