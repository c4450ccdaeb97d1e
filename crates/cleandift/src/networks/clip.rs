//! CLIP's text encoder (transformers' `CLIPTextModel`), layer by layer.

use super::config::{ClipActivation, ClipConfig};
use crate::graph::{Builder, Graph, Operation, Shape, Value};

/// Name of the input: token ids, `[tokens, 1]`.
pub const IDS: &str = "ids";
/// Name of the output: the last hidden state after the final norm, `[tokens, hidden_size]`.
pub const EMBEDDINGS: &str = "prompt_embeds";

/// The whole encoder. There is a causal mask and none for padding, as Stable Diffusion uses it.
pub fn graph(config: &ClipConfig) -> Graph {
    let mut b = Builder::new();
    let (tokens, width) = (config.max_position_embeddings, config.hidden_size);
    let ids = b.input(IDS, Shape::tokens(tokens, 1));
    let table = "text_model.embeddings.token_embedding.weight";
    let token = b.embedding(ids, table, &[config.vocab_size, width]);
    let place = "text_model.embeddings.position_embedding.weight";
    let place = b.constant(place, &[tokens, width], Shape::tokens(tokens, width));
    let mut h = b.add(token, place);
    for layer in 0..config.num_hidden_layers {
        h = encoder_layer(
            &mut b,
            config,
            &format!("text_model.encoder.layers.{layer}"),
            h,
        );
    }
    h = b.layer_norm(h, "text_model.final_layer_norm", config.layer_norm_eps);
    b.output(EMBEDDINGS, h);
    b.finish()
}

fn encoder_layer(b: &mut Builder, config: &ClipConfig, name: &str, mut h: Value) -> Value {
    let width = config.hidden_size;
    let y = b.layer_norm(h, &format!("{name}.layer_norm1"), config.layer_norm_eps);
    let attention = format!("{name}.self_attn");
    let parts = ["q_proj", "k_proj", "v_proj"];
    let parts = parts.map(|part| b.linear(y, &format!("{attention}.{part}"), width));
    let y = b.attention(parts, &attention, config.num_attention_heads, true);
    let y = b.linear(y, &format!("{attention}.out_proj"), width);
    h = b.add(y, h);
    let y = b.layer_norm(h, &format!("{name}.layer_norm2"), config.layer_norm_eps);
    let y = b.linear(y, &format!("{name}.mlp.fc1"), config.intermediate_size);
    let y = b.activation(
        y,
        match config.hidden_act {
            ClipActivation::QuickGelu => Operation::QuickGelu,
            ClipActivation::Gelu => Operation::Gelu,
        },
    );
    let y = b.linear(y, &format!("{name}.mlp.fc2"), width);
    b.add(y, h)
}
