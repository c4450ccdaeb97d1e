"""Writes LoRA files for the UNet and text encoder of a diffusers folder, in every spelling, and what
peft itself makes of them: the layers' weights after `merge_and_unload`.

python make_lora_golden.py MODEL FOLDER      (torch 2.15, diffusers 0.39, peft 0.21)
"""
import json
import os
import sys

import torch
from diffusers import UNet2DConditionModel
from peft import LoraConfig, get_peft_model
from peft.utils import get_peft_model_state_dict
from safetensors.torch import save_file

model, folder = sys.argv[1:3]
os.makedirs(folder, exist_ok=True)
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
save_file({k: v.contiguous() for k, v in merged.items()}, f"{folder}/merged.safetensors")
print(len(plain) // 2, "layers")
