//! Training: parameters that change, what is made small, and the run around them.
//!
//! * [`data`] turns files into batches, the same for the same sample numbers;
//! * [`log`] writes down what happens;
//! * an [`Objective`] turns a batch into losses and gradients;
//! * [`Masters`] are the parameters, which change while the engine reads them;
//! * [`Random`] is where every random number comes from: a stream of its own for each seed, purpose
//!   and number, so that a run's only random state is the number of its step.
//!
//! Training knows graphs, networks, the engine and checkpoints; nothing in the library knows it.

pub mod config;
pub mod data;
mod error;
mod event;
pub mod finetune;
pub mod log;
mod masters;
mod objective;
pub mod optimiser;
pub mod pretrain;
mod random;
pub mod rate;
mod run;
pub mod state;

pub use error::TrainError;
pub use event::Event;
pub use masters::Masters;
pub use objective::{Losses, Objective, Sink};
pub use random::Random;
pub use run::{Ending, Plan, Run};
