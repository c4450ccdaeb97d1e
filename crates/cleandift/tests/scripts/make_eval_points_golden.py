# /// script
# requires-python = ">=3.11"
# dependencies = ["numpy", "torch", "safetensors", "opencv-python-headless", "scipy"]
# ///
"""Writes tests/golden/eval/points.safetensors: what published procedures and public
implementations make of the arrays that the tests of correspondence and statistics use.

    pipx run tests/scripts/make_eval_points_golden.py tests/golden/eval

(or install the packages above and run it with python). By prefix:

* `dift/N/`: two random maps [h, w, c], the extents of their pictures, keypoints, the side of the
  target's box; `found` is DIFT's procedure in PyTorch, f64: both maps interpolated to the pictures'
  size, vectors at the source's keypoints, cosine with every pixel, arg-max. Correct if the distance
  over the side is at most 0.1: `correct`.
* `patches/N/`: the same for the procedures on 60 x 60 patches of a canvas of 840: `hard` is "A Tale
  of Two Features" (nearest patch, 14 i + 6.5), `soft` "Telling Left from Right" (window soft
  arg-max, 14 i + 7), in units of the canvas; `hard_correct` and `soft_correct` at 0.1 (`<`).
* `mutual/`: mean distance of mutual nearest neighbours of two maps, in numpy.
* `bootstrap/`: scipy.stats.bootstrap, percentile interval of a mean; `exact/`:
  scipy.stats.permutation_test of paired samples, all flips, two-sided.
* `homography/`: OpenCV's findHomography from noisy matches, all of them (least squares), with a
  third of them wrong (RANSAC at 3, and LMEDS).
"""

import sys
from pathlib import Path

import cv2
import numpy as np
import scipy.stats
import torch
import torch.nn.functional as F
from safetensors.numpy import save_file

random = np.random.default_rng(5)
out = {}


def keep(name, value, kind=np.float32):
    out[name] = np.ascontiguousarray(np.asarray(value, dtype=np.float64), dtype=kind)


def smooth_map(height, width, channels):
    """Neighbouring cells are alike, as in real maps."""
    coarse = torch.tensor(random.normal(size=(1, channels, height // 3 + 1, width // 3 + 1)))
    fine = F.interpolate(coarse, size=(height, width), mode="bilinear")
    fine = fine + 0.3 * torch.tensor(random.normal(size=fine.shape))
    return fine[0].permute(1, 2, 0).numpy().astype(np.float32)


def nchw(array):
    return torch.tensor(array, dtype=torch.float64).permute(2, 0, 1)[None]


def dift(name):
    cells = [random.integers(5, 14, 2) for _ in range(2)]
    sizes = [random.integers(20, 70, 2) for _ in range(2)]  # width, height
    maps = [smooth_map(*cells[i], 24) for i in range(2)]
    points = np.stack([random.integers(0, sizes[0][axis], 12) for axis in range(2)], 1)
    source, target = (
        F.normalize(F.interpolate(nchw(m), size=(int(s[1]), int(s[0])), mode="bilinear"), dim=1)[0]
        for m, s in zip(maps, sizes)
    )
    found = []
    for x, y in points:
        similarity = torch.einsum("c,chw->hw", source[:, y, x], target)
        place = int(similarity.flatten().argmax())
        found.append([place % sizes[1][0], place // sizes[1][0]])
    found = np.array(found)
    # Where they should be: near what was found, so that some are right and some wrong.
    truth = np.clip(found + random.integers(-4, 5, found.shape), 0, sizes[1] - 1)
    side = float(random.integers(25, 60))
    distance = np.linalg.norm(found - truth, axis=1)
    for key, value in dict(
        source=maps[0], target=maps[1], source_size=sizes[0], target_size=sizes[1], points=points,
        truth=truth, side=[side], found=found, correct=distance / side <= 0.1,
    ).items():
        keep(f"dift/{name}/{key}", value)


GRID, CANVAS = 60, 840


def placed(points, size):
    """sd-dino's resizing of keypoints to a padded square."""
    width, height = size
    long, short = max(width, height), min(width, height)
    points = points * (CANVAS / long)
    offset = int((CANVAS - round(CANVAS * short / long)) / 2)
    points[:, 1 if width >= height else 0] += offset
    return points, CANVAS / long


def soft(similarity, window=5, beta=0.02):
    """Telling Left from Right: outside of the window similarities count as zero."""
    place = int(similarity.argmax())
    row, column = place // GRID, place % GRID
    rows, columns = np.mgrid[:GRID, :GRID]
    inside = (abs(rows - row) <= window) & (abs(columns - column) <= window)
    kept = np.where(inside.flatten(), similarity, 0.0)
    weights = np.exp((kept - kept.max()) / beta)
    weights /= weights.sum()
    grid = np.linspace(-1, 1, GRID)
    x = (weights.reshape(GRID, GRID).sum(0) * grid).sum()
    y = (weights.reshape(GRID, GRID).sum(1) * grid).sum()
    return np.clip([(x + 1) * (GRID - 1) / 2, (y + 1) * (GRID - 1) / 2], 0, GRID - 1)


def patches(name, sizes):
    maps = [smooth_map(GRID, GRID, 6) for _ in range(2)]
    points = [np.stack([random.integers(0, s[a], 10) for a in range(2)], 1).astype(float) for s in sizes]
    flat = [m.reshape(-1, 6).astype(np.float64) for m in maps]
    flat = [f / np.linalg.norm(f, axis=1, keepdims=True) for f in flat]
    source, _ = placed(points[0].copy(), sizes[0])
    hard, softly = [], []
    for x, y in source:
        cell = int(GRID / CANVAS * x) + GRID * int(GRID / CANVAS * y)
        similarity = flat[1] @ flat[0][cell]
        place = int(similarity.argmax())
        hard.append([14 * (place % GRID) + 6.5, 14 * (place // GRID) + 6.5])
        softly.append(14 * soft(similarity) + 7)
    # Half of the truths lie near the soft prediction.
    scale = CANVAS / max(sizes[1])
    offset = placed(np.zeros((1, 2)), sizes[1])[0][0]
    near = (np.array(softly)[:5] - offset) / scale + random.normal(size=(5, 2)) * 8
    points[1][:5] = np.clip(np.round(near), 0, np.array(sizes[1]) - 1)
    target, scale = placed(points[1].copy(), sizes[1])
    side = 0.6 * max(sizes[1])
    correct = lambda found: np.linalg.norm(np.array(found) - target, axis=1) < 0.1 * side * scale
    for key, value in dict(
        source=maps[0], target=maps[1], source_size=sizes[0], target_size=sizes[1],
        points=points[0], truth=points[1], side=[side], hard=hard, soft=softly,
        hard_correct=correct(hard), soft_correct=correct(softly),
    ).items():
        keep(f"patches/{name}/{key}", value)


def mutual():
    a, b = smooth_map(9, 8, 12), smooth_map(7, 10, 12)
    unit = lambda m: (f := m.reshape(-1, 12).astype(np.float64)) / np.linalg.norm(f, axis=1, keepdims=True)
    distances = np.linalg.norm(unit(a)[:, None] - unit(b)[None], axis=2)
    to, back = distances.argmin(1), distances.argmin(0)
    pairs = [i for i in range(len(to)) if back[to[i]] == i]
    keep("mutual/source", a)
    keep("mutual/target", b)
    keep("mutual/distance", [np.mean([distances[i, to[i]] for i in pairs])])


def statistics():
    values = random.beta(2, 3, 80)
    found = scipy.stats.bootstrap(
        (values,), np.mean, n_resamples=50000, method="percentile", rng=np.random.default_rng(1)
    ).confidence_interval
    keep("bootstrap/values", values)
    keep("bootstrap/interval", [found.low, found.high])
    a = random.normal(size=11)
    b = a - random.normal(size=11) - 0.4
    keep("exact/a", a)
    keep("exact/b", b)
    # As the tests see them: rounded to f32.
    a, b = out["exact/a"].astype(np.float64), out["exact/b"].astype(np.float64)
    test = scipy.stats.permutation_test(
        (a, b), lambda x, y: np.mean(x) - np.mean(y), permutation_type="samples", n_resamples=np.inf
    )
    keep("exact/p", [test.pvalue])


def homography():
    true = np.array([[0.9, 0.1, 12.0], [-0.05, 1.1, -7.0], [2e-4, -1e-4, 1.0]])
    points = (random.uniform(size=(90, 2)) * [300, 200]).astype(np.float32)
    moved = cv2.perspectiveTransform(points[None].astype(np.float64), true)[0]
    moved = moved + 0.3 * random.normal(size=moved.shape)
    wrong = moved.copy()
    wrong[::3] += random.uniform(40, 120, size=wrong[::3].shape)
    moved, wrong = moved.astype(np.float32), wrong.astype(np.float32)
    keep("homography/points", points)
    keep("homography/moved", moved)
    keep("homography/wrong", wrong)
    cv2.setRNGSeed(3)
    keep("homography/all", cv2.findHomography(points, moved, 0)[0])
    keep("homography/ransac", cv2.findHomography(points, wrong, cv2.RANSAC, 3.0, maxIters=10000, confidence=0.99999)[0])
    keep("homography/lmeds", cv2.findHomography(points, wrong, cv2.LMEDS, confidence=0.99999)[0])


for index in range(6):
    dift(index)
patches(0, [(500, 375), (333, 500)])
patches(1, [(320, 320), (640, 427)])
mutual()
statistics()
homography()
save_file(out, Path(sys.argv[1]) / "points.safetensors")
