//! Features in fewer numbers: every tap's channels in the components of some pictures' features.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;

use serde_json::json;

use super::{Image, Seen, Source, fingerprint};
use crate::checkpoint::{Dtype, TensorData, Weights, write_safetensors};
use crate::eval::digest::digest;
use crate::eval::{Components, EvalError, Products, Settings};
use crate::features::FeatureMap;
use crate::graph::Parameters;

/// A source whose maps are reduced to a number of components of their channels, so that they take
/// less room. Components are not centred: the cosine of two cells stays about what it was.
pub struct Reduced<'s> {
    source: &'s mut dyn Source,
    count: usize,
    /// The pictures whose features decide the components.
    sample: Vec<Image>,
    /// Where components are kept for the next run.
    folder: PathBuf,
    /// By tap, once they are known.
    components: BTreeMap<String, Components>,
    /// The sample's reduced features, until they are asked for.
    ready: HashMap<Key, Arc<Seen>>,
}

/// Pictures that decide the components: so few that their features fit in memory together, and
/// still more cells than there are channels.
const SAMPLE: usize = 16;

impl<'s> Reduced<'s> {
    /// Reduces what `source` makes to `count` components, decided by features of pictures evenly
    /// chosen from `images`, and kept in `folder`.
    pub fn new(
        source: &'s mut dyn Source,
        count: usize,
        images: &[Image],
        folder: PathBuf,
    ) -> Self {
        let taken = SAMPLE.min(images.len());
        let sample = (0..taken).map(|place| images[place * images.len() / taken].clone());
        Self {
            source,
            count,
            sample: sample.collect(),
            folder,
            components: BTreeMap::new(),
            ready: HashMap::new(),
        }
    }

    fn path(&self) -> PathBuf {
        let settings = serde_json::Value::Object(self.settings()).to_string();
        let name = format!(
            "components-{}.safetensors",
            &digest([settings.as_str()])[..16]
        );
        self.folder.join(name)
    }

    /// Finds the components, or reads those of an earlier run.
    fn prepare(&mut self) -> Result<(), EvalError> {
        let path = self.path();
        if path.exists() {
            let weights = Weights::open(&path)?;
            for tap in weights.names() {
                let channels = weights.shape(tap).map_or(0, |shape| shape[1]);
                let components = Components::new(channels, weights.read(tap)?);
                self.components.insert(tap.to_owned(), components);
            }
            return Ok(());
        }
        let sample = self.sample.iter().map(|image| self.source.see(image));
        let sample: Vec<Arc<Seen>> = sample.collect::<Result<_, _>>()?;
        for place in 0..sample.first().map_or(0, |seen| seen.maps.len()) {
            let (tap, map) = &sample[0].maps[place];
            let mut products = Products::new(map.channels());
            sample
                .iter()
                .for_each(|seen| products.add(seen.maps[place].1.values()));
            self.components
                .insert(tap.clone(), products.components(self.count));
        }
        for (image, seen) in self.sample.iter().zip(&sample) {
            self.ready.insert(key(image), Arc::new(self.reduce(seen)));
        }
        self.keep(&path)
    }

    fn keep(&self, path: &std::path::Path) -> Result<(), EvalError> {
        let shapes = self.components.values();
        let shapes: Vec<[usize; 2]> = shapes.map(|c| [c.count(), c.channels()]).collect();
        let tensors = self.components.iter().zip(&shapes);
        let tensors = tensors.map(|((name, components), shape)| TensorData {
            name,
            shape,
            values: components.directions(),
            dtype: Dtype::F32,
        });
        let tensors: Vec<TensorData> = tensors.collect();
        Ok(write_safetensors(path, &tensors, &BTreeMap::new())?)
    }

    fn reduce(&self, seen: &Seen) -> Seen {
        let reduce = |(tap, map): &(String, FeatureMap)| {
            let components = &self.components[tap];
            let values = components.of(map.values());
            let map = FeatureMap::new(map.extent(), components.count(), values);
            (tap.clone(), map)
        };
        Seen {
            frame: seen.frame,
            maps: seen.maps.iter().map(reduce).collect(),
        }
    }
}

/// Name, prompt and whether it is mirrored.
type Key = (String, String, bool);

fn key(image: &Image) -> Key {
    (image.id.clone(), image.prompt.clone(), image.mirrored)
}

impl Source for Reduced<'_> {
    fn settings(&self) -> Settings {
        let mut settings = self.source.settings();
        let sample: Vec<&str> = self.sample.iter().map(|image| image.id.as_str()).collect();
        settings.insert("components".to_owned(), json!(self.count));
        settings.insert("components_of".to_owned(), json!(sample));
        settings.extend(
            fingerprint(&self.sample)
                .into_iter()
                .map(|(key, value)| (format!("components_{key}"), value)),
        );
        settings
    }

    fn see(&mut self, image: &Image) -> Result<Arc<Seen>, EvalError> {
        if self.components.is_empty() {
            self.prepare()?;
        }
        match self.ready.remove(&key(image)) {
            Some(seen) => Ok(seen),
            None => {
                let seen = self.source.see(image)?;
                Ok(Arc::new(self.reduce(&seen)))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::{Extent, Frame};

    /// Features along two of five channels, by the length of the picture's name.
    struct Plane;

    impl Source for Plane {
        fn settings(&self) -> Settings {
            Settings::new()
        }

        fn see(&mut self, image: &Image) -> Result<Arc<Seen>, EvalError> {
            let extent = Extent::new(2, 1);
            let x = image.id.len() as f32;
            let values = vec![x, 0.0, 1.0, 0.0, 0.0, -1.0, 0.0, x, 0.0, 0.0];
            Ok(Arc::new(Seen {
                frame: Frame::squash(extent, extent),
                maps: vec![("us6".to_owned(), FeatureMap::new(extent, 5, values))],
            }))
        }
    }

    fn cosine(map: &FeatureMap) -> f32 {
        let dot = |a: usize, b: usize| -> f32 {
            map.cell(a, 0)
                .iter()
                .zip(map.cell(b, 0))
                .map(|(a, b)| a * b)
                .sum()
        };
        dot(0, 1) / (dot(0, 0) * dot(1, 1)).sqrt()
    }

    /// Two components hold a plane: all cosines stay. A second run reads the same components.
    #[test]
    fn as_many_components_as_directions_keep_the_cosines() {
        let folder = tempfile::tempdir().unwrap();
        let images = ["a", "bb", "cccc"].map(|id| Image::file(id, ""));
        let run = || {
            let mut plane = Plane;
            let path = folder.path().to_owned();
            let mut reduced = Reduced::new(&mut plane, 2, &images, path);
            images.each_ref().map(|image| reduced.see(image).unwrap())
        };
        let first = run();
        for (image, seen) in images.iter().zip(&first) {
            let (_, map) = &seen.maps[0];
            assert_eq!(map.channels(), 2);
            let whole = Plane.see(image).unwrap();
            let difference = cosine(map) - cosine(&whole.maps[0].1);
            assert!(difference.abs() < 1e-4, "{difference}");
        }
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        assert_eq!(run(), first);
    }
}
