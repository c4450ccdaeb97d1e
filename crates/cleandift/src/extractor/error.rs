//! What can go wrong in an extraction.

use std::sync::Arc;

use super::ModelError;
use crate::engine::cpu::EngineError;
use crate::features::UnknownTap;
use crate::graph::Shape;
use crate::networks::tokenizer::TokenizerError;

/// An extraction that failed.
#[derive(Debug, thiserror::Error)]
pub enum ExtractError {
    /// A tap that the network does not have.
    #[error(transparent)]
    Tap(#[from] UnknownTap),
    /// The engine failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// Inputs do not fit.
    #[error(transparent)]
    Run(#[from] crate::graph::RunError),
    /// The prompt could not be tokenized.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// A prompt, but no text encoder.
    #[error("{0}; or give prompt embeddings (--prompt-embeds)")]
    NoText(Arc<ModelError>),
    /// A class table of another form.
    #[error("the class table needs one tensor `table` [classes + 1, tokens, d]")]
    ClassTable,
    /// A class that is not in the table.
    #[error(
        "this model knows classes instead of prompts: `{prompt}` is no name of a class and no number \
         below {classes}{nearest} (leave the prompt empty for none)"
    )]
    NoClass {
        /// What was asked for.
        prompt: String,
        /// How many there are.
        classes: usize,
        /// Which name is nearest, in words, if there are names.
        nearest: String,
    },
    /// A tokenizer of another model.
    #[error(
        "the tokenizer gives token {id}, the text encoder knows {vocabulary}: they do not belong \
         together"
    )]
    UnknownToken {
        /// The token.
        id: usize,
        /// How many there are.
        vocabulary: usize,
    },
    /// Projection without heads.
    #[error(
        "features at a timestep need projection heads, which only a CleanDIFT `_full` file has"
    )]
    NoHeads,
    /// A tap without a head.
    #[error("tap `{0}` has no projection head in this file; heads are at {1}")]
    NoHead(String, String),
    /// The teacher is wanted and there is none.
    #[error("this model has no teacher: give its base with --base, or a `_full` file")]
    NoTeacher,
    /// A timestep outside the schedule.
    #[error("timestep {0} is outside 0 … 999")]
    Timestep(f64),
    /// Prompt embeddings of another width.
    #[error("the prompt embeddings have {found} channels, the U-Net takes {expected}")]
    PromptWidth {
        /// Channels found.
        found: usize,
        /// Channels needed.
        expected: usize,
    },
    /// Given noise of another shape.
    #[error(
        "the noise is [{}, {}, {}] (c, h, w), the latent is [{}, {}, {}]",
        found.channels, found.height, found.width,
        expected.channels, expected.height, expected.width
    )]
    NoiseShape {
        /// Shape found.
        found: Shape,
        /// Shape needed.
        expected: Shape,
    },
}
