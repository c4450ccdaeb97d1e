//! The arithmetic of diffusion networks on plain `f32` slices, as fast as the machine allows.
//!
//! [`Kernels`] is one table of functions per instruction set; [`Kernels::best`] picks it at run
//! time, so that one binary serves every machine. Nothing here knows a model, a tensor's name or
//! a file: slices go in, slices come out.
//!
//! Maps lie in memory as `[image][row][column][channel]`: a token is a pixel, a 1x1 convolution
//! is a product, and nothing is ever transposed.
//!
//! # The map of the crate
//!
//! An entry (a method of `Kernels`, all of it safe) checks lengths, cuts the work into blocks and
//! hands each to a *body* on some thread; a body (`unsafe`, single-threaded, generic over the
//! vector) does the arithmetic. Both live in the file of their subject:
//!
//! | file | entries |
//! |---|---|
//! | `packed` | [`Kernels::pack_linear`], [`Kernels::pack_convolution`]: weights as products read them |
//! | `half` | weights kept in half precision, rounding to bf16 ([`Kernels::has_bf16`]) |
//! | `gemm` | [`Kernels::product`]; the one register-blocked body that convolution and attention use too |
//! | `conv` | [`Kernels::convolution`] |
//! | `winograd` | [`Kernels::pack_winograd`], [`Kernels::convolution_winograd`], [`Kernels::convolution_winograd_small`] |
//! | `attention` | [`Kernels::attention`] |
//! | `group_norm` | [`Kernels::group_norm`], and its two halves [`Kernels::moments`] and [`Kernels::normalise`] |
//! | `norm` | [`Kernels::layer_norm`], [`Kernels::rms_norm`] |
//! | `activation` | [`Kernels::silu`], [`Kernels::gelu`], [`Kernels::quick_gelu`], [`Kernels::gated`], [`Kernels::add`] |
//! | `limit` | [`Kernels::multiply_adds`], [`Kernels::read`]: what benchmarks compare with |
//!
//! Gradients for training are in `backward/`, in files with the same names:
//!
//! | file | entries |
//! |---|---|
//! | `gemm` | [`Kernels::product_input_gradient`], [`Kernels::product_weight_gradient`], [`Kernels::row_sums`]; the sum of outer products under all gradients of weights |
//! | `conv`, `winograd` | [`Kernels::convolution_input_gradient`], [`Kernels::convolution_weight_gradient`], which choose the way by shapes |
//! | `attention` | [`Kernels::attention_gradient`] |
//! | `norm` | [`Kernels::group_norm_gradient`], [`Kernels::layer_norm_gradient`], [`Kernels::rms_norm_gradient`] |
//! | `activation` | [`Kernels::silu_gradient`], [`Kernels::gelu_gradient`], [`Kernels::quick_gelu_gradient`], [`Kernels::gated_gradient`], [`Kernels::accumulate`] |
//! | `optimiser` | [`Kernels::adam`] |
//!
//! `memory` is what large results and weights lie in ([`Buffer`]); `simd` is what a body asks of an instruction set; `isa/` has a file for each of them, the only
//! files with intrinsics. `table` is the struct of function pointers, `threads` the way work is
//! shared, [`reference`](mod@reference) the same functions as naive loops in double precision, and
//! `self_test` compares the two on the machine at hand.
//!
//! # What holds everywhere
//!
//! - Work is cut by shapes, never by the number of threads, and the order in which an output's
//!   terms are summed depends on the length of the sum alone. So on one instruction set the bits
//!   are the same for any number of threads, alone or in a batch, at an edge or in the middle.
//!   Gradients of parameters are sums over the batch, in its order.
//! - A NaN that goes in comes out.
//! - Entries panic when lengths contradict each other: a caller's bug, not a user's mistake.
//! - The threads are those of the rayon pool that the caller is in.

mod activation;
mod attention;
mod backward;
mod conv;
mod gemm;
mod group_norm;
mod half;
mod isa;
mod limit;
mod memory;
mod norm;
mod packed;
pub mod reference;
mod self_test;
mod simd;
mod table;
mod threads;
mod winograd;

#[cfg(test)]
mod tests;

pub use activation::Gate;
pub use attention::Attention;
pub use backward::optimiser::Adam;
pub use conv::{Convolution, Layer, Maps, Padding};
pub use gemm::Added;
pub use group_norm::{Moments, Normalisation};
pub use memory::Buffer;
pub use packed::{PackedMatrix, PackedMemory};
pub use self_test::Check;
pub use table::{Kernels, Shape};
pub use winograd::{Winograd, WinogradWeights};
