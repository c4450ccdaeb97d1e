//! Gradients of the normalisations.
//!
//! With `n = (x - mean) r` the normalised values, `r` the inverse deviation, and `g = dy * weight`,
//! `dx = r (g - mean(g) - n mean(g n))`, the means over whatever was normalised together. RMS
//! norm takes no mean off, so its `dx = r (g - n mean(g n))`. The weight's gradient is the sum of
//! `dy n`, the bias's that of `dy`. Statistics are worked out from `x` once more, as the forward
//! pass does.

pub(crate) mod group;
pub(crate) mod rows;
pub(crate) mod sums;
