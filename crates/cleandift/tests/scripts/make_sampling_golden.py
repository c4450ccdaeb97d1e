"""Makes `tests/golden/sampling.safetensors`: latents that diffusers' DDIMScheduler reaches.

    python make_sampling_golden.py

With diffusers 0.42.1 and torch 2.15.0, in double precision. For each small golden model: noise, the
embeddings of a prompt and of none, and the latents after STEPS steps with guidance GUIDANCE; SD 1.5
predicts noise, SD 2.1 velocity. More steps or guidance make these random models unstable: after seven
steps with guidance 3 a change of 1e-7 in the noise is one of 1e-4 in the latents. `clean` is the same with `set_alpha_to_one`.
"""

import pathlib

import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from safetensors.torch import save_file

GOLDEN = pathlib.Path(__file__).parent.parent / "golden"
STEPS, GUIDANCE = 4, 1.5

torch.set_default_dtype(torch.float64)
torch.manual_seed(12)
tensors = {}
for preset in ["tiny-sd15", "tiny-sd21"]:
    folder = GOLDEN / preset
    unet = UNet2DConditionModel.from_pretrained(folder / "unet").double().eval()
    width = unet.config.cross_attention_dim
    noise = torch.randn(2, 4, 16, 12).float()
    prompt, none = torch.randn(9, width).float(), torch.randn(9, width).float()
    for name, changes in [("latents", {}), ("clean", {"set_alpha_to_one": True})]:
        config = DDIMScheduler.load_config(folder / "scheduler")
        scheduler = DDIMScheduler.from_config(config, **changes)
        scheduler.set_timesteps(STEPS)
        latents = noise.double()
        for t in scheduler.timesteps:
            with torch.no_grad():
                both = [
                    unet(latents, t, text.double().expand(2, -1, -1)).sample
                    for text in (none, prompt)
                ]
            output = both[0] + GUIDANCE * (both[1] - both[0])
            latents = scheduler.step(output, t, latents, eta=0.0).prev_sample
        tensors[f"{preset}/{name}"] = latents.float()
        print(preset, name, scheduler.config.prediction_type, scheduler.timesteps.tolist(), latents.std())
    tensors |= {f"{preset}/noise": noise, f"{preset}/prompt": prompt, f"{preset}/none": none}
save_file({k: v.contiguous() for k, v in tensors.items()}, GOLDEN / "sampling.safetensors")
