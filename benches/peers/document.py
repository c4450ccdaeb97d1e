"""Measurements as Markdown, and their place in a document."""

import platform
import re
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path

from engines import UNLIMITED

PACKAGES = ("torch", "diffusers", "onnxruntime", "openvino", "ncnn", "pnnx")
MODELS = {"sd15": "SD 1.5", "sd21": "SD 2.1"}
STAGES = {"encoder": "encoder", "unet": "U-Net", "sum": "sum"}


def comparison(result: dict) -> tuple:
    """A section's key and text: every engine's seconds and ratios, and our share of the peak."""
    report = result["report"]
    isa = result["isa"] or "native"
    key = f"{result['model']} {result['tap']} {result['size']} {isa}"
    if result["arithmetic"] != "f32":
        key += f" {result['arithmetic']}"
    lines = [
        f"### {MODELS[result['model']]} to {result['tap']}, {result['size']}"
        + ("" if result["isa"] is None else f", {isa} only")
        + ("" if result["arithmetic"] == "f32" else f", ours with {result['arithmetic']}"),
        "",
        f"{machine(report)} Median of {result['rounds']} rounds.",
        "",
        "| engine | " + " | ".join(f"{name}, s" for name in STAGES.values())
        + " | times ours: " + " | ".join(STAGES.values()) + " |",
        "|---|" + "---:|" * (2 * len(STAGES)),
    ]
    for row in result["rows"]:
        seconds = [number(row["seconds"].get(stage)) for stage in STAGES]
        ratios = [number(row["ratio"].get(stage)) for stage in STAGES]
        star = "\\*" if result["isa"] and row["engine"] in UNLIMITED else ""
        lines.append("| " + " | ".join([row["engine"] + star] + seconds + ratios) + " |")
    lines += ["", shares(report)]
    if any("\\*" in line for line in lines):
        lines += ["", "\\* cannot be kept to an instruction set; it uses all that the machine has."]
    for name, reason in result["failed"].items():
        lines += ["", f"Left out: {name}: {' '.join(reason.split())[:300]}"]
    return key, "\n".join(lines)


def training(result: dict) -> tuple:
    """The same for training steps."""
    key = f"training {result['model']} {result['size']}"
    today = datetime.now(timezone.utc).date()
    lines = [
        f"### {MODELS[result['model']]}, a training step of the whole U-Net, {result['size']}",
        "",
        f"{today}, {platform.machine()}, {result['threads']} threads, {versions()}. Median of "
        f"{result['rounds']} rounds.",
        "",
        "| engine | forward and backward, s | times ours |",
        "|---|---:|---:|",
    ]
    lines += [
        f"| {name} | {number(seconds)} | {result['ratios'][name]:.2f} |"
        for name, seconds in result["seconds"].items()
    ]
    return key, "\n".join(lines)


def machine(report: dict) -> str:
    """When and where."""
    at, limits = report["machine"], report["limits"]
    date = datetime.fromtimestamp(report["unix_seconds"], timezone.utc).date()
    return (
        f"{date}; {at['processor']}, {report['threads']} threads, {at['system']}; peak "
        f"{limits['all_threads_gflops']:.0f} GFLOP/s ({limits['one_thread_gflops']:.0f} on one "
        f"thread), {limits['read_gigabytes']:.0f} GB/s read; cleandift {report['version']} "
        f"({report['kernels']}), {versions()}."
    )


def versions() -> str:
    return ", ".join(f"{package} {version(package)}" for package in PACKAGES)


def shares(report: dict) -> str:
    """How near ours come to the machine's peak."""
    stages = [stage for stage in report["stages"] if stage["name"] in ("encoder", "U-Net")]
    parts = [
        f"{stage['name']} {stage['multiply_adds'] / 1e9:.0f} GMAC at {stage['gflops']:.0f} "
        f"GFLOP/s, {100 * stage['share_of_peak']:.0f} % of the peak"
        for stage in stages
    ]
    memory = f"{report['peak_bytes'] / 1e9:.1f} GB of memory" if report["peak_bytes"] else ""
    return (
        "Ours: " + "; ".join(parts) + f"; {memory}. Convolutions count as direct ones: more than "
        "100 % is multiplications saved."
    )


def number(value) -> str:
    return "" if value is None else f"{value:.2f}"


def replace(file: Path, key: str, text: str):
    """Puts a section between its markers; a new one goes to the end."""
    begin, end = f"<!-- measured: {key} -->", "<!-- end -->"
    section = f"{begin}\n{text}\n{end}"
    document = file.read_text()
    pattern = re.compile(re.escape(begin) + r".*?" + re.escape(end), re.DOTALL)
    if pattern.search(document):
        document = pattern.sub(lambda _: section, document)
    else:
        document = document.rstrip() + "\n\n" + section + "\n"
    file.write_text(document)
