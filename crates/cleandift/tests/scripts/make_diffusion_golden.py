"""A step of a diffusion model's training in PyTorch, in f64: golden/diffusion.safetensors.

    python make_diffusion_golden.py

diffusers' UNet2DConditionModel with the weights of golden/tiny-sd21, conditioned by a class table;
velocity, min-SNR weights (limit 5), two pictures at t = 40 and 700, one of them without a class.
"""

from pathlib import Path

import torch
from diffusers import DDPMScheduler, UNet2DConditionModel
from safetensors.torch import save_file

GOLDEN = Path(__file__).parent.parent / "golden"
LIMIT = 5.0
KEPT = [
    "conv_in.weight",
    "time_embedding.linear_1.weight",
    "down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_v.weight",
    "mid_block.resnets.1.time_emb_proj.bias",
    "up_blocks.3.resnets.2.norm1.weight",
    "conv_out.bias",
]


def main():
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    unet = UNet2DConditionModel.from_pretrained(GOLDEN / "tiny-sd21", subfolder="unet").double()
    scheduler = DDPMScheduler(
        beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012,
        prediction_type="v_prediction")
    scheduler.alphas_cumprod = scheduler.alphas_cumprod.double()
    single = lambda *shape: torch.randn(*shape).float().double()
    table = single(3, 1, 32).requires_grad_()
    latent, noise = single(2, 4, 8, 8), single(2, 4, 8, 8)
    timestep, row = torch.tensor([40, 700]), torch.tensor([1, 2])
    noisy = scheduler.add_noise(latent, noise, timestep)
    target = scheduler.get_velocity(latent, noise, timestep)
    out = unet(noisy, timestep, table[row]).sample
    alpha = scheduler.alphas_cumprod[timestep]
    ratio = alpha / (1 - alpha)
    weight = ratio.clamp(max=LIMIT) / (ratio + 1)
    losses = weight * (out - target).square().mean((1, 2, 3))
    losses.mean().backward()
    found = dict(unet.named_parameters()) | {"table": table}
    tensors = {"latent": latent, "noise": noise, "timestep": timestep, "row": row, "loss": losses,
               "table": table}
    tensors |= {f"grad.{name}": found[name].grad for name in [*KEPT, "table"]}
    tensors = {name: value.detach().float().contiguous() for name, value in tensors.items()}
    save_file(tensors, GOLDEN / "diffusion.safetensors")


main()
