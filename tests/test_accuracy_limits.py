"""The figures of `python -m bench.accuracy` are within their limits, and a worse one is found."""

from __future__ import annotations

import json

import numpy as np
import pytest

import fastact as fa
from bench.accuracy import __main__ as command
from bench.accuracy import figures, limits, measure, page

RESULTS = page.PATH.parent / "results"


@pytest.fixture(scope="module")
def of_limits():
    return limits.read()


@pytest.mark.parametrize("kind", measure.KINDS)
@pytest.mark.parametrize("variant", measure.variants())
def test_every_figure_is_within_its_limit(variant, kind, of_limits):
    rows = list(measure.rows(variant, kind))
    assert limits.excesses(rows, of_limits) == []
    measured = {limits.Key(row["kind"], row["name"], row["dtype"], row["unit"]) for row in rows}
    missing = [key for key in of_limits if key.kind == kind and key not in measured]
    if variant != "numba":
        missing = [key for key in missing if not key.name.startswith("custom")]
    if np.finfo(np.longdouble).nmant < 63:
        missing = [key for key in missing if (key.kind, key.dtype) != ("products", "float64")]
    assert missing == []


@pytest.mark.parametrize(
    ("actual", "exact", "ulps"),
    [
        (1.0, 1.0, 0.0),
        (1.0, 1 + 2.0**-24, 0.5),
        (1.0, 1 - 2.0**-24, 1.0),  # below a power of two the unit is half as large
        (3e-45, 1e-45, 1.4013e-45**-1 * (2 * 1.4013e-45 - 1e-45)),
        (np.inf, 3.5e38, 0.0),
        (np.inf, np.inf, 0.0),
        (np.nan, np.nan, 0.0),
        (np.inf, 3e38, np.inf),
        (-np.inf, np.inf, np.inf),
        (np.nan, 1.0, np.inf),
        (1.0, np.nan, np.inf),
    ],
)
def test_error_of_a_float32_in_units_of_the_exact_result(actual, exact, ulps):
    pair = np.array([exact]), np.zeros(1)
    (error,) = figures.in_ulps(np.array([actual], np.float32), pair)
    assert error == pytest.approx(ulps, rel=1e-4)
    (in_terms,) = figures.in_u(np.array([actual], np.float32), pair, np.array([exact]))
    assert (in_terms == np.inf) == (ulps == np.inf)


def row(**changes):
    figure = {"kind": "updates", "name": "SGD step", "dtype": "float32", "unit": "u", "where": ""}
    return figure | {"variant": "c-avx2", "error": 0.0} | changes


@pytest.mark.parametrize("error", [5.001, np.inf, np.nan])
def test_excesses_name_the_figure_its_limit_and_the_reason(of_limits, error):
    (sentence,) = limits.excesses([row(), row(error=error, where="-1.5")], of_limits)
    assert sentence.startswith(
        f"SGD step, float32, c-avx2: got {error:.4g} u at -1.5, wanted at most 5: the product"
    )


def test_excesses_name_a_figure_without_a_limit(of_limits):
    assert limits.excesses([row(name="SGD leap")], of_limits) == ["SGD leap, float32, c-avx2: no limit in u"]


def test_limit_of_a_variant_holds_for_it_alone():
    limit = limits.Limit(2.0, "", {"c-scalar": 2.2})
    assert (limit.of("c-scalar"), limit.of("c-avx2")) == (2.2, 2.0)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([0, 0], "got two limits of updates SGD step float32 u, wanted one"),
        ([1], "got the unknown reason 'luck' of updates SGD step float32 u"),
    ],
)
def test_file_with_two_limits_or_an_unknown_reason_is_refused(tmp_path, lines, message):
    key = {"kind": "updates", "name": "SGD step", "dtype": "float32", "unit": "u", "limit": 5}
    either = key | {"why": "sums"}, key | {"why": "luck"}
    path = tmp_path / "limits.json"
    path.write_text(json.dumps({"why": {"sums": ""}, "limits": [either[i] for i in lines]}))
    with pytest.raises(ValueError, match=message):
        limits.read(path)


def slightly_off(loss):
    """The loss `loss` with gradients that are off by two ULP or more."""

    def changed(*arguments, **keywords):
        value, grad = loss(*arguments, **keywords)
        return value, grad * (1 + 4 * np.finfo(grad.dtype).eps)

    return changed


def test_check_of_a_planted_error_ends_with_status_1(monkeypatch, capsys, tmp_path):
    variant = measure.variants()[0]
    path = tmp_path / "found.json"
    arguments = ["--check", "--kinds", "losses", "--variants", variant, "--out", str(path)]
    assert command.main(arguments) == 0
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(fa, "mse", slightly_off(fa.mse))
    assert command.main(arguments) == 1
    printed = capsys.readouterr()
    assert f"mse gradient, float32, {variant}: got " in printed.err
    assert "huber" not in printed.err
    assert "mse gradient" in printed.out
    results = json.loads(path.read_text())
    assert results["step"] == measure.STEP
    assert {"cpu", "versions"} <= results["environment"].keys()
    found = [each for each in results["results"] if each["name"] == "mse gradient"]
    assert [each["error"] > 3 for each in found] == [True, True]
    assert command.main(arguments[1:]) == 0  # without --check


def test_page_is_that_of_the_committed_results_and_limits(of_limits, tmp_path):
    written = page.write(sorted(RESULTS.glob("accuracy*.json")), of_limits, tmp_path / "page.md")
    assert page.PATH.read_text() == written.read_text()


def test_page_of_another_file_is_refused(capsys, tmp_path):
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(SystemExit):
        command.main(["--page", str(tmp_path / "other.json")])
    assert "not a file of results of this command, which has environment, date" in capsys.readouterr().err
