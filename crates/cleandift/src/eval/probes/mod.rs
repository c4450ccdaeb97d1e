//! What is learned on top of frozen features, and how: linear probes, nearest neighbours, the
//! propagation of masks from frame to frame.

mod bins;
mod cross_entropy;
mod linear;
mod logistic;
mod neighbours;
mod propagation;
mod standardisation;
mod train;

pub use bins::DepthBins;
pub use cross_entropy::{CrossEntropy, classes};
pub use linear::LinearProbe;
pub use logistic::LogisticRegression;
pub use neighbours::{Neighbours, Vote};
pub use propagation::{Propagation, propagate};
pub use standardisation::Standardisation;
pub use train::{Choice, Example, Examples, Objective, Recipe, train};
