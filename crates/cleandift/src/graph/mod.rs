//! Networks as data: nodes, shapes, parameter names. Everything else reads this.

mod parameters;

pub use parameters::{Parameters, ReadError};
