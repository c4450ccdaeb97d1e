//! The gradients of every entry: from what is known of the output's gradient, `dy`, to that of the
//! input, `dx`, and of the parameters.
//!
//! Each file has the gradients of its namesake one level up. Weights come as checkpoints have them,
//! `[outputs, inputs]` or `[outputs, inputs, kernel, kernel]`: in training they change with each
//! step, so each task packs what it needs into its scratch, and no packed copy outlives the call.
//!
//! A thread's scratch holds some 5 MB for a convolution, and 860 bytes for each key of an
//! attention; nothing else is as large as an operand, but the gradients of keys and values that
//! [`attention`] keeps for each part of many queries.
//!
//! Gradients are written, never added to what was there; [`Kernels::accumulate`] adds.
//! Those of parameters are sums over all rows or pixels of a batch. They are taken in the order
//! of the rows, in pieces whose size depends on shapes alone.
//!
//! [`Kernels::accumulate`]: crate::Kernels::accumulate

pub(crate) mod activation;
pub(crate) mod attention;
pub(crate) mod conv;
pub(crate) mod gemm;
pub(crate) mod norm;
pub(crate) mod optimiser;
pub(crate) mod winograd;

#[cfg(test)]
mod tests;
