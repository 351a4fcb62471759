"""Writes pickles and a checkpoint of what fastact has, and what it computes, for tests/test_pickles.py.

    FASTACT_BACKEND=numpy PYTHONPATH=<a checkout of an old version> python make.py <folder>

The folder 0.1.0 was made at commit 070ede0, and 0.1.0-flat at 098f11f, the last one with flat modules.
"""

import pickle
import sys
from functools import partial
from pathlib import Path

import numpy as np
import thinc.api
import torch

import fastact as fa
import fastact.thinc
import fastact.torch

folder = Path(sys.argv[1])
folder.mkdir(exist_ok=True)
rng = np.random.default_rng(1)
x = rng.standard_normal((4, 6)).astype(np.float32)
labels = np.array([0, 1, 2, 0])


def step(model, optimizer):
    _, grad = fa.softmax_cross_entropy(model(x, training=True), labels)
    model.backward(grad)
    optimizer.step()


def numpy_objects():
    model = fa.Sequential(
        fa.Maxout(6, 5, pieces=3, rng=rng),
        fa.Dropout(0.5, rng=rng),
        fa.Linear(5, 4, activation="linear", rng=rng),
        fa.Sequential(fa.Linear(4, 4, activation="prelu", slope=[0.1, 0.2, 0.3, 0.4], rng=rng), fa.PReLU(4)),
        fa.Activation("linear"),
        fa.Activation("gelu", approximate="tanh"),
        fa.Linear(4, 3, bias=False, activation="leaky_relu", negative_slope=0.2, precision="high", rng=rng),
    )
    model.layers[0].weight.max_norm = 1.5
    sgd = fa.SGD(model.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.01)
    adam = fa.Adam(model.parameters(), lr=0.01)
    step(model, sgd)
    step(model, adam)
    return {
        "x": x,
        "labels": labels,
        "model": model,
        "sgd": sgd,
        "adam": adam,
        "frozen": fa.freeze(model),
        "y": model(x),
        "functions": [
            partial(fa.init.he_normal, negative_slope=0.1),
            fa.relu,
            fa.mse,
            fa.freeze,
            fa.save,
            fa.softmax_cross_entropy,
            fa.piece_usage,
            fa.get_config,
            fa.linear_maxout,
            fa.max_norm_,
        ],
    }


objects = numpy_objects()
(folder / "numpy.pickle").write_bytes(pickle.dumps(objects, protocol=4))
step(objects["model"], objects["sgd"])
step(objects["model"], objects["adam"])
np.save(folder / "two_steps_later.npy", objects["model"](x))

small = fa.Sequential(fa.Maxout(6, 3, rng=rng), fa.PReLU(3), fa.Linear(3, 3, rng=rng))
adam = fa.Adam(small.parameters(), lr=0.01)
step(small, adam)
fa.save(folder / "checkpoint.npz", model=small, adam=adam, rng=rng)
saved_y, saved_number = small(x), rng.standard_normal()
step(small, adam)
np.savez(folder / "checkpoint_results.npz", x=x, y=saved_y, number=saved_number, later=small(x))


def save_torch(name, *layers, accelerate=False):
    torch.manual_seed(0)
    model = torch.nn.Sequential(*(layer() for layer in layers))
    if accelerate:
        fastact.torch.accelerate(model)
    tensor = torch.from_numpy(x)
    torch.save({"x": tensor, "model": model, "y": model(tensor).detach()}, folder / f"{name}.pt")


save_torch(
    "torch",
    lambda: fastact.torch.Maxout(6, 5, pieces=3),
    lambda: fastact.torch.LinearActivation(5, 4, activation="linear"),
    lambda: fastact.torch.LinearActivation(4, 4, activation="prelu"),
)
save_torch("accelerated", lambda: torch.nn.Linear(6, 8), torch.nn.ReLU, accelerate=True)
save_torch("pooled", lambda: torch.nn.Linear(6, 8), lambda: torch.nn.MaxPool1d(2), accelerate=True)

thinc.api.fix_random_seed(0)
layers = [fastact.thinc.Maxout(5, 6, nP=3, dropout=0.1, normalize=True), thinc.api.Maxout(4, 5, nP=2)]
model = thinc.api.chain(*layers).initialize(X=x)
fastact.thinc.accelerate(model)
saved = {"x": x, "model": model, "bytes": model.to_bytes(), "y": model.predict(x)}
(folder / "thinc.pickle").write_bytes(pickle.dumps(saved, protocol=4))
