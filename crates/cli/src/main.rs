//! The command line.

#[allow(dead_code)] // until `match` draws its pictures
mod picture;

fn main() {}
