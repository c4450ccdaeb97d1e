//! Pairs of pictures with keypoints, whatever files they come from.

use std::collections::HashMap;

use serde_json::{Value, json};

use crate::archive::Place;
use crate::eval::digest::digest;
use crate::eval::{Image, Settings};

/// Pairs of pictures with keypoints, as a loader gives them.
#[derive(Clone, Debug)]
pub struct PairSet {
    /// What the command calls the data set.
    pub name: String,
    /// Which data set and split, and what was chosen when it was loaded.
    pub settings: Settings,
    /// The pictures; prompts are made by the protocol.
    pub images: Vec<Picture>,
    /// The pairs, those of a category one after another.
    pub pairs: Vec<Pair>,
    /// Keypoints that change places when a picture is mirrored, by category; known ones only.
    pub mirrors: HashMap<String, Vec<(usize, usize)>>,
    /// What is independent, in words.
    pub independent: String,
    /// Why the data carry no conclusions beyond themselves, if so.
    pub descriptive: Option<String>,
    /// The shares of the size that count as correct, the first one's figure comes first.
    pub alphas: Vec<f64>,
    /// What the shares refer to; the first one's figure comes first.
    pub sides: Vec<Side>,
}

impl PairSet {
    /// What tells these pairs from others: names, points and sizes, hashed.
    pub(super) fn fingerprint(&self) -> String {
        let lines = self.pairs.iter().map(|pair| {
            let points = pair.points.iter();
            let points: Vec<_> = points
                .map(|point| (point.slot, point.source, point.target))
                .collect();
            json!([pair.id, pair.category, pair.box_side, points]).to_string()
        });
        digest(&lines.collect::<Vec<_>>())
    }

    /// The pairs of two parts of one data set, those of a category one after another.
    pub fn joined_with(mut self, other: Self) -> Self {
        let known = self.images.len();
        self.images.extend(other.images);
        self.pairs.extend(other.pairs.into_iter().map(|pair| Pair {
            source: pair.source + known,
            target: pair.target + known,
            ..pair
        }));
        self.pairs.sort_by(|a, b| a.category.cmp(&b.category));
        self.mirrors.extend(other.mirrors);
        self.descriptive = self.descriptive.or(other.descriptive);
        for (key, value) in other.settings {
            let kept = self.settings.entry(key).or_insert_with(|| value.clone());
            match kept {
                Value::Array(all) if !all.contains(&value) => all.push(value),
                Value::Array(_) => {}
                one if *one != value => *one = json!([one, value]),
                _ => {}
            }
        }
        self
    }
}

/// A picture of a [`PairSet`].
#[derive(Clone, Debug)]
pub struct Picture {
    /// The picture.
    pub image: Image,
    /// Its category; it is told to the model.
    pub category: String,
    /// What is independent of other pictures: the picture itself, or the person it shows.
    pub unit: String,
    /// Where the mask of its object is, if there is one: a PNG, 0 beside the object.
    pub mask: Option<Place>,
}

/// Two pictures and the keypoints that both show.
#[derive(Clone, Debug, PartialEq)]
pub struct Pair {
    /// Unique in the set.
    pub id: String,
    /// What it is reported under.
    pub category: String,
    /// The source, by place in [`PairSet::images`].
    pub source: usize,
    /// The target.
    pub target: usize,
    /// The keypoints.
    pub points: Vec<Keypoint>,
    /// The longer side of the target's box, in pixels.
    pub box_side: f64,
}

/// A keypoint that both pictures of a pair show, in pixels of each.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Keypoint {
    /// Which keypoint of the category it is.
    pub slot: usize,
    /// In the source.
    pub source: [f64; 2],
    /// In the target.
    pub target: [f64; 2],
}

/// The size that thresholds refer to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The longer side of the target's box.
    Box,
    /// The longer side of the target picture.
    Picture,
}

impl Side {
    /// What reports call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Box => "bbox",
            Self::Picture => "img",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::Place;

    /// Two pictures and a pair of them.
    fn part(split: &str, category: &str) -> PairSet {
        let picture = |name: &str| Picture {
            image: Image::at(format!("{split}-{name}"), Place::File(name.into())),
            category: category.to_owned(),
            unit: name.to_owned(),
            mask: None,
        };
        PairSet {
            name: "pairs".to_owned(),
            settings: [("data", "drawn"), ("split", split)]
                .map(|(key, value)| (key.to_owned(), json!(value)))
                .into_iter()
                .collect(),
            images: vec![picture("a"), picture("b")],
            pairs: vec![Pair {
                id: split.to_owned(),
                category: category.to_owned(),
                source: 0,
                target: 1,
                points: Vec::new(),
                box_side: 1.0,
            }],
            mirrors: HashMap::new(),
            independent: "pictures".to_owned(),
            descriptive: None,
            alphas: vec![0.1],
            sides: vec![Side::Box],
        }
    }

    #[test]
    fn parts_are_joined_with_their_pictures() {
        let all = part("trn", "dog").joined_with(part("val", "cat"));
        let all = all.joined_with(part("test", "dog"));
        let found: Vec<_> = (all.pairs.iter())
            .map(|pair| {
                let [source, target] = [pair.source, pair.target].map(|i| &all.images[i].image.id);
                (&pair.id[..], &source[..], &target[..])
            })
            .collect();
        let expected = [
            ("val", "val-a", "val-b"),
            ("trn", "trn-a", "trn-b"),
            ("test", "test-a", "test-b"),
        ];
        assert_eq!(found, expected);
        assert_eq!(all.settings["split"], json!(["trn", "val", "test"]));
        assert_eq!(all.settings["data"], "drawn");
    }
}
