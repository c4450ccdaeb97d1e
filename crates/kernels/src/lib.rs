//! Arithmetic on plain slices.
