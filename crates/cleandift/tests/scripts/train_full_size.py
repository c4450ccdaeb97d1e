"""Trains a full-size Stable Diffusion for three steps, interrupted after the second.

    cargo build --release
    python train_full_size.py target/release/cleandift MODEL PICTURES WORK [--size 256] [--threads 0]
        [--limit 21] [--again]

MODEL is a diffusers folder (random weights will do: `oracle.py make --preset full-sd21 --storage
bf16`), PICTURES a folder of pictures, WORK a folder with room for two states (24 GB for SD 2.1;
48 GB with `--again`). One picture and three timesteps a step, no captions. Told are the plan
(`--dry-run`), each step's time and the most memory; it fails if that is over `--limit` GiB or if
the second run does not go on after step 2. `--again` trains three steps without interruption, too,
and compares every byte of parameters and moments.
"""

import argparse
import pathlib
import re
import resource
import shutil
import subprocess
import sys

CONFIG = """seed = 3
[model]
base = '{model}'
[objective]
text = "none"
[data]
train = ['{pictures}']
size = {size}
batch = 1
[optimiser]
rate = 1e-5
[run]
steps = 3
save_every = 1000
keep = 1
validate_every = 0
[export]
files = []
"""


def same(one, other):
    with open(one, "rb") as one, open(other, "rb") as other:
        while True:
            parts = one.read(1 << 24), other.read(1 << 24)
            if parts[0] != parts[1]:
                return False
            if not parts[0]:
                return True


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("program", type=pathlib.Path)
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("pictures", type=pathlib.Path)
    parser.add_argument("work", type=pathlib.Path)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--threads", default="0")
    parser.add_argument("--limit", type=float, default=21, help="GiB")
    parser.add_argument("--again", action="store_true")
    arguments = parser.parse_args()
    work = arguments.work
    work.mkdir(parents=True, exist_ok=True)
    config = work / "train.toml"
    model, pictures = arguments.model.resolve(), arguments.pictures.resolve()
    config.write_text(CONFIG.format(model=model, pictures=pictures, size=arguments.size))

    def train(out, *more):
        command = [arguments.program, "train", config, "-o", out, "--threads", arguments.threads, *more]
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
        print(done.stdout + done.stderr, flush=True)
        if done.returncode != 0:
            sys.exit(f"it ended with {done.returncode}")
        return done.stderr

    out = work / "interrupted"
    shutil.rmtree(out, ignore_errors=True)
    train(out, "--dry-run")
    train(out, "--set", "run.steps=2")
    resumed = train(out, "--resume")
    assert "going on after step 2" in resumed, "it did not go on"
    assert re.search(r"^step 3: loss -?\d", resumed, re.MULTILINE), "there is no third step"
    # Of children that have ended: the largest of them.
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    print(f"most memory: {peak:.2f} GiB")
    assert peak < arguments.limit, f"more than {arguments.limit} GiB"
    if arguments.again:
        whole = work / "whole"
        shutil.rmtree(whole, ignore_errors=True)
        train(whole)
        for name in ("parameters.safetensors", "moments.safetensors"):
            files = [folder / "state-00000003" / name for folder in (out, whole)]
            assert same(*files), f"{name} differs"
        print("interrupted or not: the same bytes")


if __name__ == "__main__":
    main()
