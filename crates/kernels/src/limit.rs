//! What the machine allows at most: multiply-adds that touch nothing but registers, and reads that
//! do nothing but arrive. Benchmarks hold the kernels against them; the clock is the caller's.

use crate::Kernels;
use crate::simd::Simd;
use crate::threads::for_each;
use rayon::prelude::*;
use std::hint::black_box;

/// Sums that grow side by side. Two multiply-adds start in a cycle and take four or five, so ten
/// are needed; with their two operands twelve still fit into 16 registers.
const CHAINS: usize = 12;

/// Vectors that are read side by side.
const STREAMS: usize = 8;

/// Floats in a task of [`Kernels::read`].
const PIECE: usize = 1 << 18;

impl Kernels {
    /// Does independent chains of multiply-adds, `rounds` steps each, in every one of `tasks`
    /// tasks that the caller's threads share; gives the number of multiply-adds. Their number over
    /// the time is the peak of this instruction set.
    pub fn multiply_adds(&self, tasks: usize, rounds: usize) -> u64 {
        for_each(tasks, |_| {
            // SAFETY: a table can only be had on a machine that runs it.
            black_box(unsafe { (self.chains)(rounds) });
        });
        (tasks * rounds * CHAINS * self.lanes) as u64
    }

    /// Reads `x` once, on all of the caller's threads. If it is larger than the last cache, its
    /// bytes over the time are the bandwidth of the memory.
    pub fn read(&self, x: &[f32]) {
        x.par_chunks(PIECE).for_each(|piece| {
            // SAFETY: a table can only be had on a machine that runs it.
            black_box(unsafe { (self.read)(piece) });
        });
    }
}

/// [`CHAINS`] chains of `rounds` multiply-adds each. All go to 1, so that no value becomes too
/// small or too large for full speed.
///
/// # Safety
/// The machine has `V`'s instruction set.
#[inline(always)]
pub(crate) unsafe fn chains_body<V: Simd>(rounds: usize) -> f32 {
    // SAFETY: the caller's promise.
    let (factor, term) = unsafe { (V::fill(black_box(0.5)), V::fill(black_box(0.5))) };
    let mut sums = [term; CHAINS];
    for (index, sum) in sums.iter_mut().enumerate() {
        // Chains that begin alike would be one chain to the compiler.
        *sum = factor.constant(black_box(index as f32));
    }
    for _ in 0..rounds {
        for sum in &mut sums {
            *sum = sum.mul_add(factor, term);
        }
    }
    let mut total = term;
    for sum in sums {
        total = total.add(sum);
    }
    total.sum()
}

/// The sum of `x`, for the sake of reading it.
///
/// # Safety
/// The machine has `V`'s instruction set.
#[inline(always)]
pub(crate) unsafe fn read_body<V: Simd>(x: &[f32]) -> f32 {
    // SAFETY: the caller's promise.
    let mut sums = [unsafe { V::fill(0.0) }; STREAMS];
    for chunk in x.chunks_exact(STREAMS * V::LANES) {
        for (stream, sum) in sums.iter_mut().enumerate() {
            // SAFETY: the chunk has as many vectors as there are sums.
            *sum = sum.add(unsafe { V::load(chunk.as_ptr().add(stream * V::LANES)) });
        }
    }
    let mut total = sums[0];
    for sum in &sums[1..] {
        total = total.add(*sum);
    }
    total.sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chains_and_reads_do_what_they_count() {
        for kernels in Kernels::all() {
            // SAFETY: a table can only be had on a machine that runs it.
            let (none, many) = unsafe { ((kernels.chains)(0), (kernels.chains)(60)) };
            // 0 + 1 + … + 11, and half for the term; then every chain has come to 1.
            let lanes = kernels.lanes as f32;
            assert_eq!(none, (66.0 + 0.5) * lanes, "{}", kernels.name());
            assert_eq!(many, (CHAINS as f32 + 0.5) * lanes, "{}", kernels.name());
            let all = 3 * 7 * CHAINS as u64 * kernels.lanes as u64;
            assert_eq!(kernels.multiply_adds(3, 7), all);

            let x = vec![0.25; 4 * STREAMS * 16];
            // SAFETY: as above.
            let sum = unsafe { (kernels.read)(&x) };
            assert_eq!(sum, x.len() as f32 / 4.0, "{}", kernels.name());
        }
    }
}
