//! Features of whole pictures: the mean of every map.

use std::sync::Arc;

use serde_json::json;

use super::{Image, Seen, Source};
use crate::eval::{EvalError, Settings};
use crate::features::FeatureMap;
use crate::image::Extent;

/// A source whose maps are their means: one cell each, for tasks that look at nothing else.
pub struct Pooled<'s> {
    source: Box<dyn Source + 's>,
}

impl<'s> Pooled<'s> {
    /// The means of what `source` makes.
    pub fn new(source: Box<dyn Source + 's>) -> Self {
        Self { source }
    }
}

impl Source for Pooled<'_> {
    fn settings(&self) -> Settings {
        let mut settings = self.source.settings();
        settings.insert("pooled".to_owned(), json!("mean"));
        settings
    }

    fn see(&mut self, image: &Image) -> Result<Arc<Seen>, EvalError> {
        let seen = self.source.see(image)?;
        let mean = |(tap, map): &(String, FeatureMap)| {
            let mean = FeatureMap::new(Extent::new(1, 1), map.channels(), map.mean());
            (tap.clone(), mean)
        };
        Ok(Arc::new(Seen {
            frame: seen.frame,
            maps: seen.maps.iter().map(mean).collect(),
        }))
    }
}
