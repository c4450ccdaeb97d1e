//! Taps that become one map.

use super::join::{Parts, join};
use super::{FeatureMap, Tap, UnknownTap};
use crate::graph::{Graph, Shape};
use crate::image::Extent;

/// What is asked of the network as one map: a tap, or several, such as `us3+us7+us9`.
///
/// Several are joined as "A Tale of Two Features" (arXiv 2305.15347, section 3.3) joins features:
/// on the finest grid among them, each one's part of a cell made unit length, so that all weigh the
/// same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TapGroup {
    name: String,
    taps: Vec<Tap>,
}

impl TapGroup {
    /// The groups of a list such as `us6,us3+us9`, each once; `all` stands for the eleven taps of
    /// CleanDIFT.
    ///
    /// # Errors
    /// The first name that is no tap of `network`.
    pub fn find_all(list: &str, network: &Graph) -> Result<Vec<Self>, UnknownTap> {
        let mut groups: Vec<Self> = Vec::new();
        for name in list.split(',').map(str::trim) {
            let found: Vec<Self> = match name.contains('+') {
                true => vec![Self::find(name, network)?],
                false => Tap::find_all(name, network)?
                    .into_iter()
                    .map(Self::from)
                    .collect(),
            };
            for group in found {
                if !groups.iter().any(|known| known.name == group.name) {
                    groups.push(group);
                }
            }
        }
        Ok(groups)
    }

    fn find(name: &str, network: &Graph) -> Result<Self, UnknownTap> {
        let parts = name.split('+').map(|part| Tap::find(part.trim(), network));
        let taps = parts.collect::<Result<Vec<_>, _>>()?;
        let names: Vec<&str> = taps.iter().map(Tap::name).collect();
        Ok(Self {
            name: names.join("+"),
            taps,
        })
    }

    /// The name: also the tensor's in files.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The taps, in the order of their channels.
    pub fn taps(&self) -> &[Tap] {
        &self.taps
    }

    /// The paths of the modules whose outputs these are, joined by `+`.
    pub fn modules(&self) -> String {
        let modules: Vec<&str> = self.taps.iter().map(Tap::module).collect();
        modules.join("+")
    }

    /// The map of the group from those of its taps.
    ///
    /// # Panics
    /// If there are none.
    pub(crate) fn map(&self, maps: &[&FeatureMap]) -> FeatureMap {
        match maps {
            [map] => (*map).clone(),
            maps => {
                let finest = finest(maps.iter().map(|map| map.extent()));
                join(maps, finest, Parts::UnitLength)
            }
        }
    }

    /// The shape of the group's map, from those of its taps.
    pub(crate) fn shape(&self, of: impl Fn(&Tap) -> Shape) -> Shape {
        let shapes: Vec<Shape> = self.taps.iter().map(of).collect();
        let extents = shapes
            .iter()
            .map(|shape| Extent::new(shape.width, shape.height));
        let Extent { width, height } = finest(extents);
        let channels = shapes.iter().map(|shape| shape.channels);
        Shape::map(height, width, channels.sum())
    }
}

/// The grid that maps are joined on.
fn finest(extents: impl Iterator<Item = Extent>) -> Extent {
    let finest = extents.max_by_key(|extent| extent.width * extent.height);
    finest.expect("a group has taps")
}

impl From<Tap> for TapGroup {
    fn from(tap: Tap) -> Self {
        Self {
            name: tap.name().to_owned(),
            taps: vec![tap],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By hand: the coarse vector (3, 4) everywhere, the fine ones 2 and 0; each of length one.
    #[test]
    fn parts_weigh_the_same_on_the_finest_grid() {
        let group = TapGroup {
            name: "coarse+fine".to_owned(),
            taps: Vec::new(),
        };
        let coarse = FeatureMap::new(Extent::new(1, 1), 2, vec![3.0, 4.0]);
        let fine = FeatureMap::new(Extent::new(2, 1), 1, vec![2.0, 0.0]);
        let joined = group.map(&[&coarse, &fine]);
        assert_eq!(joined.extent(), Extent::new(2, 1));
        let expected = [0.6, 0.8, 1.0, 0.6, 0.8, 0.0];
        for (found, expected) in joined.values().iter().zip(expected) {
            assert!((found - expected).abs() < 1e-6, "{:?}", joined.values());
        }
        assert_eq!(group.map(&[&fine]), fine);
    }
}
