//! Networks as data: a [`Graph`] is a list of operations with the shapes of their results and the
//! checkpoint names of their parameters. A network is a function that builds one with [`Builder`];
//! everything else reads it:
//!
//! * [`prune`] keeps what the wanted outputs need;
//! * [`hoist`] splits off what depends only on shared inputs (timestep, prompt);
//! * [`count`] gives multiply-adds, parameters and bytes;
//! * [`check`] compares parameter names and shapes with a checkpoint;
//! * [`mod@reference`] runs it in f64 with naive loops, and back: the truth in tests.
//!
//! Nothing here knows a network by name, opens a file, or is fast.

mod builder;
mod check;
mod count;
mod hoist;
mod node;
mod parameters;
mod prune;
pub mod reference;
mod tensor;

pub use builder::Builder;
pub use check::{Check, Mismatch, check};
pub use count::{Count, LayerKind, NodeCount, count};
pub use hoist::{Hoisted, hoist};
pub use node::{Distance, Graph, Input, Node, Operation, Output, Padding, Parameter, Shape, Value};
pub use parameters::{Parameters, ReadError};
pub use prune::{UnknownOutput, prune};
pub(crate) use tensor::find_input;
pub use tensor::{Named, RunError, Tensor};
