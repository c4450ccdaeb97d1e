//! A model as a source of features.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use serde_json::json;

use super::{Image, Seen, Source};
use crate::eval::{EvalError, Settings};
use crate::extractor::{Codec, Condition, Extractor, Prompt, TextModel};
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
pub struct ModelSource<'l> {
    extractor: Extractor,
    canvas: Canvas,
    identity: Settings,
    prompts: HashMap<String, Prompt>,
    /// Where latents come from that several models or modes share, and over how many draws of
    /// noise means are wanted.
    shared: Option<(Latents<'l>, Vec<usize>)>,
    /// Of the last prompt: pictures with one prompt usually follow each other.
    condition: Option<(String, Condition)>,
}

impl<'l> ModelSource<'l> {
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
            shared: None,
            condition: None,
        })
    }

    /// The same, with latents from `latents` ([`LatentSource`], usually kept by a cache) instead of
    /// the model's own codec. Of noisy features the means over the first so many draws are given,
    /// named as [`tap_name`] says.
    pub fn sharing(self, latents: Latents<'l>, counts: Vec<usize>) -> Self {
        Self {
            shared: Some((latents, counts)),
            ..self
        }
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

impl Source for ModelSource<'_> {
    fn settings(&self) -> Settings {
        let mut settings = self.identity.clone();
        settings.extend(self.canvas.settings());
        let taps = self.extractor.taps().iter().map(|tap| tap.name());
        settings.insert("taps".to_owned(), taps.collect::<Vec<_>>().join(",").into());
        if let Some((_, counts)) = &self.shared {
            settings.insert("means_over_draws".to_owned(), json!(counts));
        }
        settings
    }

    fn see(&mut self, image: &Image) -> Result<Arc<Seen>, EvalError> {
        if let Some((latents, counts)) = self.shared.clone() {
            let seen = latents.borrow_mut().see(image)?;
            let condition = self.condition(&image.prompt)?.clone();
            let latents = seen.map(LatentSource::TAP, image)?;
            let means = self.extractor.extract_means(latents, &counts, &condition)?;
            let counts = counts.iter().map(Some).chain(std::iter::repeat(None));
            let named = means
                .into_iter()
                .zip(counts)
                .flat_map(|(extraction, count)| {
                    let named = extraction.maps.into_iter();
                    named.map(move |(tap, map)| (tap_name(&tap, count.copied()), map))
                });
            return Ok(Arc::new(Seen {
                frame: seen.frame,
                maps: named.collect(),
            }));
        }
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

/// Latents that several sources share.
pub type Latents<'l> = Rc<RefCell<dyn Source + 'l>>;

/// What a shared source calls a tap: `us6`, or `us6 of 8` for the mean over 8 draws.
pub fn tap_name(tap: &str, count: Option<usize>) -> String {
    match count {
        None => tap.to_owned(),
        Some(count) => format!("{tap} of {count}"),
    }
}

/// A model's codec as a source: its maps are latents.
pub struct LatentSource {
    codec: Codec,
    canvas: Canvas,
    identity: Settings,
}

impl LatentSource {
    /// The name of the only map.
    pub const TAP: &'static str = "latents";

    /// The codec on a canvas; `identity` tells whose it is.
    pub fn new(codec: Codec, canvas: Canvas, identity: Settings) -> Self {
        Self {
            codec,
            canvas,
            identity,
        }
    }
}

impl Source for LatentSource {
    fn settings(&self) -> Settings {
        let mut settings = self.identity.clone();
        settings.extend(self.canvas.settings());
        settings
    }

    fn see(&mut self, image: &Image) -> Result<Arc<Seen>, EvalError> {
        let Canvas {
            size,
            fit: rule,
            resample,
        } = self.canvas;
        let (pixels, frame) = fit(&image.open()?, size, rule, resample, self.codec.multiple())?;
        let latents = self
            .codec
            .encode(&pixels)
            .map_err(crate::extractor::ExtractError::from)?;
        Ok(Arc::new(Seen {
            frame,
            maps: vec![(Self::TAP.to_owned(), latents)],
        }))
    }
}
