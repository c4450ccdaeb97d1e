"""Runs cleandift and other engines in turn, picture by picture, and writes how they compare.

All engines stay loaded while they take turns, so that a machine that becomes slower becomes slower
for all of them; a ratio is the median over the rounds. Where memory does not hold all engines at
once, they go in groups, each against cleandift.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from statistics import median

import document
import networks
from engines import ENGINES, LIMITS

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
NAMES = [name + suffix for suffix in ("", "-bf16") for name, engine in ENGINES.items()
         if suffix == "" or "bf16" in engine.precisions]

# Seconds between turns: the threads of the last engine wait for work for a while before they sleep.
PAUSE = 0.3

# Relative difference of two engines' 2-norms that rounding explains.
ROUNDING = {"f32": 1e-3, "bf16": 3e-2}


class Failed(Exception):
    """An engine that cannot run here, with the last thing it said."""


class Engine:
    """A process that runs a picture for each line it gets."""

    def __init__(self, name: str, command: list, isa: str | None):
        self.name = name
        variables = dict(LIMITS.get(isa, {}))
        if isa:
            variables["CLEANDIFT_KERNELS"] = isa
        self.errors = open(log_of(name), "w+")
        self.process = subprocess.Popen(
            [str(part) for part in command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
            env={**os.environ, **variables},
        )
        self.seen = self.answer()
        self.rounds = []

    def answer(self):
        line = self.process.stdout.readline()
        if line:
            return json.loads(line)
        self.process.wait()
        self.errors.seek(0)
        lines = [line.strip() for line in self.errors if line.strip()]
        raise Failed(lines[-1] if lines else f"ended with {self.process.returncode}")

    def run(self):
        time.sleep(PAUSE)
        # An engine that has died has no ears; its answer tells.
        with suppress(BrokenPipeError):
            self.process.stdin.write("\n")
            self.process.stdin.flush()
        self.rounds.append(self.answer())

    def finish(self) -> str:
        """Ends the process; what it still had to say."""
        rest, _ = self.process.communicate()
        self.errors.close()
        return rest

    def seconds(self, stage: str):
        """The stage's seconds in each round; None if the engine does not have it."""
        if stage in self.rounds[0]:
            return [seconds[stage] for seconds in self.rounds]
        return None


def log_of(name: str) -> Path:
    folder = ROOT / "target" / "peers" / "logs"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{name}.log"


def ours(arguments, size: str) -> Engine:
    command = [arguments.program, "bench", "--random-weights", arguments.model]
    command += ["--size", size, "--taps", arguments.tap, "--threads", arguments.threads]
    command += ["--arithmetic", arguments.arithmetic]
    return Engine("cleandift", command + ["--interactive"], arguments.isa)


def peer(name: str, arguments, size: str, work: str = "inference") -> Engine:
    command = [sys.executable, HERE / "worker.py", name, "--work", work]
    command += ["--model", arguments.model, "--tap", arguments.tap, "--size", size]
    command += ["--threads", arguments.threads, "--cache", arguments.cache]
    return Engine(name, command, arguments.isa)


def differences(own: Engine, peers: list, reference: dict) -> dict:
    """What is wrong with the results of engines, by name.

    Shapes are held against cleandift's, norms against those of the first f32 engine.
    """
    wrong = {}
    for engine in peers:
        precision = "bf16" if engine.name.endswith("-bf16") else "f32"
        for stage, norm in engine.seen["norms"].items():
            if engine.seen[stage] != own.seen[stage]:
                wrong[engine.name] = f"its {stage} gives {engine.seen[stage]}, not {own.seen[stage]}"
            if precision == "f32":
                reference.setdefault(stage, norm)
            expected = reference.get(stage, norm)
            if not abs(norm / expected - 1) <= ROUNDING[precision]:
                wrong[engine.name] = f"its {stage} has the 2-norm {norm}, not {expected}"
    return wrong


def compare(names: list, arguments, size: str, reference: dict):
    """One group against cleandift: its report, a row for each engine, and what failed."""
    failed, engines = {}, [ours(arguments, size)]
    for name in names:
        try:
            engines.append(peer(name, arguments, size))
        except Failed as error:
            failed[name] = str(error)
    failed |= differences(engines[0], engines[1:], reference)
    for index in range(arguments.rounds):
        for engine in engines:
            if engine.name not in failed:
                try:
                    engine.run()
                except Failed as error:
                    failed[engine.name] = str(error)
        print(f"{size}: round {index + 1} of {arguments.rounds}", file=sys.stderr)
    if engines[0].name in failed:
        raise SystemExit(f"cleandift: {failed[engines[0].name]}")
    report = json.loads(engines[0].finish())
    for engine in engines[1:]:
        engine.finish()
    rows = [row(engine, engines[0]) for engine in engines if engine.name not in failed]
    return report, rows, failed


def row(engine: Engine, own: Engine) -> dict:
    """Medians of each stage and of their sum, and how often cleandift's time they are."""
    result = {"engine": engine.name, "seconds": {}, "ratio": {}}
    stages = {stage: (engine.seconds(stage), own.seconds(stage)) for stage in ("encoder", "unet")}
    present = {stage: both for stage, both in stages.items() if both[0]}
    if len(present) == len(stages):
        present["sum"] = [[sum(run) for run in zip(*times)] for times in zip(*present.values())]
    for stage, (theirs, mine) in present.items():
        result["seconds"][stage] = median(theirs)
        result["ratio"][stage] = median(t / m for t, m in zip(theirs, mine))
    return result


def measure(arguments, size: str) -> dict:
    """All engines at one size, in groups."""
    reports, rows, failed, reference = [], [], {}, {}
    for first in range(0, len(arguments.engines), arguments.at_once):
        group = arguments.engines[first : first + arguments.at_once]
        report, more, wrong = compare(group, arguments, size, reference)
        reports.append(report)
        rows += more if not rows else more[1:]
        failed |= wrong
    # Ours ran with each group: the table has the median group's times.
    report = sorted(reports, key=lambda report: report["seconds"])[len(reports) // 2]
    own = {stage["name"]: stage["median"] for stage in report["stages"]}
    rows[0]["seconds"] = {
        "encoder": own["encoder"],
        "unet": own["U-Net"],
        "sum": report["seconds"],
    }
    return {
        "model": arguments.model,
        "tap": arguments.tap,
        "size": size,
        "isa": arguments.isa,
        "arithmetic": arguments.arithmetic,
        "rounds": arguments.rounds,
        "report": report,
        "rows": rows,
        "failed": failed,
    }


def training(arguments) -> dict:
    """Seconds of a step of the whole U-Net, ours and PyTorch's in turn."""
    stage = "forward and backward"
    side = int(arguments.training.split("x")[0]) // 8
    own = [arguments.training_program, side, arguments.threads, 1, "keep", "interactive"]
    engines = [
        Engine("cleandift", own, arguments.isa),
        peer("torch", arguments, arguments.training, "training"),
    ]
    for _ in range(arguments.rounds):
        for engine in engines:
            engine.run()
    seconds = {engine.name: engine.seconds(stage) for engine in engines}
    for engine in engines:
        engine.finish()
    ratios = {
        name: median(theirs / ours for theirs, ours in zip(times, seconds["cleandift"]))
        for name, times in seconds.items()
    }
    return {
        "size": arguments.training,
        "model": arguments.model,
        "threads": arguments.threads,
        "rounds": arguments.rounds,
        "seconds": {name: median(times) for name, times in seconds.items()},
        "ratios": ratios,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--program", type=Path, default=ROOT / "target/release/cleandift")
    parser.add_argument("--model", choices=("sd15", "sd21"), default="sd21")
    parser.add_argument("--tap", choices=networks.TAPS, default="us6")
    parser.add_argument("--sizes", type=lambda text: text.split(","), default=["512x512", "768x768"])
    parser.add_argument(
        "--engines", type=lambda text: text.split(","), help=f"default: {','.join(NAMES)}"
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--at-once", type=int, default=2, help="engines beside cleandift in memory")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--isa", choices=tuple(LIMITS), help="keep engines to an instruction set")
    parser.add_argument("--arithmetic", choices=("f32", "bf16"), default="f32", help="ours")
    parser.add_argument("--training", metavar="SIZE", help="compare a training step, too")
    parser.add_argument(
        "--training-program",
        type=Path,
        default=ROOT / "target/release/examples/training_speed",
        help="ours: cargo build --release --example training_speed",
    )
    parser.add_argument("--cache", type=Path, default=ROOT / "target/peers/models")
    parser.add_argument("--write", type=Path, help="the document whose tables are replaced")
    arguments = parser.parse_args()
    if arguments.engines is None:
        # oneDNN's kernels for bf16 begin with AVX-512.
        skip = arguments.isa == "avx2"
        arguments.engines = [name for name in NAMES if not (skip and name.endswith("-bf16"))]
    unknown = [name for name in arguments.engines if name not in NAMES]
    if unknown:
        parser.error(f"no such engine: {', '.join(unknown)}; there are {', '.join(NAMES)}")

    sections = []
    for size in arguments.sizes:
        sections.append(document.comparison(measure(arguments, size)))
    if arguments.training:
        sections.append(document.training(training(arguments)))
    for key, text in sections:
        print(text)
        if arguments.write:
            document.replace(arguments.write, key, text)


if __name__ == "__main__":
    main()
