//! At which timesteps a picture is learned from: one in each of some bins of equal width.

use super::super::Random;

/// Timesteps of the teacher, and the bins that they are drawn from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bins {
    /// How many: timesteps per picture.
    pub count: usize,
    /// The first timestep that can be drawn.
    pub first: usize,
    /// The end of the last bin; the last timestep drawn is one less.
    pub end: usize,
}

impl Bins {
    /// One timestep of each bin, in order: `trunc((first + u r) + i r)` for the width `r`, all in
    /// f32 as in the published trainer. `random` gives `u`, uniform in [0, 1) with 24 bits. With a `u`
    /// close to 1 that sum rounds up to the end: the last timestep is drawn instead.
    pub fn draw(&self, random: &mut Random) -> Vec<usize> {
        let timestep = |index: usize| {
            let u = (random.bits() >> 40) as f32 / (1_u32 << 24) as f32;
            self.timestep(index, u)
        };
        (0..self.count).map(timestep).collect()
    }

    fn timestep(&self, index: usize, u: f32) -> usize {
        let width = ((self.end - self.first) as f64 / self.count as f64) as f32;
        let exact = self.first as f32 + u * width + index as f32 * width;
        (exact as usize).min(self.end - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// In f32, 999 + (1 - 2^-24) and its like are 1000.
    #[test]
    fn the_end_is_never_drawn() {
        let largest = 1.0 - 2.0_f32.powi(-24);
        for (count, first) in [(1, 990), (3, 0), (10, 0), (3, 500)] {
            let bins = Bins {
                count,
                first,
                end: 1000,
            };
            assert_eq!(bins.timestep(count - 1, largest), 999, "{bins:?}");
        }
    }

    #[test]
    fn each_bin_gives_one_timestep_and_the_last_is_never_reached() {
        let bins = Bins {
            count: 3,
            first: 1,
            end: 999,
        };
        // From the published formula: bins of 998 / 3, whose edges both neighbours can give.
        let ranges = [1..=333, 333..=666, 666..=998];
        let mut seen = [[usize::MAX, 0]; 3];
        for number in 0..20_000 {
            let drawn = bins.draw(&mut Random::new(7, "timesteps", number));
            for ((t, range), seen) in drawn.iter().zip(&ranges).zip(&mut seen) {
                assert!(range.contains(t), "{t} in {range:?}");
                *seen = [seen[0].min(*t), seen[1].max(*t)];
            }
        }
        assert_eq!(seen, [[1, 333], [333, 666], [666, 998]]);
    }
}
