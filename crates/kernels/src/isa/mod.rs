//! The instruction sets: each file has a vector type, the only place with intrinsics, and
//! instantiates the algorithms with it.

/// The table `KERNELS` of a file: every algorithm, compiled for `$vector` inside a function that
/// has the instruction set's features.
macro_rules! table {
    (
        $vector:ident, $name:literal, $available:expr $(, #[$features:meta])?
        $(, pairs: $paired:expr $(, #[$pair_features:meta])?)? $(,)?
    ) => {
        /// The functions of this instruction set.
        pub(crate) static KERNELS: crate::Kernels = {
            use crate::simd::PANEL_VECTORS;
            use crate::winograd::Winograd;
            use crate::{activation, attention, backward, gemm, group_norm, half, limit, norm, packed, winograd};

            $(#[$features])?
            unsafe fn product(block: &gemm::Block<'_>) {
                // SAFETY: the caller's promise is the body's.
                unsafe { gemm::product_body::<$vector, gemm::Single>(block) }
            }
            $(#[$features])?
            unsafe fn write_panel(task: packed::PanelRows<'_>) {
                // SAFETY: the caller's promise is the body's.
                unsafe { packed::write_panel_body::<$vector>(task) }
            }
            $(#[$features])?
            unsafe fn widen(format: half::Half, from: &[u16], to: &mut [f32]) {
                // SAFETY: the caller's promise is the body's.
                unsafe { half::widen_body::<$vector>(format, from, to) }
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
            unsafe fn outer_products(block: &backward::gemm::OuterProducts<'_>) {
                // SAFETY: the caller's promise is the body's.
                unsafe { backward::gemm::outer_products_body::<$vector>(block) }
            }
            $(#[$features])?
            unsafe fn winograd_transform(
                side: backward::winograd::Side,
                strip: backward::winograd::Strip<'_>,
            ) {
                // SAFETY: the caller's promise is the body's.
                unsafe { backward::winograd::transform_body::<$vector>(side, strip) }
            }
            $(#[$features])?
            unsafe fn pack_rows(task: backward::gemm::RowsToPack<'_>) {
                // SAFETY: the caller's promise is the body's.
                unsafe { backward::gemm::pack_rows_body::<$vector>(task) }
            }
            $(#[$features])?
            unsafe fn winograd_results(task: backward::winograd::Results<'_>) {
                // SAFETY: the caller's promise is the body's.
                unsafe { backward::winograd::results_body::<$vector>(task) }
            }
            $(#[$features])?
            unsafe fn planes(
                kernels: &[f32],
                count: usize,
                planes: &mut backward::conv::planes::Planes,
            ) {
                // SAFETY: the caller's promise is the body's.
                unsafe { backward::conv::planes::take_apart::<$vector>(kernels, count, planes) }
            }
            $(#[$features])?
            unsafe fn kernels_to_points(task: backward::winograd::kernel::KernelsToPoints<'_>) {
                // SAFETY: the caller's promise is the body's.
                unsafe { backward::winograd::kernel::kernels_to_points_body::<$vector>(task) }
            }
            $(#[$features])?
            unsafe fn points_to_kernels(task: backward::winograd::kernel::PointsToKernels<'_>) {
                // SAFETY: the caller's promise is the body's.
                unsafe { backward::winograd::kernel::points_to_kernels_body::<$vector>(task) }
            }
            $(#[$features])?
            unsafe fn softmax_gradient(step: backward::attention::SoftmaxGradient<'_>) {
                // SAFETY: the caller's promise is the body's.
                unsafe { backward::attention::softmax_gradient_body::<$vector>(step) }
            }
            $(#[$features])?
            unsafe fn row_sums(dy: &[f32], sums: &mut backward::norm::sums::Sums) {
                // SAFETY: the caller's promise is the body's.
                unsafe { backward::norm::sums::row_sums_body::<$vector>(dy, sums) }
            }
            $(#[$features])?
            unsafe fn row_norm_gradient(
                x: &[f32],
                dy: &[f32],
                norm: &backward::norm::rows::RowNorm<'_>,
                dx: &mut [f32],
                sums: &mut backward::norm::sums::Sums,
            ) {
                // SAFETY: the caller's promise is the body's.
                unsafe { backward::norm::rows::row_norm_gradient_body::<$vector>(x, dy, norm, dx, sums) }
            }
            $(#[$features])?
            unsafe fn distance_sums(
                x: &[f32],
                origin: &[f32],
                sums: &mut backward::norm::sums::Sums,
            ) {
                // SAFETY: the caller's promise is the body's.
                unsafe { backward::norm::group::distance_sums_body::<$vector>(x, origin, sums) }
            }
            $(#[$features])?
            unsafe fn group_norm_sums(
                x: &[f32],
                dy: &[f32],
                norm: &backward::norm::group::GroupNorm<'_>,
                dz: &mut [f32],
                sums: &mut backward::norm::sums::Sums,
            ) {
                // SAFETY: the caller's promise is the body's.
                unsafe {
                    backward::norm::group::group_norm_sums_body::<$vector>(x, dy, norm, dz, sums)
                }
            }
            $(#[$features])?
            unsafe fn group_norm_gradient(
                x: &[f32],
                norm: &backward::norm::group::GroupNorm<'_>,
                slopes: &backward::norm::group::GroupSlopes,
                dx: &mut [f32],
            ) {
                // SAFETY: the caller's promise is the body's.
                unsafe {
                    backward::norm::group::group_norm_gradient_body::<$vector>(x, norm, slopes, dx)
                }
            }
            $(#[$features])?
            unsafe fn activation_gradient(
                kind: activation::Activation,
                x: &[f32],
                dy: &[f32],
                dx: &mut [f32],
            ) {
                // SAFETY: the caller's promise is the body's.
                unsafe {
                    backward::activation::activation_gradient_body::<$vector>(kind, x, dy, dx)
                }
            }
            $(#[$features])?
            unsafe fn gated_gradient(
                gate: activation::Gate,
                channels: usize,
                x: &[f32],
                dy: &[f32],
                dx: &mut [f32],
            ) {
                // SAFETY: the caller's promise is the body's.
                unsafe {
                    backward::activation::gated_gradient_body::<$vector>(gate, channels, x, dy, dx)
                }
            }
            $(#[$features])?
            unsafe fn accumulate(x: &[f32], into: &mut [f32]) {
                // SAFETY: the caller's promise is the body's.
                unsafe { backward::activation::accumulate_body::<$vector>(x, into) }
            }
            $(#[$features])?
            unsafe fn adam(
                factors: &backward::optimiser::AdamFactors,
                parameters: backward::optimiser::Parameters<'_>,
            ) {
                // SAFETY: the caller's promise is the body's.
                unsafe { backward::optimiser::adam_body::<$vector>(factors, parameters) }
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

            #[allow(unused_mut, unused_assignments)]
            const PAIRS: Option<crate::table::PairFunctions> = {
                let mut pairs = None;
                $({
                    $(#[$pair_features])?
                    unsafe fn product(block: &gemm::Block<'_>) {
                        // SAFETY: the caller's promise is the body's.
                        unsafe { gemm::product_body::<$vector, gemm::Paired>(block) }
                    }
                    $(#[$pair_features])?
                    unsafe fn round(from: *const f32, count: usize, to: *mut f32) {
                        // SAFETY: the caller's promise is the body's.
                        unsafe { half::round_body::<$vector>(from, count, to) }
                    }
                    pairs = Some(crate::table::PairFunctions {
                        available: || $paired,
                        product,
                        round,
                    });
                })?
                pairs
            };

            crate::Kernels {
                name: $name,
                available: || $available,
                lanes: <$vector as Simd>::LANES,
                panel_width: PANEL_VECTORS * <$vector as Simd>::LANES,
                product,
                write_panel,
                widen,
                pairs: PAIRS,
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
                outer_products,
                pack_rows,
                winograd_transform,
                winograd_results,
                planes,
                kernels_to_points,
                points_to_kernels,
                softmax_gradient,
                row_sums,
                row_norm_gradient,
                distance_sums,
                group_norm_sums,
                group_norm_gradient,
                activation_gradient,
                gated_gradient,
                accumulate,
                adam,
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
