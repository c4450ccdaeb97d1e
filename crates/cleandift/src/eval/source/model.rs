//! A model as a source of features.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use serde_json::json;

use super::canvas::{Canvas, Windows};
use super::{Image, Seen, Source};
use crate::eval::{EvalError, Settings};
use crate::extractor::{Codec, Condition, ExtractError, Extraction, Extractor, Prompt, TextModel};
use crate::features::FeatureMap;

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
    /// How many draws of noise are run at once, if latents are shared.
    batch: usize,
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
            batch: 1,
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

    /// The same, with so many draws of noise run at once, where latents are shared: faster for small
    /// canvases, and the same bits.
    pub fn in_batches_of(self, batch: usize) -> Self {
        Self { batch, ..self }
    }

    /// The extractor.
    pub fn extractor(&self) -> &Extractor {
        &self.extractor
    }

    /// The canvas.
    pub fn canvas(&self) -> Canvas {
        self.canvas
    }

    /// The maps behind one latent: of noisy features one for each tap and count.
    fn means(
        &self,
        latents: &FeatureMap,
        counts: &[usize],
        condition: &Condition,
    ) -> Result<Vec<(String, FeatureMap)>, EvalError> {
        let means = self
            .extractor
            .extract_means(latents, counts, self.batch, condition)?;
        let counts = counts
            .iter()
            .copied()
            .map(Some)
            .chain(std::iter::repeat(None));
        let named = means
            .into_iter()
            .zip(counts)
            .flat_map(|(extraction, count)| {
                let named = extraction.maps.into_iter();
                named.map(move |(tap, map)| (tap_name(&tap, count), map))
            });
        Ok(named.collect())
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
        let taps = self.extractor.groups().iter().map(|group| group.name());
        settings.insert("taps".to_owned(), taps.collect::<Vec<_>>().join(",").into());
        let arithmetic = self.extractor.processor().precision().arithmetic;
        settings.insert("arithmetic".to_owned(), arithmetic.name().into());
        if let Some((_, counts)) = &self.shared {
            settings.insert("means_over_draws".to_owned(), json!(counts));
        }
        settings
    }

    fn see(&mut self, image: &Image) -> Result<Arc<Seen>, EvalError> {
        let condition = self.condition(&image.prompt)?.clone();
        let (frame, pieces) = match self.shared.clone() {
            Some((latents, counts)) => {
                let seen = latents.borrow_mut().see(image)?;
                let piece =
                    |(_, latents): &(String, FeatureMap)| self.means(latents, &counts, &condition);
                let pieces = seen.maps.iter().map(piece).collect::<Result<Vec<_>, _>>()?;
                (seen.frame, pieces)
            }
            None => {
                let (pixels, frame) = self.canvas.place(image, self.extractor.multiple())?;
                let windows = self.canvas.windows(frame.canvas).cut(&pixels);
                let piece = |window| self.extractor.extract(&[window], &condition);
                let pieces = windows.iter().map(piece).collect::<Result<Vec<_>, _>>()?;
                let maps = |mut piece: Vec<Extraction>| piece.swap_remove(0).maps;
                (frame, pieces.into_iter().map(maps).collect())
            }
        };
        let windows = self.canvas.windows(frame.canvas);
        let maps = stitch(&windows, pieces);
        Ok(Arc::new(Seen { frame, maps }))
    }
}

/// Each tap's map of the canvas, from the maps of its windows.
fn stitch(windows: &Windows, pieces: Vec<Vec<(String, FeatureMap)>>) -> Vec<(String, FeatureMap)> {
    let names: Vec<String> = pieces[0].iter().map(|(name, _)| name.clone()).collect();
    let mut pieces: Vec<_> = pieces.into_iter().map(Vec::into_iter).collect();
    let mut next = || -> Vec<FeatureMap> {
        let maps = pieces.iter_mut().map(|maps| maps.next());
        maps.map(|map| map.expect("every window has all taps").1)
            .collect()
    };
    let stitched = names
        .into_iter()
        .map(|name| (name, windows.stitch(&next())));
    stitched.collect()
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

/// A model's codec as a source: its maps are the latents of the canvas's windows, in their order.
pub struct LatentSource {
    codec: Codec,
    canvas: Canvas,
    identity: Settings,
}

impl LatentSource {
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
        let arithmetic = self.codec.processor().precision().arithmetic;
        settings.insert("arithmetic".to_owned(), arithmetic.name().into());
        settings
    }

    fn see(&mut self, image: &Image) -> Result<Arc<Seen>, EvalError> {
        let (pixels, frame) = self.canvas.place(image, self.codec.multiple())?;
        let windows = self.canvas.windows(frame.canvas).cut(&pixels);
        let latents = |(place, window): (usize, _)| {
            let latents = self.codec.encode(window).map_err(ExtractError::from)?;
            Ok((format!("latents {place}"), latents))
        };
        let maps = windows.iter().enumerate().map(latents);
        Ok(Arc::new(Seen {
            frame,
            maps: maps.collect::<Result<_, EvalError>>()?,
        }))
    }
}
