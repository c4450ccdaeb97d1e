//! Files become batches.

mod batch;

pub use batch::{Batch, Sample};
