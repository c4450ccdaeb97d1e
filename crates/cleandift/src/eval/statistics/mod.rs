//! How sure a figure is: intervals by the bootstrap, differences between candidates, tests.
//!
//! What is resampled is what is independent: pictures, persons, blocks of frames; for pairs both
//! units of the pair at once. Units are drawn within their category, since the categories of a
//! data set are chosen, not sampled; those alone in their categories are drawn together.

mod bootstrap;
mod comparison;
mod holm;
mod sign_flip;
mod units;

pub use bootstrap::{Interval, intervals, percentile};
pub use comparison::{Comparison, Verdict, compare, judge};
pub use holm::holm;
pub use sign_flip::sign_flip;
pub use units::Units;

/// Fewer independent units than this carry no conclusion: they are called descriptive.
pub const FEWEST_UNITS: usize = 20;

/// Resamples of the bootstrap, published intervals' usual order.
pub const RESAMPLES: usize = 2000;
