"""The contenders: fastact and its peers.  Adding one: a file here or in `networks`, a row below."""

from __future__ import annotations

import importlib
from typing import Any

from .base import NotAvailable

# name in tables: module and class
LAYERS = {
    "fastact C": "fastact_layers:FastactC",
    "fastact C high": "fastact_layers:FastactHigh",
    "fastact C medium": "fastact_layers:FastactMedium",
    "fastact Numba": "fastact_layers:FastactNumba",
    "naive NumPy": "fastact_layers:NaiveNumpy",
    "NumPy": "numpy_quick:QuickNumpy",
    "PyTorch": "pytorch:Eager",
    "torch.compile": "pytorch:Compiled",
    "Thinc": "thinc_ops:ThincOps",
    "JAX": "jax_jit:JaxJit",
}
FROZEN = {
    "fastact C": "fastact_layers:FrozenC",
    "fastact C bf16": "fastact_layers:FrozenBf16",
    "fastact Numba": "fastact_layers:FrozenNumba",
    "ONNX Runtime": "onnx_runtime:OnnxRuntime",
    "oneDNN": "onednn:OneDnn",  # loaded before OpenVINO, with whose older TBB Intel's OpenCL has no device
    "OpenVINO": "openvino_infer:OpenVino",
    "OpenVINO bf16": "openvino_infer:OpenVinoBf16",
    "torch.compile frozen": "pytorch_frozen:Frozen",
    "zentorch": "zentorch_frozen:Zentorch",
    "ExecuTorch": "executorch_xnnpack:ExecuTorch",
    "tract": "tract_onnx:Tract",
}
# the precision tiers beside PyTorch's, which are settings of the whole process
TIERS = {
    "fastact C": "fastact_layers:FastactC",
    "fastact C high": "fastact_layers:FastactHigh",
    "fastact C medium": "fastact_layers:FastactMedium",
    "PyTorch medium": "pytorch:EagerMedium",
    "torch.compile medium": "pytorch:CompiledMedium",
}
# whole networks
NETWORKS = {
    "fastact C": "networks.fastact_sequential:FastactC",
    "fastact C frozen": "networks.fastact_sequential:FrozenC",
    "accelerated": "networks.accelerated:Accelerated",
    "PyTorch": "networks.pytorch:Eager",
    "torch.compile": "networks.pytorch:Compiled",
    "torch.compile frozen": "networks.pytorch:Frozen",
    "JAX": "networks.jax_jit:JaxJit",
    "scikit-learn": "networks.scikit_learn:ScikitLearn",
    "naive NumPy": "networks.numpy_plain:NumpyPlain",
    "floor": "networks.floor:Floor",
}
TABLES = {"layers": LAYERS, "frozen": FROZEN, "tiers": TIERS}
PACKAGES = (
    *("numpy", "scipy", "numba", "torch", "thinc", "blis", "jax", "scikit-learn", "onnxruntime", "openvino"),
    *("onednn", "zentorch", "executorch", "tract"),
)
# how each rival computes a layer or a network, in a few words
DOES = {
    "naive NumPy": "OpenBLAS's product, and an array for each operation after it",
    "NumPy": "OpenBLAS's product, then one search for the winners, or the activation in place",
    "PyTorch": "MKL's product, then one or two passes",
    "torch.compile": "MKL's product, then one fused pass",
    "torch.compile frozen": "MKL's product on packed weights, then one fused pass, or a fused C++ product",
    "Thinc": "BLIS's product, then C++ loops",
    "JAX": "XLA's product on weights of (in_features, units), then one fused loop",
    "scikit-learn": "OpenBLAS's products, and an array for each operation after them",
    "ONNX Runtime": "MLAS's product on packed weights, then a pass, or relu in the product",
    "OpenVINO": "oneDNN's product on packed weights with the activation in it; for maxout a pass",
    "oneDNN": "a product on packed weights with the activation in it; for maxout a reduction",
    "zentorch": "ZenDNN's product, then one fused pass",
    "ExecuTorch": "XNNPACK's product on packed weights, then a pass",
    "tract": "its own product on packed weights, then a pass",
}


def load(where: str) -> Any:
    """The class at `where`, of Contender or NetworkContender; raises NotAvailable, saying what is lacking."""
    module, _, name = where.partition(":")
    try:
        found = getattr(importlib.import_module(f"{__name__}.{module}"), name)
    except ImportError as error:
        raise NotAvailable(f"not installed ({error})") from error
    found.require()
    return found
