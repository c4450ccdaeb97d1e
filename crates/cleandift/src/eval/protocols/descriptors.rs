//! One map from several: joined on the finest grid, each part made unit length.

use std::borrow::Cow;

use crate::eval::source::EXTERNAL;
use crate::eval::{EvalError, Image, Products, Seen};
use crate::features::{FeatureMap, Parts, join};

/// The map that a candidate's taps make together: the taps' channels one after another on the grid
/// of the first (coarser maps interpolated bilinearly, as `F.interpolate`), and, if there are
/// external features, both parts made unit length at every cell and joined ("A Tale of Two
/// Features", section 3.3).
///
/// # Errors
/// If a tap is missing.
pub fn describe<'s>(
    seen: &'s Seen,
    taps: &[String],
    image: &Image,
) -> Result<Cow<'s, FeatureMap>, EvalError> {
    let maps = taps.iter().map(|tap| seen.map(tap, image));
    let maps: Vec<&FeatureMap> = maps.collect::<Result<_, _>>()?;
    let joined = match maps.as_slice() {
        [map] => Cow::Borrowed(*map),
        maps => Cow::Owned(join(maps, maps[0].extent(), Parts::AsTheyAre)),
    };
    Ok(with_external(joined, seen, image))
}

/// The maps of two pictures that are compared with each other, as [`describe`] makes them, but
/// every tap's channels reduced to at most `count` components of both pictures' cells together, and
/// each map brought to the next finer one's grid ("A Tale of Two Features", section 3.2).
///
/// # Errors
/// If a tap is missing.
pub fn describe_together(
    seen: [&Seen; 2],
    taps: &[String],
    images: [&Image; 2],
    count: usize,
) -> Result<[FeatureMap; 2], EvalError> {
    let [mut source, mut target] = [Vec::new(), Vec::new()];
    for tap in taps {
        let maps = [seen[0].map(tap, images[0])?, seen[1].map(tap, images[1])?];
        let [of_source, of_target] = reduce(maps, count);
        source.push(of_source);
        target.push(of_target);
    }
    let finish = |maps: Vec<FeatureMap>, of: usize| {
        let coarsest_first = maps.into_iter().rev();
        let joined = coarsest_first.reduce(|coarse, fine| {
            let extent = fine.extent();
            join(&[&fine, &coarse], extent, Parts::AsTheyAre)
        });
        let joined = Cow::Owned(joined.expect("a protocol has taps"));
        with_external(joined, seen[of], images[of]).into_owned()
    };
    Ok([finish(source, 0), finish(target, 1)])
}

/// Two maps, less their mean cell, in at most `count` components of all their cells.
fn reduce(maps: [&FeatureMap; 2], count: usize) -> [FeatureMap; 2] {
    let channels = maps[0].channels();
    let cells = maps.map(|map| (map.extent().width * map.extent().height) as f32);
    let [first, second] = maps.map(FeatureMap::mean);
    let mean: Vec<f32> = (first.iter().zip(&second))
        .map(|(first, second)| (first * cells[0] + second * cells[1]) / (cells[0] + cells[1]))
        .collect();
    let centred = maps.map(|map| {
        let mean = mean.iter().cycle();
        let values = map.values().iter().zip(mean);
        values
            .map(|(value, mean)| value - mean)
            .collect::<Vec<f32>>()
    });
    let mut products = Products::new(channels);
    centred.iter().for_each(|cells| products.add(cells));
    let components = products.components(count);
    let reduced = |of: usize| {
        let values = components.of(&centred[of]);
        FeatureMap::new(maps[of].extent(), components.count(), values)
    };
    [reduced(0), reduced(1)]
}

/// The same with external features, if there are any: both parts made unit length.
fn with_external<'s>(
    own: Cow<'s, FeatureMap>,
    seen: &'s Seen,
    image: &Image,
) -> Cow<'s, FeatureMap> {
    match seen.map(EXTERNAL, image) {
        Err(_) => own,
        Ok(external) => {
            let extent = own.extent();
            Cow::Owned(join(&[&own, external], extent, Parts::UnitLength))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::{Extent, Frame};

    fn seen(maps: Vec<(&str, FeatureMap)>) -> Seen {
        let extent = Extent::new(4, 4);
        Seen {
            frame: Frame::squash(extent, extent),
            maps: maps
                .into_iter()
                .map(|(tap, map)| (tap.to_owned(), map))
                .collect(),
        }
    }

    /// `F.interpolate(torch.tensor([[[[0., 4.]]]]), size=(1, 4), mode="bilinear")` is
    /// [0, 1, 3, 4].
    #[test]
    fn coarser_maps_are_interpolated() {
        let fine = FeatureMap::new(Extent::new(4, 1), 1, vec![9.0; 4]);
        let coarse = FeatureMap::new(Extent::new(2, 1), 1, vec![0.0, 4.0]);
        let seen = seen(vec![("us8", fine), ("us5", coarse)]);
        let taps = ["us8".to_owned(), "us5".to_owned()];
        let map = describe(&seen, &taps, &Image::file("a", "")).unwrap();
        assert_eq!(map.values(), [9.0, 0.0, 9.0, 1.0, 9.0, 3.0, 9.0, 4.0]);
    }

    /// By hand: (3, 4) and (0, 2), each of length one.
    #[test]
    fn external_features_weigh_as_much_as_the_others() {
        let own = FeatureMap::new(Extent::new(1, 1), 2, vec![3.0, 4.0]);
        let external = FeatureMap::new(Extent::new(1, 1), 2, vec![0.0, 2.0]);
        let seen = seen(vec![("us6", own), (EXTERNAL, external)]);
        let map = describe(&seen, &["us6".to_owned()], &Image::file("a", "")).unwrap();
        for (found, expected) in map.values().iter().zip([0.6, 0.8, 0.0, 1.0]) {
            assert!((found - expected).abs() < 1e-6);
        }
    }
}
