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

from .. import info, settings
from .data import Images, load_mnist
from .findings import Advance, Findings, Options, Picture, Table
from .recipe import COLUMNS, KINDS, Run, Trainer
from .style import BLUE, VERMILION

Array = np.ndarray[Any, Any]

SAVE_EVERY = 10  # epochs
TIMED_EPOCHS = 5
COLOURS = {"maxout": VERMILION, "relu": BLUE}


def steps(options: Options) -> int:
    return len(KINDS) * options.seeds * 2 * options.epochs + 2


def run(options: Options, advance: Advance) -> Findings:
    """Every seed of both networks, as many at once as there are threads, each on one thread."""
    advance("Goodfellow et al.: reading the images")
    images = load_mnist(options.mnist)
    checkpoints = options.out / "checkpoints"
    checkpoints.mkdir(parents=True, exist_ok=True)

    stop = threading.Event()

    def train(job: tuple[str, int]) -> Run:
        kind, seed = job
        path = checkpoints / f"{kind}-{seed}.npz"
        with settings.num_threads(1):
            return _train(Run(kind, seed, options.epochs, images), path, options.resume, stop, advance)

    seeds = range(options.seed, options.seed + options.seeds)
    jobs = [(kind, seed) for seed in seeds for kind in KINDS]
    with ThreadPoolExecutor(info.get_num_threads()) as pool:
        try:
            runs = dict(zip(jobs, pool.map(train, jobs), strict=True))
        except BaseException:  # Ctrl-C too: each run saves itself after its present epoch
            stop.set()
            pool.shutdown(cancel_futures=True)
            raise
    advance("Goodfellow et al.: time per epoch")
    return _findings(runs, time_epochs(images), images)


def _train(run: Run, path: Path, resume: bool, stop: threading.Event, advance: Advance) -> Run:
    """Train until the run is done or is to stop; its checkpoint is then at `path`."""
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
    """The median seconds of an epoch on all training images, by network and library, in turns."""
    trainers: dict[str, Any] = {f"{kind}, fastact": Trainer(kind, 0) for kind in KINDS}
    if importlib.util.find_spec("torch") is not None:
        from .recipe_torch import TorchTrainer

        trainers |= {f"{kind}, PyTorch": TorchTrainer(kind, 0, info.get_num_threads()) for kind in KINDS}
    rows = slice(0, 4000)  # the same work on full MNIST, in a fifteenth of the time
    seconds: dict[str, list[float]] = {name: [] for name in trainers}
    for _ in range(1 + TIMED_EPOCHS):
        for name, trainer in trainers.items():
            start = time.perf_counter()
            trainer.train_epoch(images.x_train[rows], images.labels_train[rows], 0.0)
            seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(times[1:]) for name, times in seconds.items()}  # the first warms up


def _findings(runs: dict[tuple[str, int], Run], seconds: dict[str, float], images: Images) -> Findings:
    errors = {key: run.test_error() for key, run in runs.items()}
    history = [
        (*key, epoch + 1, *run.history[epoch].tolist())
        for key, run in runs.items()
        for epoch in range(run.epoch)
    ]
    return Findings(
        "Goodfellow et al.'s recipe",
        "Goodfellow 等人的配方",
        {"goodfellow": _picture(runs, errors, seconds, images)},
        {
            "goodfellow": Table(
                ("network", "seed", "epochs", "test_error"),
                [(*key, runs[key].epoch, error) for key, error in errors.items()],
            ),
            "goodfellow_history": Table(("network", "seed", "epoch", *COLUMNS), history),
            "goodfellow_seconds": Table(
                ("network_and_library", "seconds_an_epoch_of_4000", "threads"),
                [(name, value, info.get_num_threads()) for name, value in seconds.items()],
            ),
        },
    )


def _picture(
    runs: dict[tuple[str, int], Run],
    errors: dict[tuple[str, int], float],
    seconds: dict[str, float],
    images: Images,
) -> Picture:
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4.2), width_ratios=(2, 1), layout="constrained")
    column = COLUMNS.index("validation_error")
    for i, kind in enumerate(KINDS):
        curves = [100 * run.history[: run.epochs, column] for (k, _), run in runs.items() if k == kind]
        epochs = np.arange(1, 1 + len(curves[0]))
        for curve in curves:
            left.plot(epochs, curve, color=COLOURS[kind], lw=0.7, alpha=0.5)
        left.plot(epochs, np.median(curves, axis=0), color=COLOURS[kind], lw=2, label=_NAMES[kind])
        found = 100 * np.array([error for (k, _), error in errors.items() if k == kind])
        spread = np.linspace(-0.12, 0.12, len(found)) if len(found) > 1 else np.zeros(1)
        right.plot(i + spread, found, "o", color=COLOURS[kind], ms=7, alpha=0.8)
        right.hlines(found.mean(), i - 0.3, i + 0.3, color=COLOURS[kind], lw=2)
        right.text(i + 0.33, found.mean(), f"{found.mean():.2f}", va="center", color=COLOURS[kind])
    left.set(title="Validation error in the first phase, %", xlabel="epoch", yscale="log")
    left.yaxis.set_major_formatter("{x:g}")
    left.set_yticks([5, 10, 20, 50, 90], minor=False)
    left.minorticks_off()
    left.legend()
    right.set(
        title="Test error, %", xlim=(-0.5, len(KINDS) - 0.2), ylim=(0, 1.15 * 100 * max(errors.values()))
    )
    right.set_xticks(range(len(KINDS)), [_NAMES[kind] for kind in KINDS])
    right.grid(False, axis="x")
    return Picture(figure, *_words(runs, errors, seconds, images))


_NAMES = {"maxout": "maxout", "relu": "ReLU"}


def _words(
    runs: dict[tuple[str, int], Run],
    errors: dict[tuple[str, int], float],
    seconds: dict[str, float],
    images: Images,
) -> tuple[str, str]:
    found = {kind: [error for (k, _), error in errors.items() if k == kind] for kind in KINDS}
    shown = {
        kind: f"{np.mean(values):.2%} ({min(values):.2%} to {max(values):.2%})"
        for kind, values in found.items()
    }
    times = {name: f"{1e3 * value:.0f} ms" for name, value in seconds.items()}
    peer = peer_zh = ""
    if "maxout, PyTorch" in times:
        peer = f", PyTorch {times['maxout, PyTorch']} and {times['relu, PyTorch']}"
        peer_zh = f";PyTorch 为 {times['maxout, PyTorch']} 和 {times['relu, PyTorch']}"
    else:
        peer, peer_zh = "; PyTorch is not installed", ";未安装 PyTorch"
    threads = info.get_num_threads()
    number = len(found["maxout"])
    epochs = next(iter(runs.values())).epochs
    english = (
        "The permutation-invariant network of Goodfellow et al. 2013 (two maxout layers of 240 units "
        f"with 5 pieces, dropout, max-norm, {epochs} epochs and then a continuation on all training "
        f"images) on {images.name}: {len(images.x_train):,} to train, {len(images.x_test):,} to test; "
        "beside a network of two ReLU layers with as many parameters, trained the same way. Test error "
        f"over {number} seeds, mean and range: maxout {shown['maxout']}, ReLU {shown['relu']}. The "
        "paper's 0.94% is for 60,000 training images and many more epochs. An epoch of 4,000 images on "
        f"{threads} threads takes {times['maxout, fastact']} for maxout and {times['relu, fastact']} for "
        f"ReLU{peer}."
    )
    chinese = (
        "Goodfellow 等人 2013 年的网络(两层 maxout,每层 240 个单元、5 段,加上 dropout 与最大范数约束,先"
        f"训练 {epochs} 个周期,再用全部训练图像继续),数据为 {images.name}:训练 {len(images.x_train):,} 张"
        f",测试 {len(images.x_test):,} 张;对照是参数量相同、训练方法相同的两层 ReLU 网络。{number} 个随机"
        f"种子的测试错误率(均值与范围):maxout {shown['maxout']},ReLU {shown['relu']}。论文的 0.94% 是在 "
        f"60,000 张训练图像、多得多的周期下得到的。{threads} 个线程训练 4,000 张图像一个周期,maxout 需 "
        f"{times['maxout, fastact']},ReLU 需 {times['relu, fastact']}{peer_zh}。"
    )
    return english, chinese
