"""Compares LoRAs merged by `cleandift models convert` with peft's own `merge_and_unload`, in peft's,
diffusers' and kohya's spelling. Prints the largest relative error; exits with 1 if one is over 1e-5.

python compare_lora.py BINARY MODEL      (torch 2.15, diffusers 0.39, peft 0.21)
"""
import json
import pathlib
import subprocess
import sys
import tempfile

import torch
from diffusers import UNet2DConditionModel
from peft import LoraConfig, get_peft_model
from peft.utils import get_peft_model_state_dict
from safetensors.torch import load_file, save_file

binary, model = sys.argv[1:3]
scratch = tempfile.TemporaryDirectory()
folder = pathlib.Path(scratch.name)
torch.manual_seed(5)
unet = UNet2DConditionModel.from_pretrained(model, subfolder="unet", torch_dtype=torch.float32)
RANK, ALPHA = 4, 6.0
targets = ["to_q", "to_k", "to_v", "to_out.0", "proj_in", "ff.net.0.proj", "conv1"]
adapted = get_peft_model(unet, LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=targets, init_lora_weights=False))
state = {k: v.detach().clone().contiguous() for k, v in get_peft_model_state_dict(adapted).items()}
adapted.save_pretrained(f"{folder}/peft")
plain = {k.removeprefix("base_model.model."): v for k, v in state.items()}
diffusers = {f"unet.{k}": v for k, v in plain.items()}
settings = {"unet.r": RANK, "unet.lora_alpha": ALPHA}
save_file(diffusers, f"{folder}/diffusers.safetensors", metadata={"lora_adapter_metadata": json.dumps(settings)})
kohya = {}
for name, value in plain.items():
    layer, factor = name.removesuffix(".weight").rsplit(".lora_", 1)
    stem = "lora_unet_" + layer.replace(".", "_")
    kohya[f"{stem}.lora_{'down' if factor == 'A' else 'up'}.weight"] = value
    kohya[f"{stem}.alpha"] = torch.tensor(ALPHA)
save_file(kohya, f"{folder}/kohya.safetensors")
merged = adapted.merge_and_unload().state_dict()
plain_weights = load_file(next(pathlib.Path(model, "unet").glob("*.safetensors")))
changed = [name for name in merged if not torch.equal(merged[name], plain_weights[name].float())]
failed = len(changed) != len(plain) // 2
for name in ["peft/adapter_model.safetensors", "diffusers.safetensors", "kohya.safetensors"]:
    out = folder / "out.safetensors"
    subprocess.run([binary, "models", "convert", model, "--to", "unet", "--lora", folder / name, "-o", out], check=True, stdout=subprocess.DEVNULL)
    found = load_file(out)
    assert set(found) == set(merged), name
    worst = max(((found[k].float() - v).norm() / v.norm().clamp_min(1e-30)).item() for k, v in merged.items())
    print(f"{name:34} {len(changed)} layers changed, largest relative error {worst:.1e}")
    failed |= worst > 1e-5
sys.exit(failed)
