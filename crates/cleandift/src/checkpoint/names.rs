//! One spelling for tensors that files name in several ways.

use super::{CheckpointError, Weights};

/// The VAE's names as diffusers writes them today. The attention of older files is called `query`,
/// `key`, `value` and `proj_attn`; converted from the original files, its weights are 1x1
/// convolutions [c, c, 1, 1], which become [c, c].
pub(super) fn of_vae(weights: &Weights) -> Result<Weights, CheckpointError> {
    const OLD_AND_NEW: [(&str, &str); 4] = [
        ("query", "to_q"),
        ("key", "to_k"),
        ("value", "to_v"),
        ("proj_attn", "to_out.0"),
    ];
    weights.renamed(|name, shape| {
        let Some((module, leaf)) = name.rsplit_once('.') else {
            return Some(name.into());
        };
        let Some((block, layer)) = split_attention(module) else {
            return Some(name.into());
        };
        let renamed = OLD_AND_NEW
            .iter()
            .find(|(old, new)| layer == *old || layer == *new);
        let Some((_, layer)) = renamed else {
            return Some(name.into());
        };
        if let [_, _, 1, 1] = shape[..] {
            shape.truncate(2);
        }
        Some(format!("{block}.{layer}.{leaf}"))
    })
}

/// `encoder.mid_block.attentions.0` and `to_out.0` of `encoder.mid_block.attentions.0.to_out.0`.
fn split_attention(module: &str) -> Option<(&str, &str)> {
    let list = module.find(".attentions.")? + ".attentions.".len();
    let index = module[list..].find('.')?;
    Some((&module[..list + index], &module[list + index + 1..]))
}

/// The text encoder's names with the prefix `text_model.`, as the files of Stable Diffusion 1.5 and
/// 2.1 have them; newer libraries write them without. The buffer `position_ids`, the numbers 0 to
/// 76 in whatever type, is left out.
pub(super) fn of_text_encoder(weights: &Weights) -> Result<Weights, CheckpointError> {
    const MODULES: [&str; 3] = ["embeddings.", "encoder.", "final_layer_norm."];
    weights.renamed(|name, _| {
        if name.ends_with("embeddings.position_ids") {
            None
        } else if MODULES.iter().any(|module| name.starts_with(module)) {
            Some(format!("text_model.{name}"))
        } else {
            Some(name.into())
        }
    })
}
