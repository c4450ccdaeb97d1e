//! Features with mean 0 and deviation 1 in every channel, so that one learning rate and one
//! penalty suit all of them.

use super::LinearProbe;

/// Mean and deviation of every channel over some cells, in one pass.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Standardisation {
    count: f64,
    mean: Vec<f64>,
    /// Sums of squared differences from the mean.
    squares: Vec<f64>,
}

impl Standardisation {
    /// Takes account of more cells, `[cell][channel]`.
    ///
    /// # Panics
    /// If the number of channels is not that of the cells before, or the cells are not whole.
    pub fn add(&mut self, cells: &[f32], channels: usize) {
        if self.mean.is_empty() {
            self.mean = vec![0.0; channels];
            self.squares = vec![0.0; channels];
        }
        assert_eq!(self.mean.len(), channels, "channels of the cells");
        assert_eq!(cells.len() % channels, 0, "whole cells");
        let added = (cells.len() / channels) as f64;
        if added == 0.0 {
            return;
        }
        let mut mean = vec![0.0; channels];
        each(cells, &mut mean, |sum, value| *sum += value);
        mean.iter_mut().for_each(|sum| *sum /= added);
        let mut squares: Vec<(f64, f64)> = mean.iter().map(|&mean| (mean, 0.0)).collect();
        each(cells, &mut squares, |(mean, sum), value| {
            *sum += (value - *mean) * (value - *mean);
        });
        // The sum of squares about a common mean (Chan, Golub and LeVeque 1983).
        let total = self.count + added;
        for (channel, (mean, sum)) in squares.into_iter().enumerate() {
            let difference = mean - self.mean[channel];
            self.mean[channel] += difference * added / total;
            self.squares[channel] += sum + difference * difference * self.count * added / total;
        }
        self.count = total;
    }

    /// How many values a cell has; 0 before any cell.
    pub fn channels(&self) -> usize {
        self.mean.len()
    }

    /// Standardises cells, `[cell][channel]`. A channel that never changes becomes 0.
    pub fn apply(&self, cells: &mut [f32]) {
        let scales = self.scales();
        for cell in cells.chunks_exact_mut(self.channels()) {
            for ((value, mean), scale) in cell.iter_mut().zip(&self.mean).zip(&scales) {
                *value = ((f64::from(*value) - mean) * scale) as f32;
            }
        }
    }

    /// The probe that does to raw features what `probe` does to standardised ones.
    pub fn fold(&self, probe: &LinearProbe) -> LinearProbe {
        let scales = self.scales();
        let mut folded = probe.clone();
        let rows = folded.weight.chunks_exact_mut(self.channels());
        for (row, bias) in rows.zip(&mut folded.bias) {
            let mut shift = 0.0;
            for ((weight, mean), scale) in row.iter_mut().zip(&self.mean).zip(&scales) {
                let scaled = f64::from(*weight) * scale;
                shift += scaled * mean;
                *weight = scaled as f32;
            }
            *bias = (f64::from(*bias) - shift) as f32;
        }
        folded
    }

    /// One over the deviation of each channel.
    fn scales(&self) -> Vec<f64> {
        let scale = |(square, mean): (&f64, &f64)| {
            let deviation = (square / self.count).sqrt();
            // What is left of a constant by rounding is no signal.
            match deviation > 1e-7 * mean.abs() {
                true => 1.0 / deviation,
                false => 0.0,
            }
        };
        self.squares.iter().zip(&self.mean).map(scale).collect()
    }
}

/// Calls `f` for every value with what belongs to its channel.
fn each<T>(cells: &[f32], of_channels: &mut [T], f: impl Fn(&mut T, f64)) {
    for cell in cells.chunks_exact(of_channels.len()) {
        for (of_channel, &value) in of_channels.iter_mut().zip(cell) {
            f(of_channel, f64::from(value));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 1, 2, 3, 6 have the mean 3 and the variance (4 + 1 + 0 + 9) / 4 = 3.5.
    #[test]
    fn parts_give_the_moments_of_the_whole() {
        let mut standardisation = Standardisation::default();
        standardisation.add(&[1.0, 5.0], 2);
        standardisation.add(&[2.0, 5.0, 3.0, 5.0], 2);
        standardisation.add(&[6.0, 5.0], 2);
        let mut cells = [1.0, 5.0, 6.0, 7.0];
        standardisation.apply(&mut cells);
        let expected = [-2.0 / 3.5f32.sqrt(), 0.0, 3.0 / 3.5f32.sqrt(), 0.0];
        for (found, expected) in cells.iter().zip(expected) {
            assert!((found - expected).abs() < 1e-6, "{cells:?}");
        }
    }

    #[test]
    fn a_folded_probe_gives_the_same_on_raw_features() {
        let mut standardisation = Standardisation::default();
        let raw = [10.0, -3.0, 12.0, 0.5, 17.0, 1.0];
        standardisation.add(&raw, 2);
        let probe = LinearProbe {
            outputs: 1,
            inputs: 2,
            weight: vec![0.5, -2.0],
            bias: vec![0.25],
        };
        let mut standard = raw;
        standardisation.apply(&mut standard);
        let kernels = cleandift_kernels::Kernels::best();
        let (expected, found) = (
            probe.logits(kernels, &standard),
            standardisation.fold(&probe).logits(kernels, &raw),
        );
        for (found, expected) in found.iter().zip(&expected) {
            assert!((found - expected).abs() < 1e-5, "{found} {expected}");
        }
    }
}
