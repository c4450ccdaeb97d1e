//! Files become batches.
//!
//! ```text
//! folders, shards, lists ─Dataset─▶ Example ─Augmentation─▶ Sample ─Batches─▶ Batch
//!                                      ▲ Order: which example a sample's number means
//! ```
//!
//! What a sample is depends on its number and the seed alone: a run goes on where it was left, in
//! batches of any size.

mod augmentation;
mod batch;
mod batches;
mod classes;
mod dataset;
mod error;
mod lists;
mod order;
mod remote;
mod sources;

pub use augmentation::Augmentation;
pub use batch::{Batch, Sample};
pub use batches::{Batches, Settings, fixed};
pub use classes::Classes;
pub use dataset::{Dataset, Example};
pub use error::DataError;
pub use order::Order;
pub use remote::Connection;
