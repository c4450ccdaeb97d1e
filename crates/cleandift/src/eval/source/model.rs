//! A model as a source of features.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::json;

use super::{Image, Seen, Source};
use crate::eval::{EvalError, Settings};
use crate::extractor::{Condition, Extractor, Prompt, TextModel};
use crate::image::{Fit, Resample, Size, fit};

/// How pictures get onto the network's canvas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Canvas {
    /// Its size.
    pub size: Size,
    /// How a picture of another shape gets onto it.
    pub fit: Fit,
    /// How it is resampled.
    pub resample: Resample,
}

impl Canvas {
    /// As settings.
    pub fn settings(&self) -> Settings {
        let words = [
            ("size", self.size.to_string()),
            ("resize", self.fit.to_string()),
            ("resample", self.resample.to_string()),
        ];
        let entry = |(key, value): (&str, String)| (key.to_owned(), json!(value));
        words.into_iter().map(entry).collect()
    }
}

/// A model's features. All prompts are encoded once, before the first picture, so that the text
/// encoder and the U-Net never lie in memory together.
pub struct ModelSource {
    extractor: Extractor,
    canvas: Canvas,
    identity: Settings,
    prompts: HashMap<String, Prompt>,
    /// Of the last prompt: pictures with one prompt usually follow each other.
    condition: Option<(String, Condition)>,
}

impl ModelSource {
    /// A model that will see pictures with these prompts. `identity` tells what the extractor
    /// cannot: the model's name, the hash of its weights, its mode.
    ///
    /// A model that knows classes instead of prompts is given none.
    ///
    /// # Errors
    /// If a size does not suit the model, or a prompt cannot be encoded.
    pub fn new<'p>(
        extractor: Extractor,
        canvas: Canvas,
        prompts: impl IntoIterator<Item = &'p str>,
        identity: Settings,
    ) -> Result<Self, EvalError> {
        canvas.size.check_multiple(extractor.multiple())?;
        let classes = matches!(extractor.model().text, Ok(TextModel::ClassTable(_)));
        let mut known = HashMap::new();
        let encoder = extractor.text_encoder()?;
        for prompt in prompts {
            if !known.contains_key(prompt) {
                let said = if classes { "" } else { prompt };
                known.insert(prompt.to_owned(), encoder.encode(said)?);
            }
        }
        drop(encoder);
        Ok(Self {
            extractor,
            canvas,
            identity,
            prompts: known,
            condition: None,
        })
    }

    /// The extractor.
    pub fn extractor(&self) -> &Extractor {
        &self.extractor
    }

    /// The canvas.
    pub fn canvas(&self) -> Canvas {
        self.canvas
    }

    fn condition(&mut self, prompt: &str) -> Result<&Condition, EvalError> {
        if self
            .condition
            .as_ref()
            .is_none_or(|(last, _)| last != prompt)
        {
            let known = self.prompts.get(prompt).cloned();
            let known = known.ok_or_else(|| {
                EvalError::Unsuitable(format!("the prompt `{prompt}` was not announced"))
            })?;
            let condition = self.extractor.condition(known)?;
            self.condition = Some((prompt.to_owned(), condition));
        }
        Ok(&self.condition.as_ref().expect("just made").1)
    }
}

impl Source for ModelSource {
    fn settings(&self) -> Settings {
        let mut settings = self.identity.clone();
        settings.extend(self.canvas.settings());
        let taps = self.extractor.taps().iter().map(|tap| tap.name());
        settings.insert("taps".to_owned(), taps.collect::<Vec<_>>().join(",").into());
        settings
    }

    fn see(&mut self, image: &Image) -> Result<Arc<Seen>, EvalError> {
        let Canvas {
            size,
            fit: rule,
            resample,
        } = self.canvas;
        let multiple = self.extractor.multiple();
        let (pixels, frame) = fit(&image.open()?, size, rule, resample, multiple)?;
        let condition = self.condition(&image.prompt)?.clone();
        let mut extractions = self.extractor.extract(&[&pixels], &condition)?;
        let maps = extractions.swap_remove(0).maps;
        Ok(Arc::new(Seen { frame, maps }))
    }
}
