//! The extractor: pictures in, feature maps out. It loads a model, runs once what depends on the
//! prompt and the timestep alone, and extracts one image or many.

mod codec;
mod ensemble;
mod error;
mod estimate;
mod inspect;
mod model;
mod noise;
mod random;
mod reference;
mod request;
mod self_test;
mod text;

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};

pub use codec::{Codec, LatentDistribution, Spread};
pub use ensemble::drawn_noise;
pub use error::ExtractError;
pub use estimate::{Estimate, Prompts};
pub use inspect::{PartReport, inspect};
pub use model::{ClassTable, CodecModel, HeadsModel, Model, ModelError, TextModel, UnetModel};
pub use request::{DEFAULT_TIMESTEP, Latents, Mode, Noise, Request, Role};
pub use self_test::{SelfTest, TapCheck};
pub use text::{Prompt, TextEncoder};

use crate::engine::cpu::{PreparedWeights, Processor, Program};
use crate::features::{FeatureMap, Tap, TapGroup};
use crate::graph::{Graph, Hoisted, Named, Shape, Tensor, hoist, prune};
use crate::image::{Extent, Pixels};
use crate::networks::schedule::TIMESTEPS;
use crate::networks::{heads, unet};

/// Everything that depends on (timestep, prompt) alone, computed once.
#[derive(Clone, Debug)]
pub struct Condition {
    prompt: Prompt,
    hoisted: Vec<Named<f32>>,
}

impl Condition {
    /// The prompt.
    pub fn prompt(&self) -> &Prompt {
        &self.prompt
    }
}

/// What was extracted from one picture.
#[derive(Clone, Debug, PartialEq)]
pub struct Extraction {
    /// The taps' maps, by tap name, in the order asked for.
    pub maps: Vec<(String, FeatureMap)>,
    /// The clean, scaled latent.
    pub latents: FeatureMap,
}

/// What a program is compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct ProgramKey {
    latent: Extent,
    images: usize,
    tokens: usize,
}

/// The programs of one canvas size and batch.
#[derive(Debug)]
struct Programs {
    unet: Program,
    heads: Option<Program>,
}

/// A model made ready to extract what a [`Request`] asks for.
pub struct Extractor {
    model: Model,
    request: Request,
    processor: Processor,
    role: Role,
    groups: Vec<TapGroup>,
    /// Those of all groups, each once.
    taps: Vec<Tap>,
    timestep: f64,
    codec: Codec,
    unet_weights: PreparedWeights,
    heads_weights: Option<PreparedWeights>,
    programs: Mutex<HashMap<ProgramKey, Arc<Programs>>>,
}

impl Extractor {
    /// Checks that the model can do what is asked for. No weight is read yet.
    pub fn new(model: Model, request: Request, processor: Processor) -> Result<Self, ExtractError> {
        let baseline = matches!(request.mode, Mode::NaiveClean { .. } | Mode::Noisy { .. });
        let role = match request.role {
            Some(Role::Teacher) if model.teacher.is_none() => return Err(ExtractError::NoTeacher),
            Some(role) => role,
            None if baseline && model.teacher.is_some() => Role::Teacher,
            None => Role::Student,
        };
        let timestep = match request.mode {
            Mode::Clean {
                timestep: Some(timestep),
            }
            | Mode::NaiveClean { timestep } => timestep,
            Mode::Noisy { timestep, .. } => timestep as f64,
            Mode::Clean { timestep: None } | Mode::Projected { .. } => {
                model.timestep.unwrap_or(DEFAULT_TIMESTEP)
            }
        };
        let projected = match request.mode {
            Mode::Projected { timestep } => Some(timestep),
            _ => None,
        };
        for timestep in [Some(timestep), projected].into_iter().flatten() {
            if !(0.0..TIMESTEPS as f64).contains(&timestep) {
                return Err(ExtractError::Timestep(timestep));
            }
        }
        let network = match (role, &model.teacher) {
            (Role::Teacher, Some(teacher)) => teacher,
            _ => &model.unet,
        };
        let list = request.taps.as_deref().unwrap_or(model.default_tap());
        let groups = TapGroup::find_all(list, &model::unet_graph(&network.config))?;
        let mut taps: Vec<Tap> = Vec::new();
        for tap in groups.iter().flat_map(TapGroup::taps) {
            if !taps.contains(tap) {
                taps.push(tap.clone());
            }
        }
        let unet_weights = PreparedWeights::new(Arc::new(network.weights.clone()), &processor);
        let heads_weights = match (&request.mode, &model.heads) {
            (Mode::Projected { .. }, None) => return Err(ExtractError::NoHeads),
            (Mode::Projected { .. }, Some(heads)) => {
                let known: Vec<&str> = heads.config.taps().collect();
                if let Some(tap) = taps.iter().find(|tap| !known.contains(&tap.name())) {
                    return Err(ExtractError::NoHead(
                        tap.name().to_owned(),
                        known.join(", "),
                    ));
                }
                Some(PreparedWeights::new(
                    Arc::new(heads.weights.clone()),
                    &processor,
                ))
            }
            _ => None,
        };
        let codec = Codec::new(&model.codec, request.latents, &processor);
        Ok(Self {
            model,
            request,
            processor,
            role,
            groups,
            taps,
            timestep,
            codec,
            unet_weights,
            heads_weights,
            programs: Mutex::default(),
        })
    }

    /// Made for no more than `pictures` pictures. If that is one or two passes, weights are packed
    /// anew for each, into the same memory: memory for all of them takes as long to get, and is
    /// gigabytes. The results are the same.
    #[must_use]
    pub fn expecting(self, pictures: usize) -> Self {
        const FEW: usize = 2;
        if pictures.saturating_mul(self.draws()) > FEW {
            return self;
        }
        Self {
            codec: self.codec.for_few_images(),
            unet_weights: self.unet_weights.each_for_one_step(),
            heads_weights: (self.heads_weights).map(PreparedWeights::each_for_one_step),
            ..self
        }
    }

    /// The model.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// What was asked for.
    pub fn request(&self) -> &Request {
        &self.request
    }

    /// What becomes a map each, in the order asked for: taps, and several joined.
    pub fn groups(&self) -> &[TapGroup] {
        &self.groups
    }

    /// Which U-Net is run.
    pub fn role(&self) -> Role {
        self.role
    }

    /// The timestep that the U-Net runs at.
    pub fn timestep(&self) -> f64 {
        self.timestep
    }

    /// The codec in use.
    pub fn codec(&self) -> &Codec {
        &self.codec
    }

    /// The processor in use.
    pub fn processor(&self) -> &Processor {
        &self.processor
    }

    /// Sides of a canvas must be multiples of this.
    pub fn multiple(&self) -> NonZeroUsize {
        self.codec.multiple()
    }

    /// The square canvas that the model was trained at.
    pub fn default_size(&self) -> Extent {
        let side = self.multiple().get() * self.network().config.sample_size;
        Extent::new(side, side)
    }

    /// The canvas that points are matched on: of small models a quarter longer along each side than what
    /// they were trained at, for its finer cells; else the [same](Self::default_size).
    pub fn matching_size(&self) -> Extent {
        let cells = self.network().config.sample_size;
        match self.model.is_small() {
            true => {
                let side = self.multiple().get() * (cells + cells / 4);
                Extent::new(side, side)
            }
            false => self.default_size(),
        }
    }

    /// A text encoder for many prompts; drop it when all are encoded.
    pub fn text_encoder(&self) -> Result<TextEncoder, ExtractError> {
        TextEncoder::new(&self.model, &self.processor, true)
    }

    /// The embeddings of one prompt, as a [`TextEncoder`] gives them, but no weight is kept: each is
    /// dropped as soon as it has been used.
    pub fn encode_prompt(&self, prompt: &str) -> Result<Prompt, ExtractError> {
        TextEncoder::new(&self.model, &self.processor, false)?.encode(prompt)
    }

    /// Runs what depends on the timestep and this prompt alone.
    pub fn condition(&self, prompt: Prompt) -> Result<Condition, ExtractError> {
        let shape = prompt.embeddings.shape;
        let expected = self.network().config.cross_attention_dim;
        if shape.channels != expected {
            return Err(ExtractError::PromptWidth {
                found: shape.channels,
                expected,
            });
        }
        // What is hoisted does not depend on the latent's size.
        let Hoisted { condition, .. } = self.hoisted(Extent::new(8, 8), shape.cells());
        let timestep = Tensor::new(1, Shape::vector(1), vec![self.timestep as f32]);
        let program = Program::compile(&self.processor, condition, 1);
        let inputs = [
            (unet::TIMESTEP, &timestep),
            (unet::TEXT, &prompt.embeddings),
        ];
        let hoisted = program.run(&self.unet_weights, &inputs)?;
        Ok(Condition { prompt, hoisted })
    }

    /// Extracts from clean, scaled latents of one size, as [`Codec::encode`] gives them: the taps'
    /// maps of each, by tap name, in the order asked for. The result for a latent is the same bit
    /// for bit in any batch.
    pub fn extract_latents(
        &self,
        latents: &[&FeatureMap],
        condition: &Condition,
    ) -> Result<Vec<Vec<(String, FeatureMap)>>, ExtractError> {
        let tensor = |latent: &&FeatureMap| {
            let Extent { width, height } = latent.extent();
            let shape = Shape::map(height, width, latent.channels());
            Tensor::new(1, shape, latent.values().to_vec())
        };
        let latents: Vec<Tensor<f32>> = latents.iter().map(tensor).collect();
        self.named_maps(&latents, condition)
    }

    /// Extracts from images of one size. The result for an image is the same bit for bit in any
    /// batch.
    pub fn extract(
        &self,
        images: &[&Pixels],
        condition: &Condition,
    ) -> Result<Vec<Extraction>, ExtractError> {
        let latents = images
            .iter()
            .map(|image| self.codec.encode_tensor(image))
            .collect::<Result<Vec<_>, _>>()?;
        let maps = self.named_maps(&latents, condition)?;
        let extractions = latents
            .into_iter()
            .zip(maps)
            .map(|(latents, maps)| Extraction {
                maps,
                latents: feature_map(&latents, 0),
            });
        Ok(extractions.collect())
    }

    /// The taps' maps of each latent, in the mode asked for.
    fn named_maps(
        &self,
        latents: &[Tensor<f32>],
        condition: &Condition,
    ) -> Result<Vec<Vec<(String, FeatureMap)>>, ExtractError> {
        let maps = match &self.request.mode {
            Mode::Noisy { timestep, noise } => {
                let each = latents.iter();
                each.map(|latent| self.noisy(latent, *timestep, noise, latents.len(), condition))
                    .collect::<Result<Vec<_>, _>>()?
            }
            _ => self.run(&latents.iter().collect::<Vec<_>>(), condition)?,
        };
        Ok(maps.into_iter().map(|maps| self.grouped(maps)).collect())
    }

    /// The maps that were asked for, by name, from those of the taps.
    fn grouped(&self, maps: Vec<FeatureMap>) -> Vec<(String, FeatureMap)> {
        let groups = self.groups.iter();
        // Most requests join nothing: their maps are given on, not copied.
        if self.groups.iter().all(|group| group.taps().len() == 1) {
            return groups
                .map(|group| group.name().to_owned())
                .zip(maps)
                .collect();
        }
        let map_of = |tap: &Tap| {
            let place = self.taps.iter().position(|known| known == tap);
            &maps[place.expect("all groups' taps are run")]
        };
        let joined = groups.map(|group| {
            let parts: Vec<&FeatureMap> = group.taps().iter().map(map_of).collect();
            (group.name().to_owned(), group.map(&parts))
        });
        joined.collect()
    }

    /// Extracts from a clean, scaled latent that [`Codec::encode`] made before: what several
    /// requests share. For noisy features one result for each of `counts`, the mean over the first
    /// so many draws (all of the request's draws, if it is empty); otherwise one result.
    ///
    /// At most `batch` draws are run at once: small maps make better use of a processor together,
    /// and take as many times the memory. The bits are those of [`Extractor::extract`], in any
    /// batch.
    pub fn extract_means(
        &self,
        latents: &FeatureMap,
        counts: &[usize],
        batch: usize,
        condition: &Condition,
    ) -> Result<Vec<Extraction>, ExtractError> {
        let Extent { width, height } = latents.extent();
        let shape = Shape::map(height, width, latents.channels());
        let tensor = Tensor::new(1, shape, latents.values().to_vec());
        let results = match &self.request.mode {
            Mode::Noisy { timestep, noise } => {
                self.noisy_means(&tensor, *timestep, noise, counts, batch, condition)?
            }
            _ => self.run(&[&tensor], condition)?,
        };
        Ok((results.into_iter())
            .map(|maps| Extraction {
                maps: self.grouped(maps),
                latents: latents.clone(),
            })
            .collect())
    }

    /// One pass over some latents of one size.
    fn run(
        &self,
        latents: &[&Tensor<f32>],
        condition: &Condition,
    ) -> Result<Vec<Vec<FeatureMap>>, ExtractError> {
        let Some(first) = latents.first() else {
            return Ok(Vec::new());
        };
        let extent = Extent::new(first.shape.width, first.shape.height);
        let tokens = condition.prompt.embeddings.shape.cells();
        let programs = self.programs(extent, latents.len(), tokens)?;
        let data = latents
            .iter()
            .flat_map(|latent| &latent.data)
            .copied()
            .collect();
        let batch = Tensor::new(latents.len(), first.shape, data);
        let mut inputs = vec![(unet::LATENT, &batch)];
        inputs.extend(
            condition
                .hoisted
                .iter()
                .map(|(name, value)| (name.as_str(), value)),
        );
        let mut outputs = programs.unet.run(&self.unet_weights, &inputs)?;
        if let (Some(program), Some(weights), Mode::Projected { timestep }) =
            (&programs.heads, &self.heads_weights, &self.request.mode)
        {
            let timestep = Tensor::new(1, Shape::vector(1), vec![*timestep as f32]);
            let mut inputs = vec![(heads::TIMESTEP, &timestep)];
            let maps = self.taps.iter().zip(&outputs);
            inputs.extend(maps.map(|(tap, (_, map))| (tap.name(), map)));
            outputs = program.run(weights, &inputs)?;
        }
        let image = |index| {
            outputs
                .iter()
                .map(|(_, map)| feature_map(map, index))
                .collect()
        };
        Ok((0..latents.len()).map(image).collect())
    }

    fn network(&self) -> &UnetModel {
        match (self.role, &self.model.teacher) {
            (Role::Teacher, Some(teacher)) => teacher,
            _ => &self.model.unet,
        }
    }

    /// The U-Net up to the wanted taps, split at what is shared.
    fn hoisted(&self, latent: Extent, tokens: usize) -> Hoisted {
        let graph = unet::graph(&self.network().config, latent.height, latent.width, tokens);
        let modules: Vec<&str> = self.taps.iter().map(Tap::module).collect();
        hoist(&prune(&graph, &modules).expect("taps are checked when they are found"))
    }

    fn heads_graph(&self, unet: &Graph) -> Result<Option<Graph>, ExtractError> {
        let (Mode::Projected { .. }, Some(heads)) = (&self.request.mode, &self.model.heads) else {
            return Ok(None);
        };
        let shapes = self.taps.iter().map(|tap| {
            let value = unet.output(tap.module()).expect("taps are outputs");
            (tap.name(), unet.node(value).shape)
        });
        let graph = heads.config.graph(&shapes.collect::<Vec<_>>());
        let misfit = || {
            let names = self
                .taps
                .iter()
                .map(Tap::name)
                .collect::<Vec<_>>()
                .join(", ");
            let known = heads.config.taps().collect::<Vec<_>>().join(", ");
            ExtractError::NoHead(names, known)
        };
        graph.ok_or_else(misfit).map(Some)
    }

    fn programs(
        &self,
        latent: Extent,
        images: usize,
        tokens: usize,
    ) -> Result<Arc<Programs>, ExtractError> {
        let mut programs = self.programs.lock().unwrap_or_else(PoisonError::into_inner);
        let key = ProgramKey {
            latent,
            images,
            tokens,
        };
        if let Some(known) = programs.get(&key) {
            return Ok(Arc::clone(known));
        }
        let main = self.hoisted(latent, tokens).main;
        let compile = |graph| Program::compile(&self.processor, graph, images);
        let heads = self.heads_graph(&main)?.map(compile);
        let compiled = Arc::new(Programs {
            unet: compile(main),
            heads,
        });
        make_room(&mut programs, &key);
        programs.insert(key, Arc::clone(&compiled));
        Ok(compiled)
    }
}

/// Pictures of native size come in any number of sizes: programs of the last few are kept.
const PROGRAMS_KEPT: usize = 16;

fn make_room<K: Eq + std::hash::Hash, V>(programs: &mut HashMap<K, V>, wanted: &K) {
    if programs.len() >= PROGRAMS_KEPT && !programs.contains_key(wanted) {
        programs.clear();
    }
}

/// One image of a batch as a feature map.
fn feature_map(tensor: &Tensor<f32>, image: usize) -> FeatureMap {
    let Shape {
        height,
        width,
        channels,
    } = tensor.shape;
    FeatureMap::new(
        Extent::new(width, height),
        channels,
        tensor.image(image).to_vec(),
    )
}
