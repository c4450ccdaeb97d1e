"""Compares whole training steps with PyTorch's on random models.

    cargo build --release --example replay_step
    python compare_training.py target/release/examples/replay_step ORACLE [--presets tiny-sd15,...]
        [--norms adarms,...] [--objectives cosine,...] [--latents 16,...] [--work reference,engine]
        [--seed 3]

ORACLE is the test data's `oracle/oracle.py`; its README says what to install. For each case it
makes a step with PyTorch, in f32 for the engine and in f64 for the reference, and the example
repeats it. Compared are

  loss   every loss, relative: 1e-4 (engine), 1e-6 (reference);
  grad   every gradient by relative 2-norm, norms under 1e-5 counting as 1e-5: 1e-3 (engine; with
         L1, where a difference near zero may change its sign, 1e-2), 1e-6 (reference);
  step   what a step of Adam adds to a parameter, by relative 2-norm over the elements whose
         gradient exceeds a thousandth of its tensor's root mean square: 1e-2 (the first step is
         the learning rate times the gradient's sign, so the others are rounding; with L1 on the
         engine, whose gradients are known to a hundredth only, a tenth: of 32 such cases PyTorch's
         own f32 and f64 are apart by more than 1e-2 in 7 when a thousandth counts, as one sign of a
         difference near zero moves a tap's whole gradient by 2 / sqrt(values); the engine in 11).

The worst of each case is printed, and the exit code is 1 if one is over the limit.
"""

import argparse
import contextlib
import importlib.util
import io
import os
import pathlib
import subprocess
import sys
import tempfile

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from safetensors import safe_open

LIMITS = {
    "engine": {"loss": 1e-4, "grad": 1e-3, "step": 1e-2},
    "reference": {"loss": 1e-6, "grad": 1e-6, "step": 1e-2},
}


def load(path):
    spec = importlib.util.spec_from_file_location("oracle", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(oracle, *arguments):
    with contextlib.redirect_stdout(io.StringIO()):
        oracle.main([str(argument) for argument in arguments])


def tensors(path):
    with safe_open(path, "np") as file:
        return {name: file.get_tensor(name) for name in file.keys()}


def norm(values):
    return float(np.linalg.norm(values.astype(np.float64)))


def errors(found, truth, clear_from):
    """Kind of comparison -> (worst error, name)."""
    worst = {"loss": (0.0, ""), "grad": (0.0, ""), "step": (0.0, "")}

    def note(kind, error, name):
        if not error <= worst[kind][0]:
            worst[kind] = (error, name)

    def names(tensors, kind):
        return {name for name in tensors if name.startswith(kind)}

    for kind in ("loss.", "grad."):
        assert names(found, kind) == names(truth, kind), names(found, kind) ^ names(truth, kind)
    for name in names(truth, "loss."):
        note("loss", abs(found[name] - truth[name]).item() / abs(truth[name]).item(), name)
    for name in names(truth, "grad."):
        expected = truth[name].astype(np.float64)
        assert found[name].shape == expected.shape, (name, found[name].shape, expected.shape)
        note("grad", norm(found[name] - expected) / max(norm(expected), 1e-5), name)
        before, after = (truth[f"{part}.{name[5:]}"] for part in ("before", "after"))
        clear = np.abs(expected) > clear_from * norm(expected) / expected.size**0.5
        if norm(expected) < 1e-5:
            continue
        step = (after.astype(np.float64) - before)[clear]
        ours = (found[f"after.{name[5:]}"].astype(np.float64) - before)[clear]
        # The student's timestep is so large that f32 does not see the step at all.
        note("step", norm(ours - step) / norm(step) if norm(step) else norm(ours), name)
    return worst


def case(binary, oracle, folder, model, settings, work, seed):
    """Whether all is within the limits."""
    norm_, objective, latent = settings
    truth, out = folder / "truth.safetensors", folder / "out.safetensors"
    wide = ["--float64", "--store", "f64"] if work == "reference" else []
    run(oracle, "train-step", "--model", model, "--norm", norm_, "--objective", objective,
        "--latent", latent, "--batch", 2, "--bins", 3, "--seed", seed, "-o", truth, *wide)
    command = [binary, "--model", model, "--step", truth, "--out", out]
    command += ["--reference"] if work == "reference" else []
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    label = f"{model.name:10} {norm_:13} {objective:6} {latent:>3} {work:9}"
    if done.returncode != 0:
        print(f"{label}  FAILED: {done.stderr.strip()}", flush=True)
        return False
    limits, clear_from = dict(LIMITS[work]), 1e-3
    if work == "engine" and objective == "l1":
        limits["grad"], clear_from = 1e-2, 0.1
    found = errors(tensors(out), tensors(truth), clear_from)
    over = [kind for kind, (error, _) in found.items() if not error <= limits[kind]]
    words = "  ".join(f"{kind} {error:.1e} ({name})" if kind in over else f"{kind} {error:.1e}"
                      for kind, (error, name) in found.items())
    print(f"{label}  {words}{'  OVER THE LIMIT' if over else ''}", flush=True)
    return not over


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("binary", type=pathlib.Path)
    parser.add_argument("oracle", type=pathlib.Path)
    parser.add_argument("--presets", default="tiny-sd15,tiny-sd21")
    parser.add_argument("--norms", default="adarms,film,film-intended,none")
    parser.add_argument("--objectives", default="cosine,l2,l1")
    parser.add_argument("--latents", default="16,24")
    parser.add_argument("--work", default="engine,reference")
    parser.add_argument("--seed", type=int, default=3, help="of the step; the model has one more")
    arguments = parser.parse_args()
    oracle = load(arguments.oracle)
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        for preset in arguments.presets.split(","):
            model = folder / preset
            run(oracle, "make", "--preset", preset, "--seed", arguments.seed + 1, "-o", model)
            settings = [(norm_, objective, latent) for norm_ in arguments.norms.split(",")
                        for objective in arguments.objectives.split(",")
                        for latent in arguments.latents.split(",")]
            for setting in settings:
                for work in arguments.work.split(","):
                    failed += not case(arguments.binary, oracle, folder, model, setting, work, arguments.seed)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
