//! Engines: they run graphs, and never know which network a graph is.

pub mod cpu;
