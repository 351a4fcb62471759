"""The command line, and the configuration that it and `show_config` print."""

from __future__ import annotations

import sys
from importlib.metadata import entry_points

import numpy as np
import pytest
from support.processes import output_of, run_python
from support.variants import needs_c

import fastact as fa
from fastact import backends, cli
from fastact.cli import packages


def test_help_names_commands_and_options(capsys):
    for arguments, words in (
        (["--help"], ("usage: fastact ", "demo", "info", "bench", "study", "--version", "FASTACT_BACKEND")),
        (["demo", "--help"], ("--epochs", "--seed", "--precision", "digits")),
        (["info", "--help"], ("configuration",)),
    ):
        with pytest.raises(SystemExit) as stop:
            cli.main(arguments)
        assert stop.value.code == 0
        printed = capsys.readouterr().out
        assert all(word in printed for word in words)


def test_no_command_prints_the_help_and_exits_with_status_2(capsys):
    assert cli.main([]) == 2
    printed = capsys.readouterr()
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    assert printed.err == capsys.readouterr().out
    assert printed.out == ""


def test_version_is_that_of_the_package(capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["--version"])
    assert stop.value.code == 0
    assert capsys.readouterr().out == f"fastact {fa.__version__}\n"


def test_console_script_is_the_command_line():
    scripts = entry_points(group="console_scripts", name="fastact")
    if not scripts:
        pytest.skip("fastact is on the path, not installed")
    assert [script.load() for script in scripts] == [cli.main]


@pytest.mark.parametrize(
    "arguments",
    [
        ["dance"],
        ["demo", "--epochs", "0"],
        ["demo", "--seed", "x"],
        ["demo", "--seed", "-1"],
        ["demo", "--precision", "low"],
        ["bench", "--threads", "0"],
        ["study", "--seed", "1.5"],
    ],
)
def test_invalid_arguments_exit_with_status_2_and_name_the_argument(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(arguments)
    assert stop.value.code == 2
    printed = capsys.readouterr().err
    assert "usage:" in printed
    if len(arguments) == 3:
        assert f"argument {arguments[1]}: " in printed
        assert f"got '{arguments[2]}'" in printed or f"got {arguments[2]}" in printed or "choice" in printed


def test_ctrl_c_ends_a_command_without_a_traceback(capsys, monkeypatch):
    def interrupted():
        raise KeyboardInterrupt

    monkeypatch.setattr(cli.info, "show_config", interrupted)
    assert cli.main(["info"]) == 130
    assert capsys.readouterr().err == "fastact: stopped\n"


def test_info_prints_the_configuration(capsys):
    assert cli.main(["info"]) == 0
    printed = capsys.readouterr().out
    assert f"fastact      {fa.__version__}, " in printed
    assert f"backend      {fa.get_backend()} (available: " in printed
    fa.show_config()
    assert capsys.readouterr().out == printed


def test_get_config_holds_what_is_in_force():
    config = fa.get_config()
    assert config["version"] == fa.__version__
    assert config["numpy"] == np.__version__
    assert config["cpu"]
    assert config["backend"] in config["backends"]
    assert {"numba", "numpy"} <= set(config["backends"])
    assert config["precision"] == "highest"
    assert ("c" in config["backends"]) == (config["c_missing"] is None) == (config["isa"] in config["isas"])
    with fa.num_threads(3), fa.float32_matmul_precision("high"):
        assert fa.get_config()["threads"] == 3
        assert fa.get_config()["precision"] == "high"


def test_show_config_gives_the_reason_for_a_missing_c_extension(capsys, monkeypatch):
    monkeypatch.setattr(backends, "why_c_is_missing", lambda: "no compiler")
    backends.set_backend("numba")
    try:
        fa.show_config()
        config = fa.get_config()
    finally:
        backends.set_backend(None)
    assert "C extension  missing: no compiler" in capsys.readouterr().out
    assert config["backends"] == ("numba", "numpy")
    assert (config["isa"], config["isas"]) == (None, ())


@pytest.mark.parametrize("name", ["numba", "numpy"])
def test_get_num_threads_without_c_follows_omp_num_threads(name, monkeypatch):
    backends.set_backend(name)
    try:
        monkeypatch.setenv("OMP_NUM_THREADS", "3")
        assert fa.get_num_threads() == 3
        with fa.num_threads(5):
            assert fa.get_num_threads() == 5
    finally:
        backends.set_backend(None)


def test_get_num_threads_follows_omp_num_threads():
    show = "print(fa.get_num_threads())"
    code = f"import fastact as fa; {show}; fa.set_num_threads(4); {show}"
    assert output_of(code, OMP_NUM_THREADS="2").split() == ["2", "4"]


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"FASTACT_BACKEND": "gpu"}, "fastact: FASTACT_BACKEND: got 'gpu', wanted one of c, numba, numpy"),
        pytest.param(
            {"FASTACT_ISA": "mmx"},
            "fastact: FASTACT_ISA: ",
            marks=needs_c,
        ),
    ],
)
def test_invalid_environment_exits_without_a_traceback(environment, message):
    done = run_python("import sys; from fastact.cli import main; sys.exit(main(['info']))", **environment)
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("missing", ["rich", "sklearn"])
def test_demo_without_a_package_names_it_and_the_extra(monkeypatch, missing):
    for name in [name for name in sys.modules if name.partition(".")[0] == missing]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(SystemExit) as stop:
        cli.main(["demo", "--epochs", "1"])
    assert "the demo needs" in str(stop.value.code)
    assert missing in str(stop.value.code)
    assert 'pip install -e ".[demo]"' in str(stop.value.code)


def test_missing_package_of_a_wheel_is_installed_without_a_checkout(monkeypatch, tmp_path):
    error = ModuleNotFoundError("No module named 'rich'", name="rich")
    for checkout, command in ((True, 'pip install -e ".[demo]"'), (False, 'pip install "fastact[demo]"')):
        root = tmp_path / str(checkout)
        (root / "fastact" / "cli").mkdir(parents=True)
        if checkout:
            (root / "pyproject.toml").touch()
        monkeypatch.setattr(packages, "__file__", str(root / "fastact" / "cli" / "packages.py"))
        assert packages.missing_package("the demo", error, "demo") == f"the demo needs rich: {command}"
