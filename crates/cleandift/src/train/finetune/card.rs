//! The model card: what a model was made from, how, and what it is for.

use super::config::{DistanceName, FinetuneConfig, NormName, StudentTraining};
use super::prompts::Text;
use crate::train::Losses;

/// A model card in Markdown, as model hubs show it.
pub fn model_card(config: &FinetuneConfig, steps: u64, validation: Option<&Losses>) -> String {
    let name = |path: &std::path::Path| {
        let name = path.file_name().unwrap_or(path.as_os_str());
        name.to_string_lossy().into_owned()
    };
    let base = name(&config.model.base);
    let trained = match config.student.train {
        StudentTraining::Full => "all parameters of the U-Net up to the last tap".to_owned(),
        StudentTraining::Lora => format!(
            "factors of rank {} on the U-Net's layers {}",
            config.lora.rank,
            config.lora.layers.join(", ")
        ),
        StudentTraining::None => "nothing of the U-Net".to_owned(),
    };
    let distance = match config.objective.distance {
        DistanceName::Cosine => "cosine similarity",
        DistanceName::L2 => "mean square",
        DistanceName::L1 => "mean magnitude",
    };
    let heads = match config.heads.norm {
        NormName::Adarms => "projection heads (AdaRMS)",
        NormName::Film => "projection heads (FiLM as published)",
        NormName::FilmIntended => "projection heads (FiLM)",
        NormName::None => "no projection heads",
    };
    let text = match config.objective.text {
        Text::Captions => "the pictures' captions",
        Text::None => "no text",
        Text::Distilled => "captions for the teacher, none for the student",
    };
    let sources = config.data.train.iter().map(|path| name(path));
    let sources = sources.collect::<Vec<_>>().join(", ");
    let size = config.data.size;
    let seen = steps * (config.data.batch * config.optimiser.accumulate) as u64;
    let optimiser = optimiser(config);
    let measured = validation.map_or(String::new(), |losses| {
        let parts = losses.parts.iter();
        let rows: String = parts
            .map(|(tap, loss)| format!("| {tap} | {loss:.4} |\n"))
            .collect();
        format!(
            "\n## Validation\n\nLoss on pictures that it was not trained on, with fixed noise and \
             timesteps: {:.4} in all.\n\n| tap | loss |\n|---|---|\n{rows}",
            losses.total
        )
    });
    format!(
        "---\nbase_model: {base}\ntags:\n- cleandift\n- feature-extraction\n- stable-diffusion\n\
         pipeline_tag: image-feature-extraction\n---\n\n# CleanDIFT of {base}\n\nA diffusion U-Net \
         that gives its features for clean images: no noise, no timestep to choose (Stracke and \
         others, arXiv 2412.03439).\n\n## How it was made\n\n| | |\n|---|---|\n| base | {base} |\n\
         | trained | {trained} |\n| objective | {distance} at the taps {}, {heads}, {} timesteps a \
         picture |\n| text | {text} |\n| pictures | {sources}: {seen} seen in {steps} steps, at \
         {size} x {size} |\n| optimiser | {optimiser} |\n| learning rate | {:e}, {} steps of warm-up |\n| seed | {} |\n{measured}\n\
         ## Limits and terms\n\nThe base's licence and the terms of the pictures hold for it, too. \
         It knows what the base knows, and has its biases; features were compared at {size} x \
         {size}, others are further from what it learned. It makes features, not pictures.\n",
        config.objective.taps,
        config.objective.timesteps,
        config.optimiser.rate,
        config.schedule.warmup,
        config.seed,
    )
}

/// What makes a step, in words.
fn optimiser(config: &FinetuneConfig) -> String {
    let optimiser = &config.optimiser;
    let mut words = vec![format!("Adam, {} pictures a pass", config.data.batch)];
    if optimiser.accumulate > 1 {
        words.push(format!("{} passes a step", optimiser.accumulate));
    }
    if let Some(clip) = optimiser.clip {
        words.push(format!("gradients clipped to {clip}"));
    }
    if optimiser.weight_decay > 0.0 {
        words.push(format!("weight decay {}", optimiser.weight_decay));
    }
    if let Some(average) = optimiser.average {
        words.push(format!("the parameters' average ({average})"));
    }
    words.join(", ")
}
