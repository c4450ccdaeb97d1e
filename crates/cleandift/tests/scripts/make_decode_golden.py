"""Writes tests/golden/decode.safetensors: a decoded latent, as diffusers computes it.

    python tests/scripts/make_decode_golden.py tests/golden/tiny-sd21 tests/golden/decode.safetensors

Needs torch, diffusers and safetensors. `latents` [1, 4, 8, 6] are random, `image` [1, 3, 64, 48] is
`vae.decode(latents / 0.18215)`, worked in f64 and stored as f32.
"""

import sys

import torch
from diffusers import AutoencoderKL
from safetensors.torch import save_file

folder, out = sys.argv[1:]
vae = AutoencoderKL.from_pretrained(folder, subfolder="vae", torch_dtype=torch.float32).double().eval()
latents = 0.9 * torch.randn(1, 4, 8, 6, generator=torch.Generator().manual_seed(7))
with torch.no_grad():
    image = vae.decode(latents.double() / 0.18215).sample
save_file({"latents": latents, "image": image.float()}, out)
