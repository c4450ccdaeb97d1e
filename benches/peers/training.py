"""A step of CleanDIFT's fine-tuning beside the published formulation in PyTorch, in one run.

    cargo build --release --example finetune_speed
    python benches/peers/training.py --oracle ORACLE [--program target/release/examples/finetune_speed]
        [--size 256] [--threads 2] [--rounds 2]

ORACLE is the test data's `oracle/oracle.py`, whose `bench --what train --no-adam` runs the published
formulation: teacher and student on a row for each timestep. Stable Diffusion 2.1, random weights,
batch 1, three timesteps, f32; on both sides all values are kept for the way back, and there is no
optimiser, which is timed apart (`--adam`, which needs 17 GB). The programs run in turn, `--rounds`
times; of each the median of all runs is taken. The whole factor is told as two: the student computed
once, and the kernels.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys


def last_line(command):
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)} failed:\n{done.stderr}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--oracle", required=True)
    parser.add_argument("--program", default="target/release/examples/finetune_speed")
    parser.add_argument("--size", default="256")
    parser.add_argument("--threads", default=str(os.cpu_count()))
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--adam", action="store_true", help="also time Adam")
    arguments = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = arguments.threads
    ours = [arguments.program, "--size", arguments.size, "--threads", arguments.threads, "--keep"]
    peer = [sys.executable, arguments.oracle, "bench", "--what", "train", "--preset", "full-sd21",
            "--size", arguments.size, "--threads", arguments.threads, "--no-adam", "--runs", "2"]
    once, repeated, published = [], [], []
    for _ in range(arguments.rounds):
        once.append(last_line([*ours, "--runs", "2"]))
        published.append(last_line(peer))
        repeated.append(last_line([*ours, "--runs", "2", "--repeat"]))
    median = lambda reports: statistics.median(s for report in reports for s in report["seconds"])
    pytorch = statistics.median(report["median_s"]["total"] for report in published)
    result = {
        "size": arguments.size, "threads": arguments.threads, "kernels": once[0]["kernels"],
        "torch": published[0]["torch"],
        "pytorch_s": pytorch, "ours_s": median(once), "ours_student_repeated_s": median(repeated),
        "factor_student_once": median(repeated) / median(once),
        "factor_kernels": pytorch / median(repeated),
        "factor": pytorch / median(once),
        "peak_gb": {"pytorch": max(r["peak_rss_mb"] for r in published) / 1e3,
                    "ours": max(r["peak_bytes"] for r in once) / 1e9},
    }
    if arguments.adam:
        result["adam_s"] = statistics.median(last_line([*ours, "--runs", "2", "--adam"])["adam_seconds"])
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
