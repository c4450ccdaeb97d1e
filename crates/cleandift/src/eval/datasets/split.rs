//! What is learned from, what choices are made on, and what is reported.

use std::collections::HashMap;

use crate::eval::Image;

/// A picture of which something is known at every pixel.
#[derive(Clone, Debug)]
pub struct Annotated<O> {
    /// The picture.
    pub image: Image,
    /// Where what is known is kept.
    pub origin: O,
    /// The picture itself, or the block of frames that it is in: what is independent.
    pub unit: String,
}

/// The parts of a data set.
#[derive(Clone, Debug, Default)]
pub struct Split<T> {
    /// What probes are trained on.
    pub train: Vec<T>,
    /// What their regularisation is chosen on.
    pub validation: Vec<T>,
    /// What is reported.
    pub test: Vec<T>,
}

/// Which pictures of the training part are held out where a data set has no validation part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HoldOut {
    /// Every tenth: for pictures that are independent of each other.
    EveryTenth,
    /// The last tenth: for frames, whose neighbours are almost the same picture.
    LastTenth,
}

/// Of fewer pictures none is held out.
const FEWEST: usize = 5;

impl<T> Split<T> {
    /// All pictures of all parts.
    pub fn all(&self) -> impl Iterator<Item = &T> {
        self.train.iter().chain(&self.validation).chain(&self.test)
    }

    /// Holds pictures of the training part out if there is no validation part: a tenth, but at
    /// least one, if there are five.
    pub(super) fn with_validation(mut self, hold_out: HoldOut) -> Self {
        let count = self.train.len();
        if self.validation.is_empty() && count >= FEWEST {
            let held = |place: usize| match hold_out {
                HoldOut::EveryTenth => place % 10 == (count - 1).min(9),
                HoldOut::LastTenth => place >= count - count.div_ceil(10),
            };
            let (validation, train): (Vec<_>, Vec<_>) =
                (self.train.into_iter().enumerate()).partition(|(place, _)| held(*place));
            let plain = |part: Vec<(usize, T)>| part.into_iter().map(|(_, item)| item).collect();
            self.train = plain(train);
            self.validation = plain(validation);
        }
        self
    }
}

/// For each frame by its name the block of `length` frames of its sequence that it is in; the
/// sequence is the name without its last number. With a length of 1 each picture is its own block.
pub(super) fn blocks<'n>(names: impl IntoIterator<Item = &'n str>, length: usize) -> Vec<String> {
    let mut seen: HashMap<&str, usize> = HashMap::new();
    let block = |name: &'n str| {
        if length <= 1 {
            return name.to_owned();
        }
        let sequence = name.trim_end_matches(|c: char| c.is_ascii_digit());
        let place = seen.entry(sequence).or_default();
        *place += 1;
        format!("{sequence}#{}", (*place - 1) / length)
    };
    names.into_iter().map(block).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_counted_within_sequences() {
        let names = ["a_01", "a_02", "b_07", "a_03", "b_08"];
        assert_eq!(blocks(names, 2), ["a_#0", "a_#0", "b_#0", "a_#1", "b_#0"]);
        assert_eq!(blocks(names, 1), names);
    }

    #[test]
    fn a_tenth_is_held_out_where_nothing_is_given() {
        let split = |validation: Vec<usize>| Split {
            train: (0..20).collect(),
            validation,
            test: vec![],
        };
        let every = split(vec![]).with_validation(HoldOut::EveryTenth);
        assert_eq!(every.validation, [9, 19]);
        assert_eq!(every.train.len(), 18);
        let last = split(vec![]).with_validation(HoldOut::LastTenth);
        assert_eq!(last.validation, [18, 19]);
        let few = |count: usize, hold_out| {
            let train = (0..count).collect();
            let split = Split {
                train,
                ..Split::default()
            };
            split.with_validation(hold_out).validation
        };
        assert_eq!(few(8, HoldOut::EveryTenth), [7]);
        assert_eq!(few(8, HoldOut::LastTenth), [7]);
        assert_eq!(few(4, HoldOut::LastTenth), [0; 0]);
        let given = split(vec![5]).with_validation(HoldOut::LastTenth);
        assert_eq!((given.train.len(), given.validation), (20, vec![5]));
    }
}
