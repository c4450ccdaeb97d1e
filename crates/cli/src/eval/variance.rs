//! `cleandift variance`: what noisy features are made of, over timesteps.

use std::path::PathBuf;

use clap::Args;
use cleandift::checkpoint::write_file;
use cleandift::eval::report::{Lines, Series};
use cleandift::eval::statistics::Interval;
use cleandift::eval::variance::{Shares, between_draws, explain};
use cleandift::extractor::{Condition, Extractor, Mode, Noise, Request, drawn_noise};
use cleandift::features::FeatureMap;
use cleandift::image::{Filter, Fit, Picture, Resample, Size, fit};
use serde::Serialize;

use super::write;
use crate::arguments::{ModelArguments, parse_noise_timestep, parse_positive};
use crate::failure::{Ending, Failure};

/// Show how much of noisy features comes from the picture, from the noise, and from neither alone
#[derive(Args, Debug)]
pub struct VarianceArguments {
    /// Pictures
    #[arg(required = true)]
    pub(super) pictures: Vec<PathBuf>,

    /// The folder for the plot and the numbers
    #[arg(short, long, value_name = "DIR")]
    pub(super) output: PathBuf,

    /// The tap; default: as for `extract`
    #[arg(long, value_name = "TAP", alias = "taps")]
    pub(super) tap: Option<String>,

    /// Timesteps
    #[arg(
        long,
        value_name = "LIST",
        value_delimiter = ',',
        default_value = "0,100,200,261,400,600,800,999",
        value_parser = parse_noise_timestep
    )]
    pub(super) timesteps: Vec<usize>,

    /// Draws of noise for each picture and timestep
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = parse_positive)]
    pub(super) draws: usize,

    /// The canvas; default: what the model was trained at
    #[arg(long, value_name = "SIZE")]
    pub(super) size: Option<Size>,

    #[command(flatten)]
    pub(super) model: ModelArguments,
}

/// The seed of noise.
const SEED: u64 = 0;

/// The timesteps at which the clean latent and pure noise are seen.
const CLEAN: f64 = 0.0;
const PURE_NOISE: f64 = 999.0;

/// What was found at a timestep, means over pictures and draws.
#[derive(Serialize)]
struct At {
    timestep: usize,
    shares: Shares,
    /// The share of variance between draws; none of one draw.
    between_draws: Option<f64>,
}

/// Runs the command.
pub fn run(arguments: &VarianceArguments) -> Result<Ending, Failure> {
    std::fs::create_dir_all(&arguments.output)?;
    let (clean, latents) = {
        let extractor = arguments.extractor(Mode::NaiveClean { timestep: CLEAN })?;
        let latents = arguments.latents(&extractor)?;
        (arguments.maps(&extractor, &latents)?, latents)
    };
    let noise = {
        let extractor = arguments.extractor(Mode::NaiveClean {
            timestep: PURE_NOISE,
        })?;
        let mut of_pictures = Vec::new();
        for latents in &latents {
            let drawn =
                (0..arguments.draws).map(|draw| drawn_noise(SEED + draw as u64, 0, latents));
            of_pictures.push(arguments.maps(&extractor, &drawn.collect::<Vec<_>>())?);
        }
        of_pictures
    };
    let mut all = Vec::new();
    for &timestep in &arguments.timesteps {
        let mut of_pictures: Vec<Vec<FeatureMap>> = vec![Vec::new(); latents.len()];
        for draw in 0..arguments.draws {
            let noise = Noise::Drawn {
                seed: SEED + draw as u64,
                count: 1,
            };
            let extractor = arguments.extractor(Mode::Noisy { timestep, noise })?;
            let maps = arguments.maps(&extractor, &latents)?;
            of_pictures
                .iter_mut()
                .zip(maps)
                .for_each(|(all, map)| all.push(map));
        }
        all.push(summary(timestep, &of_pictures, &clean, &noise));
        eprintln!("timestep {timestep} done");
    }
    let text = serde_json::to_string_pretty(&all)?;
    write_file(&arguments.output.join("variance.json"), text.as_bytes())?;
    write::plot(&plot(&all).draw(), &arguments.output, "variance")?;
    Ok(Ending::Complete)
}

impl VarianceArguments {
    fn extractor(&self, mode: Mode) -> Result<Extractor, Failure> {
        let request = Request {
            taps: self.tap.clone(),
            mode,
            ..Request::default()
        };
        Ok(self.model.extractor(request)?.1)
    }

    fn latents(&self, extractor: &Extractor) -> Result<Vec<FeatureMap>, Failure> {
        let size = self.size.unwrap_or_else(|| extractor.default_size().into());
        let bicubic = Resample::Filter(Filter::Bicubic);
        let mut latents = Vec::new();
        for path in &self.pictures {
            let picture = Picture::open(path)?;
            let (pixels, _) = fit(&picture, size, Fit::Squash, bicubic, extractor.multiple())?;
            latents.push(extractor.codec().encode(&pixels)?);
        }
        Ok(latents)
    }

    fn maps(
        &self,
        extractor: &Extractor,
        latents: &[FeatureMap],
    ) -> Result<Vec<FeatureMap>, Failure> {
        let prompt = extractor.text_encoder()?.encode("")?;
        let condition: Condition = extractor.condition(prompt)?;
        let mut maps = Vec::new();
        for latents in latents {
            let mut found = extractor.extract_means(latents, &[], 1, &condition)?;
            maps.push(found.swap_remove(0).maps.swap_remove(0).1);
        }
        Ok(maps)
    }
}

fn summary(
    timestep: usize,
    noisy: &[Vec<FeatureMap>],
    clean: &[FeatureMap],
    noise: &[Vec<FeatureMap>],
) -> At {
    let mut shares = Vec::new();
    for ((noisy, clean), noise) in noisy.iter().zip(clean).zip(noise) {
        shares.extend(
            noisy
                .iter()
                .zip(noise)
                .map(|(map, noise)| explain(map, clean, noise)),
        );
    }
    let mean =
        |of: &dyn Fn(&Shares) -> f64| shares.iter().map(of).sum::<f64>() / shares.len() as f64;
    let several = noisy.iter().all(|draws| draws.len() > 1);
    let between = noisy.iter().map(|draws| between_draws(draws));
    At {
        timestep,
        shares: Shares {
            clean: mean(&|shares| shares.clean),
            noise: mean(&|shares| shares.noise),
            residual: mean(&|shares| shares.residual),
        },
        between_draws: several.then(|| between.sum::<f64>() / noisy.len() as f64),
    }
}

fn plot(all: &[At]) -> Lines<'_> {
    let exactly = |value: f64| Interval {
        value,
        low: value,
        high: value,
    };
    let line = |name: &str, of: &dyn Fn(&At) -> Option<f64>| {
        let points = all
            .iter()
            .filter_map(|at| Some((at.timestep as f64, exactly(of(at)?))));
        Series {
            name: name.to_owned(),
            points: points.collect(),
            level: false,
        }
    };
    Lines {
        title: "what noisy features are made of: shares of their variance",
        axis: "timestep",
        names: Vec::new(),
        series: vec![
            line("clean features", &|at| Some(at.shares.clean)),
            line("noise alone", &|at| Some(at.shares.noise)),
            line("neither", &|at| Some(at.shares.residual)),
            line("between draws", &|at| at.between_draws),
        ],
        words: &|value| format!("{:.0} %", 100.0 * value),
    }
}
