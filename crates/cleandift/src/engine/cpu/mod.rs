//! The engine for processors: a graph becomes a [`Program`], a list of kernel calls over one arena
//! whose size is known before the run.
//!
//! * `fuse` turns nodes into steps, and chooses the algorithm of each;
//! * `plan` finds a place in the arena for every value, from the values' lifetimes;
//! * `precision` is in what numbers that is done;
//! * `prepare` keeps the weights in the form that the kernels read;
//! * `program` compiles and runs;
//! * `profile` keeps how long each step took, if it is asked for;
//! * `call` runs one node on its kernel; `moves` holds those that only move or scale values,
//!   `distance` the losses;
//! * `training` runs a graph forth and back.

mod call;
mod distance;
mod fuse;
mod moves;
mod plan;
mod precision;
mod prepare;
mod profile;
mod program;
mod training;

use std::sync::{Arc, Mutex};

use cleandift_kernels::{Buffer, Kernels};

pub use precision::{Arithmetic, Precision, UnknownArithmetic};
pub use prepare::PreparedWeights;
pub use profile::{Profile, StepTime};
pub use program::{EngineError, Program};
pub use training::{Phase, Recompute, TrainingProgram};

/// The environment variable that forces an instruction set: `portable`, `avx2` or `avx512`.
pub const KERNELS_VARIABLE: &str = "CLEANDIFT_KERNELS";

/// A processor: which kernels, and how many threads.
#[derive(Clone, Debug)]
pub struct Processor {
    kernels: &'static Kernels,
    pool: Arc<rayon::ThreadPool>,
    arena: Arc<Mutex<Option<Buffer>>>,
    profile: Option<Arc<Profile>>,
    precision: Precision,
}

/// A processor that cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum ProcessorError {
    /// Kernels that this machine cannot run.
    #[error(
        "{KERNELS_VARIABLE}={name}: this machine cannot run them; it has {}", available.join(", ")
    )]
    Kernels {
        /// The name asked for.
        name: String,
        /// What would work.
        available: Vec<&'static str>,
    },
    /// Products of bf16 that this machine or its kernels do not have.
    #[error("the {kernels} kernels on this machine have no products of bf16; use f32")]
    Bf16 {
        /// The kernels in use.
        kernels: &'static str,
    },
    /// The threads could not be started.
    #[error("cannot start {threads} threads: {reason}")]
    Threads {
        /// How many.
        threads: usize,
        /// Why.
        reason: String,
    },
}

impl Processor {
    /// The given kernels on `threads` threads (0: as many as the machine has). Results do not
    /// depend on the number of threads.
    pub fn new(kernels: &'static Kernels, threads: usize) -> Result<Self, ProcessorError> {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .thread_name(|index| format!("cleandift-{index}"))
            .build()
            .map_err(|error| ProcessorError::Threads {
                threads,
                reason: error.to_string(),
            })?;
        Ok(Self {
            kernels,
            pool: Arc::new(pool),
            arena: Arc::default(),
            profile: None,
            precision: Precision::default(),
        })
    }

    /// The same processor, with every step timed into `profile`.
    pub fn with_profile(self, profile: Arc<Profile>) -> Self {
        Self {
            profile: Some(profile),
            ..self
        }
    }

    /// The machine's best kernels, or those that [`KERNELS_VARIABLE`] names.
    pub fn from_env(threads: usize) -> Result<Self, ProcessorError> {
        let kernels = match std::env::var(KERNELS_VARIABLE) {
            Ok(name) if !name.is_empty() => Kernels::by_name(&name).ok_or_else(|| {
                let available = Kernels::all()
                    .iter()
                    .map(|kernels| kernels.name())
                    .collect();
                ProcessorError::Kernels { name, available }
            })?,
            _ => Kernels::best(),
        };
        Self::new(kernels, threads)
    }

    /// The same processor with another precision than f32 throughout.
    ///
    /// # Errors
    /// [`ProcessorError::Bf16`] if it has no such products.
    pub fn with_precision(self, precision: Precision) -> Result<Self, ProcessorError> {
        if precision.arithmetic == Arithmetic::Bf16 && !self.kernels.has_bf16() {
            let kernels = self.kernels.name();
            return Err(ProcessorError::Bf16 { kernels });
        }
        Ok(Self { precision, ..self })
    }

    /// The precision in use.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// The kernels in use.
    pub fn kernels(&self) -> &'static Kernels {
        self.kernels
    }

    /// The number of threads.
    pub fn threads(&self) -> usize {
        self.pool.current_num_threads()
    }

    /// Calls `work` with an arena of `size` values, which may be any. One arena is kept for all
    /// programs, as large as the largest needs; a program that runs while another does has its own.
    fn with_arena<R>(&self, size: usize, work: impl FnOnce(&mut [f32]) -> R) -> R {
        let mut own = None;
        let mut kept = self.arena.try_lock();
        let arena = kept.as_deref_mut().unwrap_or(&mut own);
        // Nothing in one that is too small is worth copying, nor worth keeping beside the new one.
        arena.take_if(|arena| arena.len() < size);
        let arena = arena.get_or_insert_with(|| Buffer::zeros(size));
        work(&mut arena[..size])
    }

    /// Runs `work` on this processor's threads.
    pub fn install<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        self.pool.install(work)
    }
}
