//! How work is shared: numbered tasks, cut by shapes alone, on the rayon pool of the caller.

use crate::memory::Buffer;
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
    /// What this thread's tasks have had, the innermost last.
    static SCRATCH: RefCell<Vec<Buffer>> = const { RefCell::new(Vec::new()) };
}

/// Calls `work` with `count` floats of this thread's own, of any value, that begin where a cache
/// line does. They are kept for the next task: giving megabytes back and asking for them again costs
/// a page fault every 4 KiB. Calls may be nested, and tasks that this thread takes over while it
/// waits for others have scratch of their own.
pub(crate) fn with_scratch<R>(count: usize, work: impl FnOnce(&mut [f32]) -> R) -> R {
    let mut scratch = take_scratch(count);
    let result = work(&mut scratch[..count]);
    keep_scratch(scratch);
    result
}

/// At least `count` floats of any value, to be given back by [`keep_scratch`].
pub(crate) fn take_scratch(count: usize) -> Buffer {
    match SCRATCH.with_borrow_mut(Vec::pop) {
        Some(kept) if kept.len() >= count => kept,
        _ => Buffer::zeros(count),
    }
}

/// Keeps what [`take_scratch`] gave.
pub(crate) fn keep_scratch(scratch: Buffer) {
    SCRATCH.with_borrow_mut(|kept| kept.push(scratch));
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
#[derive(Debug)]
pub(crate) struct Output<T = f32>(*mut T);

impl<T> Clone for Output<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Output<T> {}

// SAFETY: a pointer by itself does nothing; each use says why its part is its own.
unsafe impl<T: Send> Send for Output<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Output<T> {}

impl<T> Output<T> {
    /// The whole of `slice`.
    pub(crate) fn new(slice: &mut [T]) -> Self {
        Self(slice.as_mut_ptr())
    }

    /// The place `offset` values on.
    ///
    /// # Safety
    /// It is inside the slice.
    pub(crate) unsafe fn at(self, offset: usize) -> *mut T {
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
