# /// script
# requires-python = ">=3.11"
# dependencies = ["numpy", "torch", "pillow", "scipy"]
# ///
"""Prints the floors that `tests/eval_dense_tasks.rs` expects on real data.

    pipx run tests/scripts/dense_floors.py $CLEANDIFT_TESTDATA

davis-240: the first mask for every frame. voc2012-mini: the most frequent class of nine tenths of
the training part at each place of a 32x32 grid. rgbd: the mean depth at each place of a 64x64 grid.
"""

import io
import sys
import tarfile
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from scipy.ndimage import distance_transform_edt

data = Path(sys.argv[1])


def edge(mask):
    """Pixels unlike their neighbour to the right, below, or below right."""
    right, below = np.roll(mask, -1, 1), np.roll(mask, -1, 0)
    corner = np.roll(right, -1, 0)
    right[:, -1], below[-1, :] = mask[:, -1], mask[-1, :]
    corner[-1, :], corner[:, -1] = right[-1, :], below[:, -1]
    return (mask != right) | (mask != below) | (mask != corner)


def j_and_f(found, truth):
    j = (found & truth).sum() / (found | truth).sum()
    radius = np.ceil(0.008 * np.hypot(*truth.shape))
    a, b = edge(found), edge(truth)
    precision = (distance_transform_edt(~b)[a] <= radius).mean()
    recall = (distance_transform_edt(~a)[b] <= radius).mean()
    return j, 2 * precision * recall / (precision + recall)


def davis():
    root, means = data / "davis-240/DAVIS", []
    for name in (root / "ImageSets/2017/val.txt").read_text().split():
        files = sorted((root / "Annotations/480p" / name).glob("*.png"))
        masks = [np.array(Image.open(file)) == 1 for file in files]
        means.append(np.mean([j_and_f(masks[0], mask) for mask in masks[1:-1]], 0))
    j, f = np.mean(means, 0)
    print(f"davis: J&F {(j + f) / 2:.5f} J {j:.5f} F {f:.5f}")


def nearest(count, size):
    return np.floor((np.arange(count) + 0.5) * size / count).astype(int)


def segmentation():
    root, grid, classes = data / "voc2012-mini/VOCdevkit/VOC2012", 32, 21

    def masks(part):
        names = (root / f"ImageSets/Segmentation/{part}.txt").read_text().split()
        return [np.array(Image.open(root / f"SegmentationClass/{name}.png")) for name in names]

    train = [mask for place, mask in enumerate(masks("train")) if place % 10 != 9]
    small = [mask[nearest(grid, mask.shape[0])][:, nearest(grid, mask.shape[1])] for mask in train]
    counts = [sum((mask == label).astype(int) for mask in small) for label in range(classes)]
    best, confusion = np.argmax(counts, 0), np.zeros((classes, classes), int)
    for mask in masks("val"):
        found = best[nearest(mask.shape[0], grid)][:, nearest(mask.shape[1], grid)]
        known = mask != 255
        np.add.at(confusion, (mask[known], found[known]), 1)
    both = np.diag(confusion)
    either = confusion.sum(0) + confusion.sum(1) - both
    iou = both[either > 0] / either[either > 0]
    print(f"segmentation: mIoU {iou.mean():.5f} accuracy {both.sum() / confusion.sum():.5f}")


def depth():
    def maps(part):
        with tarfile.open(data / f"rgbd/{part}-0000.tar") as tar:
            members = [member for member in tar if member.name.endswith("depth.png")]
            files = [io.BytesIO(tar.extractfile(member).read()) for member in members]
        return [np.array(Image.open(file)).astype(float) / 1000 for file in files]

    def resized(values, size):
        values = torch.tensor(np.asarray(values, float))[None, None]
        return F.interpolate(values, size, mode="bilinear", align_corners=False)[0, 0].numpy()

    total, count = 0, 0
    for depths in maps("train"):
        small = resized(depths, (64, 64))
        known = (resized(depths <= 0, (64, 64)) == 0) & (small > 1e-3) & (small < 10)
        total, count = total + np.where(known, small, 0), count + known
    mean = np.where(count > 0, total / np.maximum(count, 1), total.sum() / count.sum())
    errors = []
    for depths in maps("test"):
        known = (depths > 1e-3) & (depths < 10)
        found = resized(mean, depths.shape)
        errors.append(np.sqrt(np.mean((found - depths)[known] ** 2)))
    print(f"depth: RMSE {np.mean(errors):.5f}")


for floor in (davis, segmentation, depth):
    floor()
