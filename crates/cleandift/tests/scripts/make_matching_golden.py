"""Writes tests/golden/matching/procedure.safetensors: correspondence as published, in PyTorch.

    python tests/scripts/make_matching_golden.py tests/golden/matching/procedure.safetensors

Needs torch and safetensors. Per case, from random features (f32, [1, c, h, w]):

* `match_xy`, `similarity`: DIFT's procedure, which CleanDIFT's notebook and evaluation use: both
  maps by F.interpolate(bilinear) to the pictures' sizes, F.normalize, matmul, arg-max. In f32.
* `soft_xy`: the window soft arg-max of "Telling Left from Right" (window 5, temperature 0.02),
  in cells of the target, from the source cell that holds the point. In f64.
"""

import sys

import torch
import torch.nn.functional as F
from safetensors.torch import save_file

# name: channels, source map (w, h), target map, source picture, target picture, common part
CASES = {
    "upright": (16, (12, 12), (12, 12), (50, 37), (33, 64), 0.0),
    "tiny-pictures": (8, (9, 9), (9, 9), (5, 3), (4, 7), 0.0),
    "one-pixel-source": (8, (6, 6), (6, 6), (1, 1), (40, 1), 0.0),
    "odd-maps": (12, (7, 11), (13, 5), (101, 29), (37, 211), 0.0),
    "one-row": (8, (15, 1), (1, 14), (60, 9), (8, 61), 0.0),
    "cell-per-pixel": (8, (10, 8), (11, 9), (10, 8), (11, 9), 0.0),
    "alike": (16, (14, 14), (16, 15), (71, 90), (160, 119), 4.0),
    "many-channels": (48, (8, 8), (10, 10), (64, 48), (75, 100), 0.5),
}
POINTS = 24
WINDOW, TEMPERATURE = 5, 0.02


def published(source, target, source_size, target_size, points):
    (sw, sh), (tw, th) = source_size, target_size
    source = F.interpolate(source, (sh, sw), mode="bilinear")[0]
    target = F.interpolate(target, (th, tw), mode="bilinear")[0]
    query = F.normalize(source[:, points[:, 1], points[:, 0]].T, dim=-1)
    similarity = query @ F.normalize(target, dim=0).flatten(1)
    best = similarity.argmax(-1)
    return torch.stack([best % tw, best // tw], -1), similarity.max(-1).values


def soft(source, target, source_size, points):
    (_, _, sh, sw), (_, channels, h, w) = source.shape, target.shape
    # With a whole number of pixels a cell this is upstream's int(cells / pixels * x).
    column = ((points[:, 0].double() + 0.5) * sw / source_size[0]).long()
    row = ((points[:, 1].double() + 0.5) * sh / source_size[1]).long()
    query = F.normalize(source[0, :, row, column].T, dim=-1)
    similarity = (query @ F.normalize(target[0], dim=0).flatten(1)).view(-1, h, w)
    found = []
    for of_point in similarity:
        best = of_point.argmax()
        y, x = best // w, best % w
        kept = torch.zeros_like(of_point)
        rows = slice(max(y - WINDOW, 0), y + WINDOW + 1)
        columns = slice(max(x - WINDOW, 0), x + WINDOW + 1)
        kept[rows, columns] = of_point[rows, columns]
        weight = torch.exp((kept - kept.max()) / TEMPERATURE)
        weight = weight / weight.sum()
        expected = []
        for n, marginal in ((w, weight.sum(0)), (h, weight.sum(1))):
            value = (marginal * torch.linspace(-1, 1, n, dtype=weight.dtype)).sum()
            expected.append(((value + 1) * (n - 1) / 2).clamp(0, n - 1))
        found.append(torch.stack(expected))
    return torch.stack(found)


def main(path):
    torch.set_num_threads(1)
    torch.manual_seed(7)
    tensors = {}
    for name, (channels, smap, tmap, ssize, tsize, common) in CASES.items():
        shared = common * torch.randn(1, channels, 1, 1)
        source = torch.randn(1, channels, smap[1], smap[0]) + shared
        target = torch.randn(1, channels, tmap[1], tmap[0]) + shared
        points = torch.stack([torch.randint(n, (POINTS,)) for n in ssize], -1)
        points[0], points[1] = torch.tensor([0, 0]), torch.tensor(ssize) - 1
        match, similarity = published(source, target, ssize, tsize, points)
        tensors |= {
            f"{name}/source": source,
            f"{name}/target": target,
            f"{name}/sizes": torch.tensor([*ssize, *tsize]),
            f"{name}/points_xy": points,
            f"{name}/match_xy": match,
            f"{name}/similarity": similarity,
            f"{name}/soft_xy": soft(source.double(), target.double(), ssize, points),
        }
    save_file(tensors, path, {"torch": torch.__version__})


main(sys.argv[1])
