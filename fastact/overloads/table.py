"""The table of the functions that nopython code can call: their arrays, results and kernels.

A shape is the names of its sizes.  "..." stands for any sizes, the same ones in each array of a function;
"before pieces after" for those of "before after" with an axis of pieces among them, at the argument `axis`.
" or None" marks an array that may be left out.  Names and defaults of the arguments are those of the public
function.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from .. import elementwise, nn, ops
from ..activations import NAMES, TABLE


class Function(NamedTuple):
    """A public function that nopython code can call."""

    public: Callable[..., Any]
    kernel: str  # its name in csrc/api/fastact.h without fa_, and in backends/numba/calls.py
    arguments: (
        str  # of that kernel, in order; in C, `dtype` stands before them, threads and precision after them
    )
    inputs: Mapping[str, str]  # the shape of each array, the one that defines a size first
    results: Mapping[str, str] = {}
    keep: str = ""  # the flag that, as False, leaves out the second result
    in_place: tuple[str, ...] = ()  # the inputs that the first array of `out` may be
    precision: bool = False  # whether the kernel takes a tier
    loss: str = ""  # how the kernel gives a loss: "returned" or "stored"
    finish: str = ""  # a function of support.py that corrects the loss
    activation: str = ""  # the one activation of this function


_MAXOUT_WEIGHT = "out_features pieces in_features"
_ACTIVATION = "code parameter slope slopes"
_FORWARD = {"z": "..."}


def _activation(public: Callable[..., Any], name: str = "") -> Function:
    arguments = f"rows features {_ACTIVATION} z y"
    return Function(public, "activation", arguments, _FORWARD, {"y": "..."}, in_place=("z",), activation=name)


def _activation_backward(public: Callable[..., Any], name: str = "") -> Function:
    saved = TABLE[name].saves if name else "saved"
    return Function(
        public,
        "activation_backward",
        f"rows features {_ACTIVATION} grad_y {saved} grad_z grad_slope accumulate",
        {"grad_y": "...", saved: "..."},
        {"grad_z": "...", "grad_slope": "slopes"},
        in_place=("grad_y", saved),
        activation=name,
    )


FUNCTIONS = (
    Function(
        ops.linear_maxout,
        "linear_maxout",
        "rows in_features out_features pieces x weight bias y argmax",
        {"weight": _MAXOUT_WEIGHT, "x": "... in_features", "bias": "out_features pieces or None"},
        {"y": "... out_features", "argmax": "... out_features"},
        keep="return_argmax",
        precision=True,
    ),
    Function(
        ops.linear_maxout_backward,
        "linear_maxout_backward",
        "rows in_features out_features pieces grad_y x weight argmax grad_x grad_weight grad_bias accumulate",
        {
            "weight": _MAXOUT_WEIGHT,
            "x": "... in_features",
            "grad_y": "... out_features",
            "argmax": "... out_features",
        },
        {"grad_x": "... in_features", "grad_weight": _MAXOUT_WEIGHT, "grad_bias": "out_features pieces"},
        precision=True,
    ),
    Function(
        ops.maxout,
        "maxout",
        "outer pieces inner z y argmax",
        {"z": "before pieces after"},
        {"y": "before after", "argmax": "before after"},
        keep="return_argmax",
    ),
    Function(
        ops.maxout_backward,
        "maxout_backward",
        "outer pieces inner grad_y argmax grad_z",
        {"grad_y": "before after", "argmax": "before after"},
        {"grad_z": "before pieces after"},
    ),
    Function(
        ops.linear_activation,
        "linear_activation",
        f"rows in_features out_features {_ACTIVATION} x weight bias y saved",
        {"weight": "out_features in_features", "x": "... in_features", "bias": "out_features or None"},
        {"y": "... out_features", "saved": "... out_features"},
        keep="return_saved",
        precision=True,
    ),
    Function(
        ops.linear_activation_backward,
        "linear_activation_backward",
        f"rows in_features out_features {_ACTIVATION} grad_y x weight saved "
        "grad_x grad_weight grad_bias grad_slope accumulate",
        {
            "weight": "out_features in_features",
            "x": "... in_features",
            "grad_y": "... out_features",
            "saved": "... out_features",
        },
        {
            "grad_x": "... in_features",
            "grad_weight": "out_features in_features",
            "grad_bias": "out_features",
            "grad_slope": "slopes",
        },
        precision=True,
    ),
    Function(
        ops.layer_norm,
        "layer_norm",
        "rows features eps x weight bias y saved",
        {"x": "... features", "weight": "features or None", "bias": "features or None"},
        {"y": "... features", "saved": "... 2"},
        keep="return_saved",
    ),
    Function(
        ops.layer_norm_backward,
        "layer_norm_backward",
        "rows features grad_y x weight saved grad_x grad_weight grad_bias accumulate",
        {"x": "... features", "weight": "features or None", "grad_y": "... features", "saved": "... 2"},
        {"grad_x": "... features", "grad_weight": "features", "grad_bias": "features"},
    ),
    _activation(ops.activation),
    _activation_backward(ops.activation_backward),
    *(_activation(getattr(elementwise, name), name) for name in NAMES),
    *(_activation_backward(getattr(elementwise, f"{name}_backward"), name) for name in NAMES),
    Function(
        nn.softmax_cross_entropy,
        "softmax_cross_entropy",
        "rows classes logits labels label_smoothing ignore_index grad loss",
        {"logits": "... classes", "labels": "..."},
        {"grad": "... classes"},
        loss="stored",
    ),
    Function(
        nn.mse,
        "mse",
        "size y target grad",
        {"y": "...", "target": "..."},
        {"grad": "..."},
        loss="returned",
        finish="scaled_mse",
    ),
    Function(
        nn.binary_cross_entropy_with_logits,
        "binary_cross_entropy",
        "size logits target grad",
        {"logits": "...", "target": "..."},
        {"grad": "..."},
        loss="returned",
    ),
    Function(
        nn.huber,
        "huber",
        "size y target delta grad",
        {"y": "...", "target": "..."},
        {"grad": "..."},
        loss="returned",
    ),
    Function(nn.max_norm_, "max_norm", "rows in_features max_norm weight", {"weight": "... in_features"}),
)
