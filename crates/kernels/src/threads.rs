//! How work is shared: numbered tasks, cut by shapes alone, on the rayon pool of the caller.

use rayon::prelude::*;
use std::cell::RefCell;
use std::ops::Range;

/// Floats in a task of an operation that is bound by memory: half the cache next to a core.
const STREAMED: usize = 1 << 15;

/// Runs `task(i)` for each `i < count`, in any order, on any thread.
pub(crate) fn for_each(count: usize, task: impl Fn(usize) + Sync + Send) {
    (0..count).into_par_iter().for_each(task);
}

thread_local! {
    static SCRATCH: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

/// Calls `work` with `count` floats of this thread's own, of any value. They are kept for the next
/// task: giving megabytes back and asking for them again costs a page fault every 4 KiB.
///
/// # Panics
/// If `work` asks for scratch too.
pub(crate) fn with_scratch(count: usize, work: impl FnOnce(&mut [f32])) {
    SCRATCH.with_borrow_mut(|scratch| {
        if scratch.len() < count {
            scratch.resize(count, 0.0);
        }
        work(&mut scratch[..count]);
    });
}

/// Cuts `input` and `output` into as many runs of whole rows, `from` floats a row of the one and
/// `to` of the other, and hands each pair to `task` with the number of its first row.
pub(crate) fn for_each_rows(
    input: &[f32],
    from: usize,
    output: &mut [f32],
    to: usize,
    task: impl Fn(usize, &[f32], &mut [f32]) + Sync + Send,
) {
    if output.is_empty() {
        return;
    }
    let rows = rows_in_task(from.max(to));
    input
        .par_chunks(rows * from)
        .zip(output.par_chunks_mut(rows * to))
        .enumerate()
        .for_each(|(i, (input, output))| task(i * rows, input, output));
}

/// Rows of `width` floats in a task that is bound by memory.
pub(crate) fn rows_in_task(width: usize) -> usize {
    (STREAMED / width).max(1)
}

/// The `index`-th of the ranges of `size` that cover `0..total`.
pub(crate) fn piece(total: usize, size: usize, index: usize) -> Range<usize> {
    let start = index * size;
    start..(start + size).min(total)
}

/// A place in an output whose tasks write to disjoint parts of it that are no sub-slices.
#[derive(Clone, Copy)]
pub(crate) struct Output(*mut f32);

// SAFETY: a pointer by itself does nothing; each use says why its part is its own.
unsafe impl Send for Output {}
// SAFETY: as above.
unsafe impl Sync for Output {}

impl Output {
    /// The whole of `slice`.
    pub(crate) fn new(slice: &mut [f32]) -> Self {
        Self(slice.as_mut_ptr())
    }

    /// The place `offset` floats on.
    ///
    /// # Safety
    /// It is inside the slice.
    pub(crate) unsafe fn at(self, offset: usize) -> *mut f32 {
        // SAFETY: the caller's promise.
        unsafe { self.0.add(offset) }
    }

    /// The output from `offset` floats on.
    ///
    /// # Safety
    /// They are inside the slice.
    pub(crate) unsafe fn from(self, offset: usize) -> Self {
        // SAFETY: the caller's promise.
        Self(unsafe { self.at(offset) })
    }
}
