# /// script
# requires-python = ">=3.11"
# dependencies = ["numpy", "torch", "safetensors"]
# ///
"""Writes tests/golden/eval/components.safetensors: "A Tale of Two Features" (arXiv 2305.15347) on
random maps, with the exact principal components where its code has torch.pca_lowrank's.

    pipx run tests/scripts/make_components_golden.py tests/golden/eval

`source/us8`, `source/us5`, `source/us2` and the target's are maps [h, w, c]. Each level's cells of
both pictures, less their mean, are projected onto their 8 strongest components; us2 is brought to
us5's grid, both to us8's, all joined. `cosines` [cell of the source, cell of the target] are those
of every fifth cell of the source with all of the target, in f64.
"""

import sys
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.numpy import save_file

torch.manual_seed(11)
COUNT = 8
LEVELS = {"us8": (12, 14, 20), "us5": (6, 7, 40), "us2": (3, 4, 40)}


def level(height, width, channels):
    """Smooth, with an offset and with directions of which each is weaker than the one before."""
    coarse = torch.randn(1, channels, height // 2 + 1, width // 2 + 1)
    fine = F.interpolate(coarse, size=(height, width), mode="bilinear") + 0.2 * torch.randn(1, channels, height, width)
    return fine


def mix(channels):
    rotation = torch.linalg.qr(torch.randn(channels, channels))[0]
    return torch.diag(0.6 ** torch.arange(channels).float()) @ rotation, 0.5 * torch.randn(channels)


maps = {"source": {}, "target": {}}
for tap, shape in LEVELS.items():
    matrix, offset = mix(shape[2])
    for picture in maps:
        maps[picture][tap] = (level(*shape)[0].permute(1, 2, 0) @ matrix + offset).contiguous()

reduced = {"source": {}, "target": {}}
for tap in LEVELS:
    both = [maps[picture][tap].double() for picture in maps]
    cells = torch.cat([m.flatten(0, 1) for m in both])
    mean = cells.mean(0)
    directions = torch.linalg.svd(cells - mean)[2][:COUNT]
    for picture, m in zip(maps, both):
        reduced[picture][tap] = ((m - mean) @ directions.T).permute(2, 0, 1)[None]

joined = {}
for picture, m in reduced.items():
    up = lambda x, to: F.interpolate(x, size=to.shape[-2:], mode="bilinear")
    coarse = torch.cat([m["us5"], up(m["us2"], m["us5"])], 1)
    fine = torch.cat([m["us8"], up(coarse, m["us8"])], 1)
    joined[picture] = F.normalize(fine[0].flatten(1).T, dim=1)

out = {f"{picture}/{tap}": m.numpy() for picture, level in maps.items() for tap, m in level.items()}
out["cosines"] = (joined["source"][::5] @ joined["target"].T).float().numpy()
save_file({name: np.ascontiguousarray(value) for name, value in out.items()}, Path(sys.argv[1]) / "components.safetensors")
