//! Pixels counted by true and predicted class, and what follows from the counts: intersection
//! over union.

use crate::eval::dense::VOID;

/// How often each true class was predicted as each class.
///
/// Counts of several pictures add up: the figure of a data set is that of the sum, which is not
/// the mean of the pictures' figures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Confusion {
    classes: usize,
    /// `[truth][prediction]`.
    counts: Vec<u64>,
}

impl Confusion {
    /// No pixel yet.
    pub fn new(classes: usize) -> Self {
        Self {
            classes,
            counts: vec![0; classes * classes],
        }
    }

    /// Counts the pixels whose true class is known (not [`VOID`]).
    ///
    /// # Panics
    /// If the slices differ in length, or a class is not below `classes`.
    pub fn count(classes: usize, truth: &[u8], predicted: &[u8]) -> Self {
        assert_eq!(truth.len(), predicted.len(), "a prediction for each pixel");
        let mut confusion = Self::new(classes);
        for (&truth, &predicted) in truth.iter().zip(predicted) {
            if truth != VOID {
                let (truth, predicted) = (usize::from(truth), usize::from(predicted));
                assert!(truth < classes && predicted < classes, "unknown class");
                confusion.counts[truth * classes + predicted] += 1;
            }
        }
        confusion
    }

    /// Adds the pixels of another picture.
    ///
    /// # Panics
    /// If it has another number of classes.
    pub fn add(&mut self, other: &Self) {
        assert_eq!(self.classes, other.classes, "the same classes");
        for (sum, count) in self.counts.iter_mut().zip(&other.counts) {
            *sum += count;
        }
    }

    /// How many classes there are.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// The pixels of class `truth` that were predicted as `predicted`.
    pub fn get(&self, truth: usize, predicted: usize) -> u64 {
        self.counts[truth * self.classes + predicted]
    }

    /// For each class the pixels that have it both in truth and in prediction, and those that
    /// have it in either.
    pub fn overlaps(&self) -> Vec<Overlap> {
        let overlap = |class: usize| {
            let intersection = self.get(class, class);
            let truth: u64 = (0..self.classes).map(|other| self.get(class, other)).sum();
            let predicted: u64 = (0..self.classes).map(|other| self.get(other, class)).sum();
            Overlap {
                intersection,
                union: truth + predicted - intersection,
            }
        };
        (0..self.classes).map(overlap).collect()
    }

    /// The share of all pixels whose class was predicted; `None` without pixels.
    pub fn accuracy(&self) -> Option<f64> {
        let right: u64 = (0..self.classes).map(|class| self.get(class, class)).sum();
        let all: u64 = self.counts.iter().sum();
        (all > 0).then(|| right as f64 / all as f64)
    }
}

/// Pixels of one class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Overlap {
    /// In truth and in prediction.
    pub intersection: u64,
    /// In truth or in prediction.
    pub union: u64,
}

impl Overlap {
    /// Intersection over union; `None` where the class occurs nowhere.
    pub fn ratio(self) -> Option<f64> {
        (self.union > 0).then(|| self.intersection as f64 / self.union as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Truth 0 0 1 1 2 void, prediction 0 1 1 1 0 2: by hand, class 0 has 1 of 3 pixels, class 1
    /// has 2 of 3, class 2 has 0 of 1; the void pixel is nobody's.
    #[test]
    fn a_case_counted_by_hand() {
        let confusion = Confusion::count(4, &[0, 0, 1, 1, 2, VOID], &[0, 1, 1, 1, 0, 2]);
        let overlaps = confusion.overlaps();
        let ratios: Vec<_> = overlaps.iter().map(|o| o.ratio()).collect();
        let third = 1.0 / 3.0;
        assert_eq!(ratios, [Some(third), Some(2.0 / 3.0), Some(0.0), None]);
        assert_eq!(confusion.accuracy(), Some(0.6));
    }

    /// Two pictures of one class each: their mean is (1/2 + 1) / 2, their sum 4 of 5 pixels.
    #[test]
    fn the_figure_of_a_sum_is_not_the_mean_of_figures() {
        let mut sum = Confusion::count(2, &[0, 0], &[0, 1]);
        sum.add(&Confusion::count(2, &[0, 0, 0], &[0, 0, 0]));
        assert_eq!(sum.overlaps()[0].ratio(), Some(0.8));
    }

    #[test]
    fn nothing_has_no_figure() {
        assert_eq!(Confusion::new(3).overlaps()[0].ratio(), None);
        assert_eq!(Confusion::new(3).accuracy(), None);
    }
}
