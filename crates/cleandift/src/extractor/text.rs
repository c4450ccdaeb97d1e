//! From a prompt to embeddings.

use super::ExtractError;
use super::model::{ClassTable, Model, TextModel};
use crate::engine::cpu::{PreparedWeights, Processor, Program};
use crate::graph::{Parameters, Shape, Tensor};
use crate::networks::clip;
use crate::networks::diffusion::CLASS_TABLE;

use std::sync::Arc;

/// Embeddings of a prompt, shared by all images that it goes with.
#[derive(Clone, Debug, PartialEq)]
pub struct Prompt {
    /// `[tokens, d]`.
    pub embeddings: Tensor<f32>,
    /// How many of the prompt's tokens did not fit and were cut off.
    pub cut: usize,
}

impl Prompt {
    /// Embeddings made elsewhere, `[tokens, d]`.
    pub fn from_embeddings(tokens: usize, width: usize, values: Vec<f32>) -> Self {
        Self {
            embeddings: Tensor::new(1, Shape::tokens(tokens, width), values),
            cut: 0,
        }
    }
}

/// A text encoder at work. It keeps its prepared weights (1.3 GiB for SD 2.1) for the next prompt:
/// drop it when all are encoded.
pub struct TextEncoder {
    kind: Encoder,
}

enum Encoder {
    Clip {
        program: Box<Program>,
        vocabulary: usize,
        weights: PreparedWeights,
        tokenizer: Arc<crate::networks::tokenizer::Tokenizer>,
    },
    ClassTable {
        classes: Vec<String>,
        rows: usize,
        tokens: usize,
        width: usize,
        values: Vec<f32>,
    },
}

impl TextEncoder {
    /// Weights are kept from one prompt to the next if `many` of them will be encoded.
    ///
    /// # Errors
    /// If the model has no text encoder, or its class table cannot be read.
    pub fn new(model: &Model, processor: &Processor, many: bool) -> Result<Self, ExtractError> {
        let prepared = match many {
            true => PreparedWeights::new,
            false => PreparedWeights::for_one_run,
        };
        let kind = match model.text.clone().map_err(ExtractError::NoText)? {
            TextModel::Clip {
                config,
                weights,
                tokenizer,
            } => Encoder::Clip {
                program: Box::new(Program::compile(processor, clip::graph(&config), 1)),
                vocabulary: config.vocab_size,
                weights: prepared(Arc::new(weights), processor),
                tokenizer,
            },
            TextModel::ClassTable(ClassTable { weights, classes }) => {
                let (rows, tokens, width) = match weights.shape(CLASS_TABLE) {
                    Some(&[rows, tokens, width]) if rows > 0 => (rows, tokens, width),
                    _ => return Err(ExtractError::ClassTable),
                };
                let values = weights
                    .read(CLASS_TABLE)
                    .map_err(crate::graph::RunError::from)?;
                Encoder::ClassTable {
                    classes,
                    rows,
                    tokens,
                    width,
                    values,
                }
            }
        };
        Ok(Self { kind })
    }

    /// Bytes that its weights take when they are kept.
    pub fn weight_bytes(&self) -> usize {
        match &self.kind {
            Encoder::Clip { program, .. } => program.weight_bytes(),
            Encoder::ClassTable { values, .. } => size_of_val(values.as_slice()),
        }
    }

    /// Tokens of a prompt.
    pub fn tokens(&self) -> usize {
        match &self.kind {
            Encoder::Clip { program, .. } => {
                let input = program.graph().inputs().next();
                let input = input.expect("a text encoder takes ids");
                program.graph().node(input.value).shape.cells()
            }
            Encoder::ClassTable { tokens, .. } => *tokens,
        }
    }

    /// The embeddings of a prompt. With a class table the prompt is a class's name or number, or
    /// empty for none.
    pub fn encode(&self, prompt: &str) -> Result<Prompt, ExtractError> {
        match &self.kind {
            Encoder::Clip {
                program,
                vocabulary,
                weights,
                tokenizer,
            } => {
                let shape = program
                    .graph()
                    .inputs()
                    .next()
                    .map(|input| program.graph().node(input.value).shape);
                let shape = shape.expect("a text encoder takes ids");
                let tokens = tokenizer.encode(prompt, shape.cells())?;
                if let Some(&id) = tokens.ids.iter().find(|&&id| id as usize >= *vocabulary) {
                    return Err(ExtractError::UnknownToken {
                        id: id as usize,
                        vocabulary: *vocabulary,
                    });
                }
                let ids = tokens.ids.iter().map(|&id| id as f32).collect();
                let mut outputs =
                    program.run(weights, &[(clip::IDS, &Tensor::new(1, shape, ids))])?;
                let (_, embeddings) = outputs.pop().expect("a text encoder has one output");
                Ok(Prompt {
                    embeddings,
                    cut: tokens.cut,
                })
            }
            Encoder::ClassTable {
                classes,
                rows,
                tokens,
                width,
                values,
            } => {
                let row = class_row(prompt, *rows, classes)?;
                let size = tokens * width;
                let values = values[row * size..(row + 1) * size].to_vec();
                Ok(Prompt::from_embeddings(*tokens, *width, values))
            }
        }
    }
}

/// The row of a class by its name (letters' case aside) or number; the last row for none.
fn class_row(prompt: &str, rows: usize, names: &[String]) -> Result<usize, ExtractError> {
    let classes = rows - 1;
    if prompt.is_empty() {
        return Ok(classes);
    }
    let named = names
        .iter()
        .position(|name| name.eq_ignore_ascii_case(prompt));
    let row = named.or_else(|| prompt.parse().ok());
    row.filter(|&class| class < classes).ok_or_else(|| {
        let likeness = |name: &&String| strsim::jaro_winkler(name, prompt);
        let nearest = names
            .iter()
            .max_by(|a, b| likeness(a).total_cmp(&likeness(b)));
        ExtractError::NoClass {
            prompt: prompt.to_owned(),
            classes,
            nearest: nearest.map_or(String::new(), |name| {
                format!(", the nearest name is `{name}`")
            }),
        }
    })
}
