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
    /// f32 as in the published trainer. `random` gives `u`, uniform in [0, 1) with 24 bits.
    pub fn draw(&self, random: &mut Random) -> Vec<usize> {
        let width = ((self.end - self.first) as f64 / self.count as f64) as f32;
        let first = self.first as f32;
        let timestep = |index: usize| {
            let u = (random.bits() >> 40) as f32 / (1_u32 << 24) as f32;
            (first + u * width + index as f32 * width) as usize
        };
        (0..self.count).map(timestep).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
