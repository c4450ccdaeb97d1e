# /// script
# requires-python = ">=3.11"
# dependencies = [
#   "numpy", "torch", "safetensors", "scikit-learn", "scikit-image", "opencv-python-headless",
#   "scipy", "h5py",
# ]
# ///
"""Writes tests/golden/eval/: what public implementations make of the arrays that the tests of the
dense evaluations use.

    pipx run tests/scripts/make_eval_dense_golden.py tests/golden/eval

(or install the packages above and run it with python). In `dense.safetensors`, by prefix:

* `knn/`: scikit-learn's KNeighborsClassifier, cosine distance; equal votes for several k, and
  votes of exp((cosine - 1) / 0.07) for k = 10.
* `logistic/`: scikit-learn's LogisticRegression (C = 0.5, tol 1e-10): probabilities, parameters.
* `iou/`: scikit-learn's jaccard_score of each class and of their mean, void left out.
* `davis/`: J and F as davis2017-evaluation computes them (boundary by differences to the right,
  below and below right; OpenCV's dilate with scikit-image's disk), in this file's own words.
* `depth/`: the errors, in numpy.
* `sig/`, `entropy/`: losses and gradients by PyTorch's autograd in f64.
* `adam/`: a weight after steps of torch.optim.AdamW with gradients clipped by
  torch.nn.utils.clip_grad_norm_.
* `resize/`: F.interpolate, bilinear without aligned corners and nearest-exact.
* `propagate/`: DINO's label propagation with DIFT's temperature, in PyTorch.

Beside it the NYU Depth v2 labelled set in small (`labelled/`, MATLAB 7.3 with its user block and
compressed chunks, and splits.mat) and FastDepth's form of it (`fast-depth/`), by h5py and scipy.
"""

import sys
from pathlib import Path

import cv2
import h5py
import numpy as np
import scipy.io
import torch
import torch.nn.functional as F
from safetensors.numpy import save_file
from skimage.morphology import disk
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import jaccard_score
from sklearn.neighbors import KNeighborsClassifier

random = np.random.default_rng(11)
out = {}


def keep(name, value, kind=np.float32):
    out[name] = np.ascontiguousarray(np.asarray(value), dtype=kind)


def clusters(rows, channels, classes, spread):
    centres = random.normal(size=(classes, channels))
    labels = random.integers(0, classes, rows)
    return (centres[labels] + spread * random.normal(size=(rows, channels))).astype(np.float32), labels


def knn():
    x, y = clusters(180, 12, 6, 1.4)
    train, known, test = x[:120], y[:120], x[120:]
    keep("knn/train", train), keep("knn/classes", known), keep("knn/test", test)
    for k in (1, 5, 10, 20):
        model = KNeighborsClassifier(k, metric="cosine", algorithm="brute").fit(train, known)
        keep(f"knn/equal_{k}", model.predict(test))
    model = KNeighborsClassifier(10, metric="cosine", algorithm="brute",
                                 weights=lambda d: np.exp(-d / 0.07)).fit(train, known)
    keep("knn/weighted_10", model.predict(test))


def logistic():
    x, y = clusters(150, 9, 4, 1.5)
    keep("logistic/rows", x), keep("logistic/classes", y)
    model = LogisticRegression(C=0.5, tol=1e-10, max_iter=10000).fit(x.astype(np.float64), y)
    keep("logistic/weight", model.coef_), keep("logistic/probabilities", model.predict_proba(x))


def iou():
    truth, found = random.integers(0, 5, 400), random.integers(0, 5, 400)
    found = np.where(random.random(400) < 0.5, truth, found)
    void = random.random(400) < 0.1
    keep("iou/truth", np.where(void, 255, truth)), keep("iou/found", found)
    t, f = truth[~void], found[~void]
    keep("iou/classes", jaccard_score(t, f, average=None, labels=range(5)), np.float32)
    keep("iou/mean", [jaccard_score(t, f, average="macro", labels=range(5))])


def boundary(mask):
    """Where the mask differs from its neighbour to the right, below, or below right."""
    padded = np.pad(mask, ((0, 1), (0, 1)), mode="edge")
    here, right, below, corner = padded[:-1, :-1], padded[:-1, 1:], padded[1:, :-1], padded[1:, 1:]
    edge = (here != right) | (here != below) | (here != corner)
    edge[-1, :] = here[-1, :] != right[-1, :]
    edge[:, -1] = here[:, -1] != below[:, -1]
    edge[-1, -1] = False
    return edge


def j_and_f(found, truth):
    union = (found | truth).sum()
    j = 1.0 if union == 0 else (found & truth).sum() / union
    radius = int(np.ceil(0.008 * np.linalg.norm(found.shape)))
    element = disk(radius).astype(np.uint8)
    a, b = boundary(found), boundary(truth)
    wide_a, wide_b = (cv2.dilate(edge.astype(np.uint8), element) > 0 for edge in (a, b))
    if a.sum() == 0 and b.sum() == 0:
        precision = recall = 1.0
    elif a.sum() == 0:
        precision, recall = 1.0, 0.0
    elif b.sum() == 0:
        precision, recall = 0.0, 1.0
    else:
        precision, recall = (a & wide_b).sum() / a.sum(), (b & wide_a).sum() / b.sum()
    f = 0.0 if precision + recall == 0 else 2 * precision * recall / (precision + recall)
    return j, f


def blob(width, height):
    field = cv2.GaussianBlur(random.normal(size=(height, width)), (0, 0), 9)
    return field > np.quantile(field, 0.6)


def davis():
    width, height, count = 160, 90, 5
    truths, founds, measures = [], [], []
    for index in range(count):
        truth = blob(width, height)
        found = np.roll(truth, (index, 2 * index), (0, 1)) ^ (random.random(truth.shape) < 0.002 * index)
        if index == 4:
            found[:] = False
        truths.append(truth), founds.append(found), measures.append(j_and_f(found, truth))
    keep("davis/truth", truths, np.float16), keep("davis/found", founds, np.float16)
    keep("davis/measures", measures)


def depth():
    truth = random.uniform(0.5, 9.5, (40, 50)).astype(np.float32)
    truth[random.random(truth.shape) < 0.1] = 0
    found = np.clip(truth * np.exp(0.3 * random.normal(size=truth.shape)) + 0.05, 1e-3, 10)
    found = found.astype(np.float32)
    keep("depth/truth", truth), keep("depth/found", found)
    t, f = truth[truth > 1e-3].astype(np.float64), found[truth > 1e-3].astype(np.float64)
    ratio = np.maximum(t / f, f / t)
    keep("depth/errors", [np.sqrt(np.mean((t - f) ** 2)), np.mean(np.abs(t - f) / t),
                          np.mean(np.abs(np.log10(t) - np.log10(f)))]
         + [np.mean(ratio < 1.25**n) for n in (1, 2, 3)])


def losses():
    bins = torch.linspace(0.1, 10, 256, dtype=torch.float64)
    logits = torch.tensor(random.normal(size=(30, 256)) * 0.5, dtype=torch.float32)
    target = torch.tensor(random.uniform(0.5, 9.5, 30), dtype=torch.float32)
    keep("sig/logits", logits), keep("sig/target", target)
    z = logits.double().requires_grad_()
    p = torch.relu(z) + 0.1
    d = (p / p.sum(1, keepdim=True)) @ bins
    keep("sig/depths", d.detach())
    g = torch.log(d + 1e-3) - torch.log(target.double() + 1e-3)
    for name, loss in (("full", torch.sqrt(torch.var(g) + 0.15 * torch.mean(g) ** 2)),
                       ("warm", torch.sqrt(0.15 * torch.mean(g) ** 2))):
        (slope,) = torch.autograd.grad(loss, z, retain_graph=True)
        keep(f"sig/{name}", [loss.item()]), keep(f"sig/{name}_gradient", slope)
    z = torch.tensor(random.normal(size=(20, 7)) * 3, dtype=torch.float32)
    classes = torch.tensor(random.integers(0, 7, 20))
    keep("entropy/logits", z), keep("entropy/classes", classes)
    z = z.double().requires_grad_()
    loss = F.cross_entropy(z, classes)
    loss.backward()
    keep("entropy/loss", [loss.item()]), keep("entropy/gradient", z.grad)


def adam():
    """Cross-entropy on fixed cells, full batches, constant rate, as the probes are trained."""
    cells = torch.tensor(random.normal(size=(24, 5)), dtype=torch.float32)
    classes = torch.tensor(random.integers(0, 3, 24))
    weight = torch.tensor(random.normal(size=(3, 5)) * 0.3, dtype=torch.float32)
    bias = torch.tensor(random.normal(size=3) * 0.3, dtype=torch.float32)
    keep("adam/cells", cells), keep("adam/classes", classes)
    keep("adam/weight", weight), keep("adam/bias", bias)
    weight, bias = (v.double().requires_grad_() for v in (weight, bias))
    optimiser = torch.optim.AdamW([weight, bias], lr=0.02, weight_decay=0.3)
    for _ in range(30):
        optimiser.zero_grad()
        F.cross_entropy(cells.double() @ weight.T + bias, classes).backward()
        torch.nn.utils.clip_grad_norm_([weight, bias], 0.2)
        optimiser.step()
    keep("adam/trained_weight", weight.detach()), keep("adam/trained_bias", bias.detach())


def resize():
    """In f64: in f32 PyTorch rounds positions, too."""
    def draw(name, values):
        values = torch.tensor(values, dtype=torch.float32)
        keep(f"resize/{name}", values[0, 0])
        return values.double()

    def linear(values, size):
        return F.interpolate(values, size, mode="bilinear", align_corners=False)[0, 0]

    cells = draw("cells", random.normal(size=(1, 1, 6, 9)))
    keep("resize/bilinear", linear(cells, (31, 50)))
    keep("resize/nearest", F.interpolate(cells, (31, 50), mode="nearest-exact")[0, 0])
    pixels = draw("pixels", random.uniform(1, 5, size=(1, 1, 37, 53)))
    keep("resize/shrunk", linear(pixels, (6, 9)))
    keep("resize/shrunk_nearest", F.interpolate(pixels, (6, 9), mode="nearest-exact")[0, 0])


def propagate():
    frames, channels, height, width, objects = 6, 10, 7, 9, 3
    temperature, top, previous, radius = 0.2, 5, 2, 2
    maps = random.normal(size=(1, channels, height, width))
    maps = np.concatenate([np.roll(maps, i, 3) + 0.4 * random.normal(size=maps.shape) for i in range(frames)])
    keep("propagate/maps", maps.transpose(0, 2, 3, 1))
    maps = torch.tensor(maps.astype(np.float32)).double()
    first = torch.tensor(random.integers(0, objects, (height, width)))
    keep("propagate/first", first)
    first = F.one_hot(first, objects).permute(2, 0, 1).double()
    features = [F.normalize(m.flatten(1), dim=0) for m in maps]
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    y, x = y.flatten(), x.flatten()
    near = ((y[:, None] - y).abs() <= radius) & ((x[:, None] - x).abs() <= radius)
    queue, found = [], []
    for target in features[1:]:
        context = [(features[0], first.flatten(1))] + queue
        weights = torch.cat([torch.exp(source.T @ target / temperature) * near for source, _ in context])
        least = weights.topk(top, dim=0).values.min(0).values
        weights = torch.where(weights < least, 0, weights)
        weights = weights / weights.sum(0, keepdim=True)
        shares = torch.cat([s for _, s in context], 1) @ weights
        found.append(shares.T.reshape(height, width, objects))
        queue = (queue + [(target, shares)])[-previous:]
    keep("propagate/found", torch.stack(found))


def nyu(folder):
    """Three pictures of 6x4 pixels."""
    count, width, height = 3, 6, 4
    labelled = folder / "labelled"
    labelled.mkdir(exist_ok=True)
    images = random.integers(0, 256, (count, 3, width, height), dtype=np.uint8)
    depths = random.uniform(0.7, 9.9, (count, width, height)).astype(np.float32)
    path = labelled / "nyu_depth_v2_labeled.mat"
    with h5py.File(path, "w", userblock_size=512, libver="earliest") as file:
        options = {"compression": "gzip", "shuffle": False}
        file.create_dataset("images", data=images, chunks=(1, 3, width, height), **options)
        file.create_dataset("depths", data=depths, chunks=(1, width, height), **options)
    with open(path, "r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file".ljust(124) + bytes([0, 2]) + b"IM")
    scipy.io.savemat(labelled / "splits.mat", {
        "trainNdxs": np.array([[1], [3]], dtype=np.uint16),
        "testNdxs": np.array([[2]], dtype=np.uint16)}, do_compression=True)
    keep("nyu/images", images.transpose(0, 3, 2, 1)), keep("nyu/depths", depths.transpose(0, 2, 1))
    for place, index in (("train/kitchen/00001.h5", 0), ("val/official/00002.h5", 1)):
        path = folder / "fast-depth" / place
        path.parent.mkdir(parents=True, exist_ok=True)
        with h5py.File(path, "w") as file:
            file["rgb"] = images[index].transpose(0, 2, 1)
            file["depth"] = depths[index].T


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for part in (knn, logistic, iou, davis, depth, losses, adam, resize, propagate):
        part()
    nyu(folder)
    save_file(out, folder / "dense.safetensors")
