"""Compares `cleandift extract` with PyTorch, diffusers and transformers on random models.

    CLEANDIFT_TESTDATA=... python compare_with_oracle.py BINARY [--presets tiny-sd15,...] [--seeds 1,2]

The test data's `oracle/oracle.py` makes Stable-Diffusion-shaped models with random weights in the
layouts that real checkpoints have, and computes the features that are expected; its README says
what to install. Every tensor is compared by relative error (2-norm of the difference over the
2-norm of what is expected); the worst of each case is printed, and the exit code is 1 if one is
over the limit: 1e-4, or 1e-3 at full size.
"""

import argparse
import contextlib
import io
import os
import pathlib
import subprocess
import sys
import tempfile

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file

DATA = pathlib.Path(os.environ["CLEANDIFT_TESTDATA"])
sys.path.insert(0, str(DATA / "oracle"))
import oracle  # noqa: E402

PROMPT = "a photo of a dog"
SIZES = ["128x128", "192x128", "256x320", "200x136"]
TAPS = ["mid"] + [f"us{i}" for i in range(1, 11)]


def run_oracle(*arguments):
    with contextlib.redirect_stdout(io.StringIO()):
        oracle.main([str(argument) for argument in arguments])


def tensors(path):
    with safe_open(path, "np") as file:
        return {name: file.get_tensor(name) for name in file.keys()}


class Comparison:
    def __init__(self, binary, folder, limit):
        self.binary, self.folder, self.limit = binary, folder, limit
        self.failed = 0

    def case(self, label, size, model, expected, ours=(), heads=False):
        """`expected`: the oracle's arguments; `ours`: the program's."""
        picture = self.folder / "images" / "tiles.png"
        truth, out = self.folder / "truth.safetensors", self.folder / "out"
        run_oracle("features", "--image", picture, "--size", size, "--prompt", PROMPT,
                   "--resample", "bicubic", "-o", truth, *expected)
        command = [self.binary, "extract", picture, "--model", model, "--size", size,
                   "--resample", "bicubic", "--prompt", PROMPT, "--taps", "all",
                   "--also", "latents,prompt_embeds", "--format", "safetensors", "--overwrite",
                   "-o", out, *ours]
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
        if done.returncode != 0:
            print(f"{label:44} {size:>8}  FAILED: {done.stderr.strip().splitlines()[-1]}")
            self.failed += 1
            return
        found, expected = tensors(out / "tiles.safetensors"), tensors(truth)
        errors = {}
        for name in TAPS + ["latents", "prompt_embeds"]:
            key = f"heads.{name}" if heads and name in TAPS else name
            truth64 = expected[key].astype(np.float64)
            assert found[name].shape == truth64.shape, (name, found[name].shape, truth64.shape)
            errors[name] = np.linalg.norm(found[name] - truth64) / np.linalg.norm(truth64)
        worst = max(errors, key=errors.get)
        verdict = "" if errors[worst] <= self.limit else "  OVER THE LIMIT"
        self.failed += bool(verdict)
        print(f"{label:44} {size:>8}  {errors[worst]:.1e} ({worst}){verdict}", flush=True)

    def plain(self, label, size, model):
        self.case(label, size, model, ["--model", model, "--naive-clean", "--timestep", 261])


def compare(preset, seed, binary):
    full = preset.startswith("full")
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        comparison = Comparison(binary, folder, 1e-3 if full else 1e-4)
        run_oracle("images", "-o", folder / "images")
        model = folder / "model"
        unet, whole = folder / "unet.safetensors", folder / "full.safetensors"
        extra = ["--storage", "bf16"] if full else []
        make = ["make", "--preset", preset, "--seed", seed]
        run_oracle(*make, *extra, "-o", model, "--cleandift-unet", unet, "--cleandift-full", whole)
        name = f"{preset} seed {seed}"
        for size in SIZES[2:3] if full else SIZES:
            comparison.plain(name, size, model)
        for kind in ["safetensors", "ckpt"]:
            single = folder / f"single.{kind}"
            run_oracle(*make, *extra, "-o", folder / "form", "--single-file", single)
            label = f"{name}, single .{kind}"
            truth = ["--model", model, "--naive-clean", "--timestep", 261]
            comparison.case(label, SIZES[2], single, truth, ["--base", model, "--student"])
            subprocess.run(["rm", "-r", folder / "form", single], check=True)
        if not full:
            variants(comparison, name, model, unet, whole)
            for form, options in FORMS.items():
                run_oracle(*make, *options, "-o", folder / "form")
                comparison.plain(f"{name}, {form}", "192x128", folder / "form")
                subprocess.run(["rm", "-r", folder / "form"], check=True)
        return comparison.failed


FORMS = {
    "sharded": ["--sharded"],
    "old VAE names": ["--old-vae-attention", "linear"],
    "old VAE convolutions": ["--old-vae-attention", "conv", "--no-tokenizer-json"],
    "f16": ["--storage", "f16"],
    "bf16": ["--storage", "bf16"],
    "PyTorch's files": ["--bin"],
    "PyTorch's files, f16": ["--bin", "--storage", "f16"],
    "fp16 variant, sharded": ["--storage", "f16", "--variant", "fp16", "--sharded"],
}


def variants(comparison, name, model, unet, whole):
    size = "192x128"
    base = ["--model", model]
    noise = comparison.folder / "noise.safetensors"
    draws = np.random.default_rng(0).standard_normal((3, 4, 16, 24), dtype=np.float32)
    save_file({"noise": draws}, noise)
    comparison.case(f"{name}, noise 261 x 3", size, model,
                    [*base, "--noise", 261, "--noise-file", noise],
                    ["--noise", 261, "--noise-file", noise])
    comparison.case(f"{name}, naive clean 100", size, model,
                    [*base, "--naive-clean", "--timestep", 100], ["--naive-clean", 100])
    comparison.case(f"{name}, _unet file", size, unet,
                    [*base, "--cleandift", unet], ["--base", model])
    comparison.case(f"{name}, _full file", size, whole,
                    [*base, "--cleandift", whole], ["--base", model])
    comparison.case(f"{name}, _full file's teacher, naive clean", size, whole,
                    [*base, "--naive-clean", "--timestep", 50],
                    ["--base", model, "--naive-clean", 50])
    comparison.case(f"{name}, _full file at 300", size, whole,
                    [*base, "--cleandift", whole, "--at-timestep", 300],
                    ["--base", model, "--at-timestep", 300], heads=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("binary")
    parser.add_argument("--presets", default="tiny-sd15,tiny-sd21")
    parser.add_argument("--seeds", default="1,2")
    arguments = parser.parse_args()
    failed = sum(compare(preset, int(seed), arguments.binary)
                 for preset in arguments.presets.split(",")
                 for seed in arguments.seeds.split(","))
    sys.exit(failed > 0)


main()
