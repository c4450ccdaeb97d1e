"""Opens what `cleandift train` wrote with diffusers and peft.

    python check_exports.py BASE OUT

BASE is the diffusers folder that was trained from, OUT the run's folder. Whatever of
`student_unet.safetensors`, `model/` and `pytorch_lora_weights.safetensors` is there is opened:

* the UNet's file is loaded with `strict=True`, and nothing in it is left over;
* the folder gives the same UNet by `from_pretrained`;
* the factors of low rank are loaded by diffusers on peft (`load_lora_adapter`); the U-Net with them
  gives the output that it gives with the merged weights, within 1e-5 of the largest value.

made for diffusers 0.42, peft 0.21.
"""

import pathlib
import sys

import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file


def output(unet):
    torch.manual_seed(0)
    config = unet.config
    sample = torch.randn(1, config.in_channels, 16, 16)
    text = torch.randn(1, 77, config.cross_attention_dim)
    with torch.no_grad():
        return unet(sample, torch.tensor([261.0]), text).sample


def main():
    base, out = map(pathlib.Path, sys.argv[1:3])
    merged = UNet2DConditionModel.from_pretrained(base, subfolder="unet").eval()
    before = output(merged)
    weights = load_file(out / "student_unet.safetensors")
    merged.load_state_dict({name: value.float() for name, value in weights.items()}, strict=True)
    after = output(merged)
    changed = (after - before).abs().max().item()
    print(f"student_unet.safetensors: {len(weights)} tensors, strictly; output moved by {changed:.1e}")
    assert changed > 0, "nothing was learned"

    if (out / "model").is_dir():
        folder = UNet2DConditionModel.from_pretrained(out / "model", subfolder="unet").eval()
        same = all(torch.equal(value, merged.state_dict()[name]) for name, value in folder.state_dict().items())
        assert same, "the folder holds another U-Net"
        print("model/: the same U-Net")

    factors = out / "pytorch_lora_weights.safetensors"
    if factors.exists():
        adapted = UNet2DConditionModel.from_pretrained(base, subfolder="unet").eval()
        adapted.load_lora_adapter(load_file(factors), prefix="unet", adapter_name="cleandift")
        layers = [name for name, _ in adapted.named_parameters() if ".lora_A." in name]
        error = ((output(adapted) - after).abs().max() / after.abs().max()).item()
        print(f"pytorch_lora_weights.safetensors: {len(layers)} layers, differs from merged by {error:.1e}")
        assert layers and error < 1e-5, error


if __name__ == "__main__":
    main()
