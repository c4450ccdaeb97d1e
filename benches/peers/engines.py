"""The other engines, one class each: `load` prepares a stage, the function it returns runs it.

A function gives the stage's result as a numpy array in f32, so that results can be compared.
"""

import os
from pathlib import Path

import torch


class Torch:
    """PyTorch with oneDNN and its own attention."""

    stages = ("encoder", "unet")
    precisions = ("f32", "bf16")
    memory_format = torch.contiguous_format
    compiled = False

    def __init__(self, threads: int, precision: str, cache: Path):
        torch.set_num_threads(threads)
        self.dtype = {"f32": torch.float32, "bf16": torch.bfloat16}[precision]

    def load(self, name, module, inputs):
        module = module.to(self.dtype).to(memory_format=self.memory_format)
        values = [value.to(self.dtype) for value in inputs.values()]
        values[0] = values[0].contiguous(memory_format=self.memory_format)
        if self.compiled:
            module = torch.compile(module)

        def run():
            with torch.inference_mode():
                return module(*values).float().numpy()

        return run


class TorchChannelsLast(Torch):
    """The same with `[row][column][channel]` in memory."""

    memory_format = torch.channels_last


class TorchCompiled(TorchChannelsLast):
    """The same through `torch.compile`, which needs a C++ compiler."""

    compiled = True


def onnx_file(cache: Path, name: str, module, inputs) -> Path:
    """The stage as an ONNX file, weights beside it."""
    file = cache / name / "model.onnx"
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        partial = file.with_suffix(".partial")
        with torch.inference_mode():
            torch.onnx.export(
                module,
                tuple(inputs.values()),
                str(partial),
                input_names=list(inputs),
                output_names=["output"],
                opset_version=18,
                dynamo=False,
            )
        partial.rename(file)
    return file


class OnnxRuntime:
    """ONNX Runtime's CPU provider (MLAS)."""

    stages = ("encoder", "unet")
    precisions = ("f32",)

    def __init__(self, threads: int, precision: str, cache: Path):
        self.threads, self.cache = threads, cache

    def load(self, name, module, inputs):
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.threads
        # Threads that wait for more work would take the cores from the engine whose turn it is.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        file = onnx_file(self.cache, name, module, inputs)
        session = onnxruntime.InferenceSession(
            str(file), options, providers=["CPUExecutionProvider"]
        )
        values = {key: value.numpy() for key, value in inputs.items()}
        return lambda: session.run(None, values)[0]


class OpenVino:
    """OpenVINO's CPU plugin, static shapes, tuned for latency."""

    stages = ("encoder", "unet")
    precisions = ("f32", "bf16")

    def __init__(self, threads: int, precision: str, cache: Path):
        self.threads, self.precision, self.cache = threads, precision, cache

    def load(self, name, module, inputs):
        import openvino

        core = openvino.Core()
        settings = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": self.precision,
            "INFERENCE_NUM_THREADS": self.threads,
        }
        file = onnx_file(self.cache, name, module, inputs)
        compiled = core.compile_model(core.read_model(file), "CPU", settings)
        values = [value.numpy() for value in inputs.values()]
        return lambda: compiled(values)[0]


class Ncnn:
    """ncnn, which has Winograd's algorithm on AVX2: the encoder, which is mostly convolutions."""

    stages = ("encoder",)
    precisions = ("f32",)

    def __init__(self, threads: int, precision: str, cache: Path):
        self.threads, self.cache = threads, cache

    def load(self, name, module, inputs):
        import ncnn
        import pnnx

        folder = self.cache / (name + "-ncnn")
        files = [folder / "model.ncnn.param", folder / "model.ncnn.bin"]
        if not all(file.exists() for file in files):
            folder.mkdir(parents=True, exist_ok=True)
            here = os.getcwd()
            os.chdir(folder)
            try:
                values = tuple(inputs.values())
                pnnx.export(module, "model.pt", values, fp16=False, check_trace=False)
            finally:
                os.chdir(here)
        net = ncnn.Net()
        net.opt.num_threads = self.threads
        for half in ("fp16_packed", "fp16_storage", "fp16_arithmetic", "bf16_storage"):
            setattr(net.opt, f"use_{half}", False)
        for load, file in zip((net.load_param, net.load_model), files):
            if load(str(file)) != 0:
                raise RuntimeError(f"ncnn cannot load {file}")
        (value,) = [value.numpy()[0] for value in inputs.values()]

        def run():
            with net.create_extractor() as extractor:
                extractor.input("in0", ncnn.Mat(value))
                status, output = extractor.extract("out0")
                if status != 0:
                    raise RuntimeError("ncnn could not run the network")
                return output.numpy()[None]

        return run


ENGINES = {
    "torch": Torch,
    "torch-channels-last": TorchChannelsLast,
    "torch-compiled": TorchCompiled,
    "onnxruntime": OnnxRuntime,
    "openvino": OpenVino,
    "ncnn": Ncnn,
}

# The environment that keeps an engine to an instruction set.
LIMITS = {
    "avx2": {
        "ATEN_CPU_CAPABILITY": "avx2",
        "DNNL_MAX_CPU_ISA": "AVX2",
        "MKL_ENABLE_INSTRUCTIONS": "AVX2",
        "ONEDNN_MAX_CPU_ISA": "AVX2",
    },
    "avx512": {
        "DNNL_MAX_CPU_ISA": "AVX512_CORE_BF16",
        "ONEDNN_MAX_CPU_ISA": "AVX512_CORE_BF16",
    },
}

# Those that nothing keeps to an instruction set.
UNLIMITED = ("onnxruntime", "ncnn")
