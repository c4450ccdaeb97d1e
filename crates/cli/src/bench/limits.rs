//! What the machine allows: peak and bandwidth, measured in the same minute as the model.

use std::time::Instant;

use cleandift::engine::cpu::Processor;
use serde::Serialize;

use super::stage::median;
use crate::machine::{ROUNDS, TASKS, multiply_adds};

/// Measurements of each kind at a time.
const SAMPLES: usize = 5;

/// Floats that are read: 256 MiB, more than the caches of all but the largest servers.
const READ: usize = 1 << 26;

/// Samples of what the machine does at most.
pub struct Limits {
    one_thread: Vec<f64>,
    all_threads: Vec<f64>,
    read: Vec<f64>,
}

/// Their medians.
#[derive(Clone, Copy, Serialize)]
pub struct Medians {
    /// 10^9 floating-point operations a second of one thread, two for each multiply-add.
    pub one_thread_gflops: f64,
    /// The same of all threads together.
    pub all_threads_gflops: f64,
    /// 10^9 bytes a second that all threads together read from memory.
    pub read_gigabytes: f64,
}

impl Limits {
    /// Measures for about a second.
    pub fn measure(processor: &Processor) -> Self {
        let kernels = processor.kernels();
        let gflops = |tasks, rounds| 2.0 * multiply_adds(processor, tasks, rounds) / 1e9;
        let values = vec![1.0_f32; READ];
        let gigabytes = || {
            let begun = Instant::now();
            processor.install(|| kernels.read(&values));
            size_of_val(values.as_slice()) as f64 / begun.elapsed().as_secs_f64() / 1e9
        };
        let threads = processor.threads();
        let mut limits = Self {
            one_thread: Vec::new(),
            all_threads: Vec::new(),
            read: Vec::new(),
        };
        for _ in 0..SAMPLES {
            // As long as the other: waking a thread takes a twentieth of the time of one task.
            limits.one_thread.push(gflops(1, TASKS * ROUNDS));
            limits.all_threads.push(gflops(TASKS * threads, ROUNDS));
            limits.read.push(gigabytes());
        }
        limits
    }

    /// These samples and others.
    pub fn joined(mut self, other: Self) -> Self {
        self.one_thread.extend(other.one_thread);
        self.all_threads.extend(other.all_threads);
        self.read.extend(other.read);
        self
    }

    /// The median of each kind.
    pub fn medians(&self) -> Medians {
        Medians {
            one_thread_gflops: median(&self.one_thread),
            all_threads_gflops: median(&self.all_threads),
            read_gigabytes: median(&self.read),
        }
    }
}
