"""What importing the package costs, and which backend needs which package."""

import pytest
from conftest import output_of

from fastact import backends


def test_importing_imports_nothing_heavy():
    loaded = set(output_of("import sys, fastact; print(*sys.modules)").split())
    heavy = {"numba", "llvmlite", "scipy", "sklearn", "torch", "thinc", "spacy", "rich", "matplotlib", "cffi"}
    assert not loaded & heavy


def test_the_c_backend_needs_no_numba():
    if reason := backends.why_c_is_missing():
        pytest.skip(f"no C extension: {reason}")
    code = "import sys, numpy, fastact as fa; fa.maxout(numpy.ones(2), backend='c'); print(*sys.modules)"
    assert "numba" not in output_of(code).split()


def test_numba_needs_no_c_extension():
    code = """if True:
        import sys
        sys.modules["fastact._native"] = None  # as if it had not been built
        import numpy as np, fastact as fa
        y, argmax = fa.linear_maxout(np.ones((2, 3)), np.ones((4, 2, 3)))
        assert (y == 3).all() and not argmax.any()
        try:
            fa.set_backend("c")
        except ImportError as error:
            assert str(error) == fa.get_config()["c_missing"]
        print(fa.get_backend(), "_native" in fa.get_config()["c_missing"])
    """
    assert output_of(code).split() == ["numba", "True"]
