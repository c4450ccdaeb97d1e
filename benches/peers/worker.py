"""One engine that stays loaded and runs one picture for each line on its standard input.

Lines out are JSON: first the shape of what each stage gave and, so that engines can be compared,
its 2-norm; then the seconds of each stage of each run. `cleandift bench --interactive` does the
same, without norms: its weights are others.
"""

import argparse
import json
import sys
import time
import warnings
from pathlib import Path

import numpy
import torch

import networks
from engines import ENGINES


def timed(run):
    begun = time.perf_counter()
    result = run()
    return time.perf_counter() - begun, result


def inference(arguments):
    """By stage, what runs it."""
    precision = "bf16" if arguments.engine.endswith("-bf16") else "f32"
    engine = ENGINES[arguments.engine.removesuffix("-bf16")]
    engine = engine(arguments.threads, precision, arguments.cache)
    width, height = arguments.size
    parts = networks.parts(arguments.model, arguments.tap, width, height)
    runs = {}
    for stage in engine.stages:
        module, inputs = parts.pop(stage)
        name = "-".join((arguments.model, arguments.tap, f"{width}x{height}", stage))
        runs[stage] = engine.load(name, module, inputs)
    return runs


def training(arguments):
    """One step of the whole U-Net, forward and backward, on a latent of the given size."""
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    unet = networks.unet(arguments.model)
    width, height = (side // 8 for side in arguments.size)
    latent = torch.randn(1, 4, height, width)
    text = torch.randn(1, networks.TOKENS, unet.config.cross_attention_dim)

    def step():
        output = unet(latent, networks.TIMESTEP, text).sample
        output.square().mean().backward()
        unet.zero_grad()
        return output.detach().numpy()

    return {"forward and backward": step}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("engine", help="an engine, with -bf16 behind it for half precision")
    parser.add_argument("--work", choices=("inference", "training"), default="inference")
    parser.add_argument("--model", choices=("sd15", "sd21"), default="sd21")
    parser.add_argument("--tap", choices=networks.TAPS, default="us6")
    parser.add_argument("--size", type=lambda text: [int(side) for side in text.split("x")])
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--cache", type=Path, required=True)
    arguments = parser.parse_args()
    # Libraries print as they like; the answers have the real output for themselves.
    answers, sys.stdout = sys.stdout, sys.stderr
    warnings.simplefilter("ignore")

    runs = {"inference": inference, "training": training}[arguments.work](arguments)
    seen, norms = {}, {}
    for stage, run in runs.items():
        result = run()
        norm = float(numpy.linalg.norm(result.astype(numpy.float64)))
        seen[stage] = list(result.shape[1:])
        norms[stage] = norm
    print(json.dumps({**seen, "norms": norms}), file=answers, flush=True)
    for _ in sys.stdin:
        print(json.dumps({stage: timed(run)[0] for stage, run in runs.items()}), file=answers, flush=True)


if __name__ == "__main__":
    main()
