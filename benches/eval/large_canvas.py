"""Shows what a large evaluation keeps to: its memory, what a kill costs, and the time it foretells.

    python3 benches/eval/large_canvas.py target/release/cleandift MODEL OUT [--pairs 60] [--images 90]
        [--size 768] [--kill-after 5]

Draws pictures and pairs in SPair-71k's layout, starts the evaluation, kills it (SIGKILL) when some
pictures are done, starts it again and lets it end. Prints, as JSON, the largest resident set of both
runs, how many pictures were computed again (beside the one that was in the making), and the time
that the second run foretold after three pictures beside the time that it took from then on. Linux; only Python's standard library
is needed.
"""

import argparse
import json
import random
import re
import subprocess
import sys
import time
from pathlib import Path


def draw(path, seed, side=320):
    """A picture with discs of a few colours, as PPM: the program looks at the content, not the name."""
    rng = random.Random(seed)
    pixels = bytearray(rng.randrange(256) for _ in range(3)) * (side * side)
    for _ in range(12):
        x, y, r = rng.randrange(side), rng.randrange(side), rng.randrange(10, 60)
        colour = bytes(rng.randrange(256) for _ in range(3))
        for row in range(max(0, y - r), min(side, y + r)):
            half = int((r * r - (row - y) ** 2) ** 0.5)
            left, right = max(0, x - half), min(side, x + half)
            pixels[3 * (row * side + left) : 3 * (row * side + right)] = colour * (right - left)
    path.write_bytes(f"P6 {side} {side} 255\n".encode() + pixels)


def make_set(root, images, pairs, side=320):
    rng = random.Random(0)
    pictures, annotations = root / "JPEGImages/cat", root / "PairAnnotation/test"
    pictures.mkdir(parents=True, exist_ok=True)
    annotations.mkdir(parents=True, exist_ok=True)
    for index in range(images):
        draw(pictures / f"{index:03}.jpg", index)
    # Every picture is in a pair: the first ones one after the other, the others with any.
    order = list(range(images))
    for index in range(pairs):
        source, target = order[(2 * index) % images], order[(2 * index + 1) % images]
        point = lambda: [rng.randrange(20, side - 20) for _ in range(2)]
        points = [[point() for _ in range(8)] for _ in range(2)]
        pair = {
            "src_imname": f"{source:03}.jpg", "trg_imname": f"{target:03}.jpg", "category": "cat",
            "src_imsize": [side, side, 3], "trg_imsize": [side, side, 3],
            "src_bndbox": [10, 10, side - 10, side - 10], "trg_bndbox": [10, 10, side - 10, side - 10],
            "src_kps": points[0], "trg_kps": points[1], "kps_ids": [str(k) for k in range(8)],
        }
        name = f"{index:06}-{source:03}-{target:03}:cat.json"
        (annotations / name).write_text(json.dumps(pair))


def features(out):
    folder = out / "features"
    return {f.name: f.stat().st_mtime_ns for f in folder.glob("*.safetensors")} if folder.is_dir() else {}


def run(command, out, kill_after=None):
    """Runs until it ends or has made so many pictures; gives its messages and largest resident set."""
    log = (out / "log.txt").open("w+")
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=log)
    peak, begun = 0, time.monotonic()
    while process.poll() is None:
        try:
            status = Path(f"/proc/{process.pid}/status").read_text()
            peak = max(peak, int(re.search(r"VmHWM:\s+(\d+)", status)[1]))
        except (FileNotFoundError, TypeError):
            pass
        if kill_after and len(features(out)) >= kill_after:
            time.sleep(0.5)  # in the middle of the next picture
            process.kill()
            process.wait()
        time.sleep(0.1)
    log.seek(0)
    return {"text": log.read(), "peak": peak * 1024, "seconds": time.monotonic() - begun, "code": process.returncode}


def main():
    arguments = argparse.ArgumentParser()
    for name in ("program", "model", "out"):
        arguments.add_argument(name)
    for name, value in (("pairs", 60), ("images", 90), ("size", 768), ("kill-after", 5)):
        arguments.add_argument(f"--{name}", type=int, default=value)
    a = arguments.parse_args()
    out = Path(a.out)
    make_set(out / "SPair-71k", a.images, a.pairs)
    command = [a.program, "eval", "spair", "--data", str(out), "--model", a.model, "--size", str(a.size),
               "--floors", "none", "-o", str(out)]
    killed = run(command, out, a.kill_after)
    before = features(out)
    ended = run(command, out)
    if ended["code"]:
        sys.exit(ended["text"])
    after, end = features(out), time.time()
    foretold = re.search(r"(\d+) left: about (\d+) s", ended["text"])
    # The third picture of the second run is the moment of the estimate.
    made = sorted(moment for name, moment in after.items() if name not in before)
    print(json.dumps({
        "images": a.images, "pairs": a.pairs, "size": a.size,
        "peak_gib": round(max(killed["peak"], ended["peak"]) / 2**30, 2),
        "kept_of_killed_run": len(before),
        "kept_but_computed_again": sum(after.get(name) != moment for name, moment in before.items()),
        "foretold_s": int(foretold[2]) if foretold else None,
        "taken_s": round(end - made[2] / 1e9, 1),
        "whole_second_run_s": round(ended["seconds"], 1),
    }, indent=1))


main()
