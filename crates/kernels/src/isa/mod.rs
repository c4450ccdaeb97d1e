//! The instruction sets: each file has a vector type, the only place with intrinsics, and
//! instantiates the algorithms with it.

/// The table `KERNELS` of a file: every algorithm, compiled for `$vector` inside a function that
/// has the instruction set's features.
macro_rules! table {
    ($vector:ident, $name:literal, $available:expr $(, #[$features:meta])? $(,)?) => {
        /// The functions of this instruction set.
        pub(crate) static KERNELS: crate::Kernels = {
            use crate::simd::PANEL_VECTORS;
            use crate::{activation, attention, gemm, limit, norm, winograd};

            $(#[$features])?
            unsafe fn product(block: &gemm::Block<'_>) {
                // SAFETY: the caller's promise is the body's.
                unsafe { gemm::product_body::<$vector>(block) }
            }
            $(#[$features])?
            unsafe fn winograd_input(
                patch: &winograd::Patch,
                x: &[f32],
                to: *mut f32,
                stride: usize,
            ) {
                // SAFETY: the caller's promise is the body's.
                unsafe { winograd::input_body::<$vector>(patch, x, to, stride) }
            }
            $(#[$features])?
            unsafe fn winograd_output(
                patch: &winograd::Patch,
                from: *const f32,
                stride: usize,
                bias: Option<&[f32]>,
                to: *mut f32,
            ) {
                // SAFETY: the caller's promise is the body's.
                unsafe { winograd::output_body::<$vector>(patch, from, stride, bias, to) }
            }
            $(#[$features])?
            unsafe fn softmax(block: &mut attention::Softmax<'_>) {
                // SAFETY: the caller's promise is the body's.
                unsafe { attention::softmax_body::<$vector>(block) }
            }
            $(#[$features])?
            unsafe fn moments(x: &[f32], moments: &mut norm::Moments) {
                // SAFETY: the caller's promise is the body's.
                unsafe { norm::moments_body::<$vector>(x, moments) }
            }
            $(#[$features])?
            unsafe fn normalise(x: &[f32], affine: &norm::Affine<'_>, out: &mut [f32]) {
                // SAFETY: the caller's promise is the body's.
                unsafe { norm::normalise_body::<$vector>(x, affine, out) }
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
                winograd_input,
                winograd_output,
                softmax,
                moments,
                normalise,
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
