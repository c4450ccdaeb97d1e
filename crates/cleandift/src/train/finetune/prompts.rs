//! What teacher and student are told of a picture.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::super::TrainError;
use super::super::data::Sample;
use super::cache::{Cache, Cached, Kept};
use super::stacked;
use crate::engine::cpu::{Precision, Processor};
use crate::extractor::{Model, TextEncoder};
use crate::graph::Tensor;

/// Which texts are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Text {
    /// The picture's caption, for both.
    Captions,
    /// None, for both.
    None,
    /// The caption for the teacher, none for the student: it learns to do without.
    Distilled,
}

/// Text embeddings of a batch, `[image][token][width]`.
pub struct Embeddings {
    /// What the teacher gets.
    pub teacher: Tensor<f32>,
    /// What the student gets.
    pub student: Tensor<f32>,
}

/// Text embeddings, made when they are first needed. The last few hundred are kept.
pub struct Prompts {
    text: Text,
    encoder: TextEncoder,
    cache: Option<Cache>,
    known: HashMap<String, Tensor<f32>>,
}

/// Their name in a file of the cache.
const EMBEDDINGS: &str = "embeddings";

/// How many embeddings are kept: of SD 2.1's, 80 MB.
const KEPT: usize = 256;

impl Prompts {
    /// # Errors
    /// If the model has no text encoder.
    pub fn new(
        model: &Model,
        processor: &Processor,
        text: Text,
        cache: Option<Cache>,
    ) -> Result<Self, TrainError> {
        let half = Precision {
            half_weights: true,
            ..processor.precision()
        };
        let processor = processor.clone().with_precision(half);
        let processor = processor.expect("its arithmetic is the one that was in use");
        // An empty prompt is encoded once, and no weight needs to be kept for it.
        let many = text != Text::None;
        let encoder = TextEncoder::new(model, &processor, many).map_err(Box::new)?;
        Ok(Self {
            text,
            encoder,
            cache,
            known: HashMap::new(),
        })
    }

    /// Tokens of a prompt.
    pub fn tokens(&self) -> usize {
        self.encoder.tokens()
    }

    /// Bytes that the encoder's weights take: none where the same empty prompt serves for all.
    pub fn weight_bytes(&self) -> usize {
        match self.text {
            Text::None => 0,
            _ => self.encoder.weight_bytes(),
        }
    }

    /// The embeddings of a batch.
    ///
    /// # Errors
    /// A caption that is needed and missing; an encoder that fails.
    pub fn embeddings(&mut self, samples: &[Sample]) -> Result<Embeddings, TrainError> {
        let empty = self.encode("")?;
        let none = || stacked(vec![empty.clone(); samples.len()]);
        if self.text == Text::None {
            return Ok(Embeddings {
                teacher: none(),
                student: none(),
            });
        }
        let of_captions = samples.iter().map(|sample| {
            let number = sample.number;
            let caption = sample.caption.as_deref();
            self.encode(caption.ok_or(TrainError::NoCaption { number })?)
        });
        let captions = stacked(of_captions.collect::<Result<Vec<_>, _>>()?);
        Ok(match self.text {
            Text::Distilled => Embeddings {
                teacher: captions,
                student: none(),
            },
            _ => Embeddings {
                teacher: captions.clone(),
                student: captions,
            },
        })
    }

    fn encode(&mut self, prompt: &str) -> Result<Tensor<f32>, TrainError> {
        if let Some(known) = self.known.get(prompt) {
            return Ok(known.clone());
        }
        let embeddings = self.encode_anew(prompt)?;
        if self.known.len() == KEPT {
            self.known.clear();
        }
        self.known.insert(prompt.to_owned(), embeddings.clone());
        Ok(embeddings)
    }

    /// From the cache on the disk, else by the encoder.
    fn encode_anew(&self, prompt: &str) -> Result<Tensor<f32>, TrainError> {
        let cache = self.cache.as_ref();
        let key = cache.and_then(|cache| cache.key(Cached::Prompts, &[prompt.as_bytes()]));
        if let Some((cache, key)) = cache.zip(key.as_ref())
            && let Some(mut kept) = cache.read(key)
            && let Some(embeddings) = kept.take(EMBEDDINGS)
        {
            return Ok(embeddings);
        }
        let embeddings = self.encoder.encode(prompt).map_err(Box::new)?.embeddings;
        if let Some((cache, key)) = cache.zip(key.as_ref()) {
            let kept = Kept::new([(EMBEDDINGS.to_owned(), embeddings.clone())]);
            cache.write(key, &kept)?;
        }
        Ok(embeddings)
    }
}
