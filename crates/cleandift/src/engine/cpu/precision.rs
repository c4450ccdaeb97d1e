//! In what precision weights are kept and products computed: the user's choice, never the engine's.

use std::str::FromStr;

/// What products of linear layers, direct convolutions and attention are computed with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Arithmetic {
    /// Single precision.
    #[default]
    F32,
    /// Factors rounded to bf16, sums in single precision; only where the processor has an instruction
    /// for it. Winograd's convolutions, softmax and norms stay in single precision, so results are
    /// closer to f32 than those of engines that round everything: 7e-3 relative (2-norm) at every tap of
    /// a Stable Diffusion 2.1 with random weights.
    Bf16,
}

impl Arithmetic {
    /// Its name: `f32` or `bf16`.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
        }
    }
}

/// A word that names no arithmetic.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is neither f32 nor bf16")]
pub struct UnknownArithmetic(String);

impl FromStr for Arithmetic {
    type Err = UnknownArithmetic;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        [Self::F32, Self::Bf16]
            .into_iter()
            .find(|arithmetic| arithmetic.name() == word)
            .ok_or_else(|| UnknownArithmetic(word.to_owned()))
    }
}

/// How exact, and how large in memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Precision {
    /// What products are computed with.
    pub arithmetic: Arithmetic,
    /// Whether weights that half precision holds exactly are kept in it, and widened anew for each
    /// image: half the memory, the same bits.
    pub half_weights: bool,
}
