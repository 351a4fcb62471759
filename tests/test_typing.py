"""Type checkers find misspelt names, know the types of results, and pass README's examples."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"

# A type checker has to find each line that is marked "wrong", and no other.
NAMES = """
from typing import Any

import numpy as np
from typing_extensions import assert_type

import fastact as fa

Array = np.ndarray[Any, Any]
x: Array = np.ones((2, 3), np.float32)
weight: Array = np.ones((4, 2, 3), np.float32)
flat: Array = np.ones((4, 3), np.float32)
grad: Array = np.ones((2, 4), np.float32)
argmax: Array = np.zeros((2, 4), np.uint8)
slope: Array = np.ones(1, np.float32)
flag = bool(x.size)

# ---- names

fa.activation(x, "gelu", approximate="tanh")
fa.activation(x, "linear")
fa.activation(x, "swish")  # wrong
fa.activation(x, "gelu", approximate="erf")  # wrong
fa.activation(x, "elu", aplha=1.0)  # wrong
fa.activation_backward(x, x, "swish")  # wrong
fa.linear_activation(x, flat, None, "silu")
fa.linear_activation(x, flat, None, "swish")  # wrong
fa.linear_activation(x, flat, activation="gelu_tanh")  # wrong
fa.linear_activation_backward(grad, x, flat, grad, "swish")  # wrong
fa.gelu(x, "tanh")
fa.gelu(x, "erf")  # wrong
fa.gelu_backward(x, x, approximate="erf")  # wrong
fa.Linear(3, 4, activation="prelu", slope=[0.1, 0.2, 0.3, 0.4])
fa.Linear(3, 4, activation="swish")  # wrong
fa.Linear(3, 4, activation="gelu", approximate="erf")  # wrong
fa.Activation("relu6")
fa.Activation("swish")  # wrong
fa.Activation("prelu")  # wrong
fa.reluu(x)  # wrong
twice = fa.custom_activation("twice", lambda z: 2 * z, lambda z: 2.0)
fa.custom_activation("twice", lambda z: 2 * z, lambda z: 2.0, saves="x")  # wrong
fa.activation(x, twice, parameter=1.0)
fa.linear_activation(x, flat, None, twice)
fa.Linear(3, 4, activation=twice)
fa.Activation(twice)
assert_type(fa.check_gradient(twice, x), fa.GradientCheck)

fa.set_float32_matmul_precision("medium")
fa.set_float32_matmul_precision("low")  # wrong
fa.linear_maxout(x, weight, precision="low")  # wrong
fa.linear_maxout_backward(grad, x, weight, argmax, precision="low")  # wrong
fa.linear_activation(x, flat, precision="low")  # wrong
fa.linear_activation_backward(grad, x, flat, grad, precision="low")  # wrong
fa.Linear(3, 4, precision="low")  # wrong
fa.Maxout(3, 4, precision="high")
fa.Maxout(3, 4, precision="low")  # wrong
fa.freeze(fa.Linear(3, 4), "low")  # wrong
with fa.float32_matmul_precision("low"):  # wrong
    pass

fa.set_backend("numba")
fa.set_backend("gpu")  # wrong
fa.maxout(x, backend="gpu")  # wrong
fa.maxout_backward(grad, argmax, 2, backend="gpu")  # wrong
fa.linear_maxout(x, weight, backend="gpu")  # wrong
fa.relu(x, backend="c")
fa.relu(x, backend="gpu")  # wrong
fa.relu_backward(x, x, backend="gpu")  # wrong
fa.freeze(fa.Linear(3, 4), backend="gpu")  # wrong

# ---- results

assert_type(fa.linear_maxout(x, weight), tuple[Array, Array])
assert_type(fa.linear_maxout(x, weight, return_argmax=False), tuple[Array, None])
assert_type(fa.linear_maxout(x, weight, return_argmax=flag), tuple[Array, Array | None])
assert_type(fa.maxout(x), tuple[Array, Array])
assert_type(fa.maxout(x, return_argmax=False), tuple[Array, None])
assert_type(fa.maxout(x, return_argmax=flag), tuple[Array, Array | None])
assert_type(fa.linear_activation(x, flat), tuple[Array, Array])
assert_type(fa.linear_activation(x, flat, None, "gelu", return_saved=False), tuple[Array, None])
assert_type(fa.linear_activation(x, flat, return_saved=flag), tuple[Array, Array | None])
assert_type(fa.layer_norm(x), tuple[Array, Array])
assert_type(fa.layer_norm(x, slope, slope, 1e-6, return_saved=False), tuple[Array, None])
assert_type(fa.layer_norm(x, return_saved=flag), tuple[Array, Array | None])
fa.linear_maxout(x, weight, return_argmax=False)[1].sum()  # wrong

assert_type(fa.linear_maxout_backward(grad, x, weight, argmax), tuple[Array, Array, Array])
some = fa.linear_maxout_backward(grad, x, weight, argmax, needs=(False, True, True))
assert_type(some, tuple[Array | None, Array | None, Array | None])
some[0].sum()  # wrong
assert_type(fa.linear_activation_backward(grad, x, flat, grad), tuple[Array, Array, Array])
three = fa.linear_activation_backward(grad, x, flat, grad, "tanh", needs=(True, True, False))
assert_type(three, tuple[Array | None, Array | None, Array | None])
four = fa.linear_activation_backward(grad, x, flat, grad, "prelu", slope=slope)
assert_type(four, tuple[Array, Array, Array, Array])
fa.linear_activation_backward(grad, x, flat, grad, "prelu", slope=slope, needs=(True,) * 4)[3].sum()  # wrong
assert_type(fa.layer_norm_backward(grad, x, None, grad), tuple[Array, Array, Array])
norm = fa.layer_norm_backward(grad, x, slope, grad, needs=(True, True, False))
assert_type(norm, tuple[Array | None, Array | None, Array | None])
assert_type(fa.activation(x, "prelu", slope=slope), Array)
assert_type(fa.activation_backward(x, x, "relu"), Array)
assert_type(fa.activation_backward(x, x, "prelu", slope=slope), tuple[Array, Array])
assert_type(fa.maxout_backward(grad, argmax, 2), Array)
assert_type(fa.clip_grad_norm_(fa.Linear(3, 4).parameters(), 1.0), float)
assert_type(fa.clip_grad_norm_(fa.Linear(3, 4).weight, 1), float)
"""

# Declarations of the names that README's examples take as given.
GIVEN = """# mypy: allow-redefinition
from collections.abc import Iterable
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
batches: Iterable[tuple[Array, Array]] = []
x = weight = bias = grad_y = weight2d = bias1d = np.ones(1, np.float32)
existing_model: Any = None
linear: Any = None
"""


def run_mypy(folder):
    """The lines of each file of the folder at which mypy finds something, with what it says."""
    command = [sys.executable, "-m", "mypy", "--config-file", "pyproject.toml", *folder.glob("*.py")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    found = re.findall(r"^.*?(\w+)\.py:(\d+): error: (.*)$", done.stdout, re.MULTILINE)
    assert found or done.returncode == 0, done.stdout + done.stderr
    return [(name, int(line), message) for name, line, message in found]


def run_pyright(folder):
    (folder / "pyrightconfig.json").write_text(
        json.dumps(
            {"extraPaths": [str(ROOT)], "reportMissingImports": False, "reportMissingModuleSource": False}
        )
    )
    command = [sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", sys.executable, "-p", folder]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    found = json.loads(done.stdout)["generalDiagnostics"]
    return [
        (Path(each["file"]).stem, each["range"]["start"]["line"] + 1, each["message"])
        for each in found
        if each["severity"] == "error"
    ]


@pytest.fixture(scope="module", params=["mypy", "pyright"])
def findings(request, tmp_path_factory):
    """(file, line, message) of what a type checker finds."""
    if importlib.util.find_spec(request.param) is None:
        pytest.skip(f"{request.param} is not installed")
    if request.param == "pyright" and shutil.which("node") is None:
        pytest.skip("pyright needs node, and would download it")
    folder = tmp_path_factory.mktemp(request.param)
    (folder / "names.py").write_text(NAMES)
    if README.exists():
        (folder / "readme.py").write_text(readme_examples())
    return {"mypy": run_mypy, "pyright": run_pyright}[request.param](folder)


def readme_examples():
    """README's Python, one block after the other, after what it takes as given."""
    blocks = re.findall(
        r"^```python\n(.*?)^```", README.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
    )
    assert blocks
    return "\n".join([GIVEN, *blocks])


def test_type_checker_finds_the_wrong_lines_and_no_other(findings):
    lines = NAMES.split("\n")
    wrong = {number for number, line in enumerate(lines, 1) if line.endswith("# wrong")}
    found = {number: message for name, number, message in findings if name == "names"}
    assert [(lines[n - 1], found[n]) for n in sorted(found.keys() - wrong)] == []
    assert [lines[n - 1] for n in sorted(wrong - found.keys())] == []


def test_readme_examples_pass_the_type_checker(findings):
    if not README.exists():
        pytest.skip("no README.md")
    lines = readme_examples().split("\n")
    assert [(lines[n - 1], message) for name, n, message in findings if name == "readme"] == []
