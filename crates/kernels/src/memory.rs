//! Large memory: floats that begin where a cache line does, on large pages where the system has them.

/// Floats in a cache line.
const LINE: usize = 16;

/// Zeros at first, that begin where a cache line does: a vector is then never in two lines.
///
/// Zeros that the system gives take no time before they are touched, and are then touched by many
/// threads. On pages of 2 MB that takes a fault instead of 512, and weights and maps that are larger
/// than the processor's table of 4 KB pages are read without looking pages up.
#[derive(Debug)]
pub struct Buffer {
    /// With room for the way to the next line.
    floats: Vec<f32>,
    first: usize,
    count: usize,
}

impl Buffer {
    /// At least `count` zeros.
    pub fn zeros(count: usize) -> Self {
        let count = count.next_multiple_of(LINE);
        let mut floats = vec![0.0; count + LINE];
        ask_for_large_pages(&mut floats);
        Self {
            first: floats.as_ptr().align_offset(LINE * size_of::<f32>()),
            floats,
            count,
        }
    }
}

/// The copy begins elsewhere in its own memory.
impl Clone for Buffer {
    fn clone(&self) -> Self {
        let mut clone = Self::zeros(self.count);
        clone.copy_from_slice(self);
        clone
    }
}

impl std::ops::Deref for Buffer {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &self.floats[self.first..][..self.count]
    }
}

impl std::ops::DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.floats[self.first..][..self.count]
    }
}

/// Asks for large pages under memory that nothing has touched yet. Many systems give them only where
/// they are asked for; one that has none goes on with small ones.
#[cfg(target_os = "linux")]
fn ask_for_large_pages(memory: &mut [f32]) {
    const LARGE: usize = 2 << 20;
    let start = memory.as_mut_ptr();
    let before = start.addr().next_multiple_of(LARGE) - start.addr();
    let pages = size_of_val(memory).saturating_sub(before) / LARGE;
    if pages > 0 {
        // SAFETY: the pages are inside `memory`, and the advice changes nothing that it holds.
        unsafe {
            let first = start.wrapping_byte_add(before).cast();
            libc::madvise(first, pages * LARGE, libc::MADV_HUGEPAGE);
        }
    }
}

/// Elsewhere the system decides by itself.
#[cfg(not(target_os = "linux"))]
fn ask_for_large_pages(_: &mut [f32]) {}
