//! What is timed: text encoder, condition, encoder, U-Net and matching, as an extraction does them.

use std::sync::Arc;

use cleandift::engine::cpu::Profile;
use cleandift::extractor::{Condition, Estimate, Extractor, Prompt, Prompts, TextModel};
use cleandift::features::FeatureMap;
use cleandift::image::{Extent, Filter, Fit, Frame, Picture, Pixels, Resample, Size, fit};
use cleandift::matching::{Field, Options, grid, match_points};

use super::stage::Stage;
use crate::example;
use crate::failure::Failure;

/// Points along each side of the grid that is matched.
pub const GRID: usize = 10;

/// Tokens of a prompt where no text encoder tells.
const TOKENS: usize = 77;

/// An extractor at work on the built-in pictures.
pub struct Work<'w> {
    extractor: &'w Extractor,
    profile: Arc<Profile>,
    /// As many as a pass takes: the two portraits in turn.
    pictures: Vec<(Pixels, Frame)>,
    condition: Option<Condition>,
    /// What encoder and U-Net gave last for a picture: channels, rows, columns.
    shapes: [[usize; 3]; 2],
    /// What the counts say.
    pub estimate: Estimate,
    /// Pixels of the canvas.
    pub canvas: Extent,
    /// The text encoder, if it was asked for.
    pub text: Stage,
    /// What depends on prompt and timestep alone.
    pub conditioning: Stage,
    /// The codec's encoder.
    pub encoder: Stage,
    /// The U-Net.
    pub unet: Stage,
    /// Points of the first picture sought in the last one, by the first tap.
    pub matching: Stage,
}

impl<'w> Work<'w> {
    /// Nothing is run yet.
    pub fn new(
        extractor: &'w Extractor,
        profile: Arc<Profile>,
        size: Option<Size>,
        images: usize,
    ) -> Result<Self, Failure> {
        let size = size.unwrap_or_else(|| extractor.default_size().into());
        let mut pictures = Vec::with_capacity(images);
        for picture in example::portraits()?.iter().cycle().take(images) {
            pictures.push(on_canvas(picture, size, extractor)?);
        }
        let canvas = pictures[0].0.extent();
        if pictures.iter().any(|(pixels, _)| pixels.extent() != canvas) {
            return Err(Failure::new(format!(
                "--size {size}: the built-in pictures are of different sizes; give one size"
            )));
        }
        Ok(Self {
            estimate: extractor.estimate(canvas, images, Prompts::One)?,
            extractor,
            profile,
            pictures,
            condition: None,
            shapes: [[0; 3]; 2],
            canvas,
            text: Stage::default(),
            conditioning: Stage::default(),
            encoder: Stage::default(),
            unet: Stage::default(),
            matching: Stage::default(),
        })
    }

    /// Pictures of one pass.
    pub fn images(&self) -> usize {
        self.pictures.len()
    }

    /// What is done once for all pictures: the first time and `runs` times more.
    pub fn prepare(&mut self, prompt: Option<&str>, runs: usize) -> Result<(), Failure> {
        let mut embeddings = no_prompt(self.extractor)?;
        if let Some(prompt) = prompt {
            let text = self.extractor.text_encoder()?;
            for _ in 0..=runs {
                let encode = || Ok(text.encode(prompt)?);
                embeddings = self.text.time(&self.profile, encode)?;
            }
        }
        for _ in 0..=runs {
            let embeddings = embeddings.clone();
            let condition = || Ok(self.extractor.condition(embeddings)?);
            self.condition = Some(self.conditioning.time(&self.profile, condition)?);
        }
        Ok(())
    }

    /// The shapes of what encoder and U-Net gave last, for a picture and the first tap.
    pub fn shapes(&self) -> [(&'static str, [usize; 3]); 2] {
        [("encoder", self.shapes[0]), ("unet", self.shapes[1])]
    }

    /// One pass over the pictures; gives the seconds of each stage.
    pub fn run(&mut self) -> Result<[(&'static str, f64); 3], Failure> {
        let condition = self.condition.as_ref().expect("`prepare` comes first");
        let codec = self.extractor.codec();
        let encode = || {
            let latents = self.pictures.iter().map(|(pixels, _)| codec.encode(pixels));
            Ok(latents.collect::<Result<Vec<_>, _>>()?)
        };
        let latents = self.encoder.time(&self.profile, encode)?;
        let latents: Vec<&FeatureMap> = latents.iter().collect();
        let extract = || Ok(self.extractor.extract_latents(&latents, condition)?);
        let maps = self.unet.time(&self.profile, extract)?;

        self.shapes = [shape(latents[0]), shape(&maps[0][0].1)];
        let seen = |index: usize| (&maps[index][0].1, &self.pictures[index].1);
        let ((source, from), (target, to)) = (seen(0), seen(self.pictures.len() - 1));
        self.matching.time(&self.profile, || {
            let (source, target) = (Field::new(source, from)?, Field::new(target, to)?);
            let points = grid(from.picture, GRID);
            Ok(match_points(
                &source,
                &points,
                &target,
                &Options::default(),
            )?)
        })?;
        let stages = [
            ("encoder", &self.encoder),
            ("unet", &self.unet),
            ("match", &self.matching),
        ];
        Ok(stages.map(|(name, stage)| (name, stage.last().expect("it was just run"))))
    }
}

fn shape(map: &FeatureMap) -> [usize; 3] {
    let Extent { width, height } = map.extent();
    [map.channels(), height, width]
}

fn on_canvas(
    picture: &Picture,
    size: Size,
    extractor: &Extractor,
) -> Result<(Pixels, Frame), Failure> {
    let (rule, resample) = (Fit::Squash, Resample::Filter(Filter::Bicubic));
    Ok(fit(picture, size, rule, resample, extractor.multiple())?)
}

/// Embeddings of the right size that no text encoder made: zeros cost what others cost.
fn no_prompt(extractor: &Extractor) -> Result<Prompt, Failure> {
    let width = extractor.model().unet.config.cross_attention_dim;
    let zeros = |tokens: usize| Prompt::from_embeddings(tokens, width, vec![0.0; tokens * width]);
    Ok(match &extractor.model().text {
        Ok(TextModel::Clip { config, .. }) => zeros(config.max_position_embeddings),
        Ok(TextModel::ClassTable(_)) => extractor.text_encoder()?.encode("")?,
        Err(_) => zeros(TOKENS),
    })
}
