//! What noisy features are made of: how much comes from the picture, how much from the noise, and
//! how much from neither alone (Figure 3 of CleanDIFT, arXiv 2412.03439).

use serde::{Deserialize, Serialize};

use crate::features::FeatureMap;

/// Shares of a noisy map's variance; they add up to one.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Shares {
    /// Of the features of the clean latent.
    pub clean: f64,
    /// Of the features of noise alone.
    pub noise: f64,
    /// Of what neither explains.
    pub residual: f64,
}

/// Explains noisy features by least squares from two others, each with one factor: those of the
/// clean latent at timestep 0 and those of noise alone at timestep 999. The shares are the variances
/// of both scaled maps and of the residual, over their sum. Means over all values are taken out
/// first.
///
/// # Panics
/// If the maps have different shapes.
pub fn explain(noisy: &FeatureMap, clean: &FeatureMap, noise: &FeatureMap) -> Shares {
    let [y, c, n] = [noisy, clean, noise].map(centred);
    assert!(
        y.len() == c.len() && y.len() == n.len(),
        "maps of different shapes"
    );
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let (cc, cn, nn) = (dot(&c, &c), dot(&c, &n), dot(&n, &n));
    let (cy, ny) = (dot(&c, &y), dot(&n, &y));
    let determinant = cc * nn - cn * cn;
    // Two maps of one direction, or an empty one, explain as much as the first alone.
    let (a, b) = match determinant > 1e-12 * cc * nn {
        true => (
            (cy * nn - ny * cn) / determinant,
            (ny * cc - cy * cn) / determinant,
        ),
        false if cc > 0.0 => (cy / cc, 0.0),
        false => (0.0, 0.0),
    };
    let residual = (y.iter().zip(&c).zip(&n))
        .map(|((y, c), n)| (y - a * c - b * n).powi(2))
        .sum::<f64>();
    let (clean, noise) = (a * a * cc, b * b * nn);
    let total = clean + noise + residual;
    Shares {
        clean: clean / total,
        noise: noise / total,
        residual: residual / total,
    }
}

/// The share of the variance of maps of one picture that lies between them: how much features
/// change with the noise drawn. Of the variance of all values of all maps, that around the mean map;
/// unbiased.
///
/// # Panics
/// If there are fewer than two maps, or they have different shapes.
pub fn between_draws(maps: &[FeatureMap]) -> f64 {
    assert!(maps.len() > 1, "one map has no spread");
    let count = maps.len() as f64;
    let (mut within, mut mean, mut squares) = (0.0, 0.0, 0.0);
    let values = maps[0].values().len();
    for index in 0..values {
        let of_maps = maps.iter().map(|map| f64::from(map.values()[index]));
        let centre = of_maps.clone().sum::<f64>() / count;
        within += of_maps.map(|value| (value - centre).powi(2)).sum::<f64>() / (count - 1.0);
        mean += centre;
        squares += centre * centre;
    }
    let (values, within) = (values as f64, within / values as f64);
    let mean = mean / values;
    // The mean map's own variance holds a part of the spread.
    let between_places = (squares / values - mean * mean - within / count).max(0.0);
    within / (within + between_places)
}

fn centred(map: &FeatureMap) -> Vec<f64> {
    let values = map.values().iter().map(|&value| f64::from(value));
    let mean = values.clone().sum::<f64>() / map.values().len() as f64;
    values.map(|value| value - mean).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::Extent;

    fn map(values: [f32; 4]) -> FeatureMap {
        FeatureMap::new(Extent::new(2, 2), 1, values.to_vec())
    }

    /// By hand, from three orthogonal maps of equal length: 2 clean + 1 noise + 2 else.
    #[test]
    fn orthogonal_parts_are_told_apart() {
        let (clean, noise) = (map([1.0, 1.0, -1.0, -1.0]), map([1.0, -1.0, 1.0, -1.0]));
        let noisy = map([
            2.0 + 1.0 + 2.0,
            2.0 - 1.0 - 2.0,
            -2.0 + 1.0 - 2.0,
            -2.0 - 1.0 + 2.0,
        ]);
        let found = explain(&noisy, &clean, &noise);
        let expected = [4.0 / 9.0, 1.0 / 9.0, 4.0 / 9.0];
        for (found, expected) in [found.clean, found.noise, found.residual]
            .iter()
            .zip(expected)
        {
            assert!((found - expected).abs() < 1e-12);
        }
    }

    /// By hand: two maps that differ by 2 everywhere spread with variance 2 around their mean, whose
    /// own variance is 4, of which 2 / 2 is spread: 2 / (2 + 3).
    #[test]
    fn spread_between_draws() {
        let maps = [map([3.0, 1.0, -1.0, -3.0]), map([1.0, 3.0, -3.0, -1.0])];
        let found = between_draws(&maps);
        assert!((found - 0.4).abs() < 1e-12, "{found}");
        assert_eq!(between_draws(&[map([1.0; 4]), map([3.0; 4])]), 1.0);
    }
}
