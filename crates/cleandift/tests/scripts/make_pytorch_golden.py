"""Writes golden/pytorch: small files of PyTorch's, in both of its forms, as torch.save makes them.

python make_pytorch_golden.py FOLDER      (torch 2.15)
"""
import collections
import sys

import torch

folder = sys.argv[1]
values = torch.arange(24, dtype=torch.float32) / 4 - 3
tensors = collections.OrderedDict(
    single=values.reshape(2, 3, 4),
    half=values[:6].half().reshape(3, 2),
    brain=values[:5].bfloat16(),
    scalar=torch.tensor(261.0),
    view=values[4:10].reshape(2, 3),  # shares its storage with `single`
    empty=torch.zeros(0, 4),
    positions=torch.arange(7)[None],
)
tensors["parameter"] = torch.nn.Parameter(values[:4].clone())
checkpoint = {"epoch": 6, "lr": 1e-5, "state_dict": tensors, "optimizer_states": [{"state": {0: {"exp_avg": values[:3].double()}}}], "callbacks": {collections.OrderedDict: {"best": None}}}
torch.save(checkpoint, f"{folder}/zip.ckpt")
torch.save(checkpoint, f"{folder}/legacy.ckpt", _use_new_zipfile_serialization=False)
torch.save(dict(tensors), f"{folder}/plain.bin")
last = values.reshape(2, 3, 2, 2).to(memory_format=torch.channels_last)
torch.save(
    {"model": {"turned": values.reshape(4, 6).t(), "channels_last": last, "complex": values * 1j}},
    f"{folder}/transposed.bin",
)
torch.save({"gaps": values.reshape(4, 6)[:, :3]}, f"{folder}/gaps.bin")
