//! Features in f64 by the graphs' plainest reader, for comparison with other implementations:
//!
//! ```text
//! cargo run --release --example reference_features -- MODEL PICTURE WxH PROMPT TAPS OUT.safetensors
//! ```
//!
//! MODEL is a Stable Diffusion folder, PICTURE is resized with Pillow's bicubic filter, TAPS is a
//! list or `all`; the U-Net makes one pass over the clean latent at timestep 261. OUT holds
//! `latents` and the taps `[c, h, w]` and `prompt_embeds` `[tokens, d]`, all in f64. Small models
//! only: this is hundreds of times slower than extraction.

use std::path::Path;

use cleandift::checkpoint::Checkpoint;
use cleandift::engine::cpu::Processor;
use cleandift::extractor::{Extractor, Model, Request};
use cleandift::graph::{Shape, Tensor};
use cleandift::image::{Extent, Filter, Picture, Size};
use safetensors::tensor::{Dtype, TensorView};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [model, picture, size, prompt, taps, out] = arguments.as_slice() else {
        return Err(
            "usage: reference_features MODEL PICTURE WxH PROMPT TAPS OUT.safetensors".into(),
        );
    };
    let Size::Exact(extent) = size.parse()? else {
        return Err("expected a size WxH".into());
    };
    let model = Model::open(&Checkpoint::open(Path::new(model), None)?)?;
    let request = Request {
        taps: Some(taps.clone()),
        ..Request::default()
    };
    let extractor = Extractor::new(model, request, Processor::from_env(0)?)?;

    let picture = Picture::open(picture)?.resize(extent, Filter::Bicubic);
    let Extent { width, height } = extent;
    let values = picture
        .rgb()
        .iter()
        .map(|&value| f64::from(value) / 255.0 * 2.0 - 1.0);
    let image = Tensor::new(1, Shape::map(height, width, 3), values.collect());

    let outputs = extractor.reference(&image, prompt)?;
    let outputs: Vec<(String, Vec<usize>, Vec<u8>)> = outputs
        .into_iter()
        .map(|(name, tensor)| {
            let Shape {
                height,
                width,
                channels,
            } = tensor.shape;
            let (shape, values) = match name.as_str() {
                "prompt_embeds" => (vec![width, channels], tensor.data),
                _ => (vec![channels, height, width], tensor.to_channels_first()),
            };
            (
                name,
                shape,
                values.into_iter().flat_map(f64::to_le_bytes).collect(),
            )
        })
        .collect();
    let views = outputs.iter().map(|(name, shape, bytes)| {
        Ok((
            name.as_str(),
            TensorView::new(Dtype::F64, shape.clone(), bytes)?,
        ))
    });
    let views = views.collect::<Result<Vec<_>, safetensors::SafeTensorError>>()?;
    safetensors::serialize_to_file(views, None, Path::new(out))?;
    Ok(())
}
