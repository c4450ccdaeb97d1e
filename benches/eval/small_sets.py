"""Runs every evaluation on a folder of small data sets, with one model and all floors, and writes
the figures as a table.

    python3 benches/eval/small_sets.py target/release/cleandift DATA OUT --model MODEL [MORE FOR EACH RUN]

DATA is the folder `data` that tests find through `CLEANDIFT_TESTDATA`; sets that are not there
are left out. A run that is there already is not repeated. OUT/summary.md has the table, OUT/SET the
reports. Only Python's standard library is needed.
"""

import json
import subprocess
import sys
from pathlib import Path

RUNS = {
    "pf-willow": ["pf-willow", "--data", "pf-willow"],
    "animalpose-spair": ["spair", "--data", "animalpose-spair"],
    "lspet": ["keypoints", "--data", "lspet", "--pairs", "300"],
    "faces-68": ["keypoints", "--data", "faces-68", "--pairs", "200"],
    "oxford-affine": ["hpatches", "--data", "oxford-affine-hpatches"],
    "davis-240": ["davis", "--data", "davis-240"],
    "rgbd": ["depth", "--data", "rgbd"],
    "voc2012-mini": ["segmentation", "--data", "voc2012-mini"],
    "camvid-240": ["segmentation", "--data", "camvid-240"],
    "photos-128 knn": ["knn", "--data", "photos-128"],
    "photos-128 linear": ["linear", "--data", "photos-128"],
}


def words(row, schema):
    found, plain = row["figures"][0], schema["figures"][0]["scale"].lower() != "percent"
    scale, digits = (1, 3) if plain else (100, 2)
    value, low, high = (f"{found[key] * scale:.{digits}f}" for key in ("value", "low", "high"))
    return f"{value} ({low} to {high})"


def main():
    program, data, out, *more = sys.argv[1:]
    data, out = Path(data), Path(out)
    lines, total = [], 0.0
    for name, (task, flag, folder, *rest) in RUNS.items():
        if not (data / folder).is_dir():
            print(f"{name}: {data / folder} is not there", file=sys.stderr)
            continue
        target = out / name.replace(" ", "-")
        command = [program, "eval", task, flag, str(data / folder), *rest, "-o", str(target), *more]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        report = json.loads((target / "report.json").read_text())
        seconds = sum(row["seconds"] for row in report["rows"])
        total += seconds
        for place, row in enumerate(report["rows"]):
            first = [f"{name}, {row['count']} items", report["schema"]["figures"][0]["name"]] if place == 0 else ["", ""]
            cells = [*first, row["name"], words(row, report["schema"]), f"{row['seconds']:.0f}"]
            lines.append("| " + " | ".join(cells) + " |")
    head = "| set | figure | candidate | 95 % interval | s |\n|---|---|---|---:|---:|\n"
    text = f"{head}" + "\n".join(lines) + f"\n\nAll together: {total:.0f} s.\n"
    (out / "summary.md").write_text(text)
    print(text, end="")


main()
