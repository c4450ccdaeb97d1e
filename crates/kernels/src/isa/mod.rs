//! The instruction sets: each file has a vector type, the only place with intrinsics, and
//! instantiates the algorithms with it.

/// The table `KERNELS` of a file: every algorithm, compiled for `$vector` inside a function that
/// has the instruction set's features.
macro_rules! table {
    ($vector:ident, $name:literal, $available:expr $(, #[$features:meta])? $(,)?) => {
        /// The functions of this instruction set.
        pub(crate) static KERNELS: crate::Kernels = {
            use crate::simd::PANEL_VECTORS;
            use crate::winograd::Winograd;
            use crate::{activation, attention, gemm, group_norm, limit, norm, winograd};

            $(#[$features])?
            unsafe fn product(block: &gemm::Block<'_>) {
                // SAFETY: the caller's promise is the body's.
                unsafe { gemm::product_body::<$vector>(block) }
            }
            $(#[$features])?
            unsafe fn winograd_kernel(kind: Winograd, taps: &winograd::Taps) {
                // SAFETY: the caller's promise is the body's.
                unsafe { winograd::kernel_body::<$vector>(kind, taps) }
            }
            $(#[$features])?
            unsafe fn winograd_input(kind: Winograd, pixels: &winograd::Pixels) {
                // SAFETY: the caller's promise is the body's.
                unsafe { winograd::input_body::<$vector>(kind, pixels) }
            }
            $(#[$features])?
            unsafe fn winograd_output(kind: Winograd, products: &winograd::Products<'_>) {
                // SAFETY: the caller's promise is the body's.
                unsafe { winograd::output_body::<$vector>(kind, products) }
            }
            $(#[$features])?
            unsafe fn softmax(block: &mut attention::Softmax<'_>) {
                // SAFETY: the caller's promise is the body's.
                unsafe { attention::softmax_body::<$vector>(block) }
            }
            $(#[$features])?
            unsafe fn moments(x: &[f32], moments: &mut [f64]) {
                // SAFETY: the caller's promise is the body's.
                unsafe { group_norm::moments_body::<$vector>(x, moments) }
            }
            $(#[$features])?
            unsafe fn copy_pixels(run: group_norm::Run<'_>) {
                // SAFETY: the caller's promise is the body's.
                unsafe { group_norm::copy_pixels_body::<$vector>(run) }
            }
            $(#[$features])?
            unsafe fn layer_norm(x: &[f32], norm: &norm::LayerNorm<'_>, out: &mut [f32]) {
                // SAFETY: the caller's promise is the body's.
                unsafe { norm::layer_norm_body::<$vector>(x, norm, out) }
            }
            $(#[$features])?
            unsafe fn rms_norm(x: &[f32], scale: &[f32], eps: f32, out: &mut [f32]) {
                // SAFETY: the caller's promise is the body's.
                unsafe { norm::rms_norm_body::<$vector>(x, scale, eps, out) }
            }
            $(#[$features])?
            unsafe fn activate(kind: activation::Activation, x: &[f32], out: &mut [f32]) {
                // SAFETY: the caller's promise is the body's.
                unsafe { activation::activate_body::<$vector>(kind, x, out) }
            }
            $(#[$features])?
            unsafe fn gated(gate: activation::Gate, channels: usize, x: &[f32], out: &mut [f32]) {
                // SAFETY: the caller's promise is the body's.
                unsafe { activation::gated_body::<$vector>(gate, channels, x, out) }
            }
            $(#[$features])?
            unsafe fn add(a: &[f32], b: &[f32], out: &mut [f32]) {
                // SAFETY: the caller's promise is the body's.
                unsafe { activation::add_body::<$vector>(a, b, out) }
            }
            $(#[$features])?
            unsafe fn chains(rounds: usize) -> f32 {
                // SAFETY: the caller's promise is the body's.
                unsafe { limit::chains_body::<$vector>(rounds) }
            }
            $(#[$features])?
            unsafe fn read(x: &[f32]) -> f32 {
                // SAFETY: the caller's promise is the body's.
                unsafe { limit::read_body::<$vector>(x) }
            }

            crate::Kernels {
                name: $name,
                available: || $available,
                lanes: <$vector as Simd>::LANES,
                panel_width: PANEL_VECTORS * <$vector as Simd>::LANES,
                product,
                winograd_kernel,
                winograd_input,
                winograd_output,
                softmax,
                moments,
                copy_pixels,
                layer_norm,
                rms_norm,
                activate,
                gated,
                add,
                chains,
                read,
            }
        };
    };
}
use table;

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
pub(crate) mod portable;

/// Every table in this binary, fastest first.
pub(crate) static TABLES: &[&crate::Kernels] = &[
    #[cfg(target_arch = "x86_64")]
    &avx512::KERNELS,
    #[cfg(target_arch = "x86_64")]
    &avx2::KERNELS,
    &portable::KERNELS,
];
