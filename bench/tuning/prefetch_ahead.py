"""prefetch-ahead: how far ahead tiles fetch the left operand."""

from .harness import Case, Experiment, main

EXPERIMENT = Experiment(
    key="prefetch-ahead",
    reason="What lies beyond the tile's depth would only take the place of the present slice in L1.",
    variants=(
        {"PREFETCH_AHEAD": "16"},
        {"PREFETCH_AHEAD": "64"},
        {"PREFETCH_AHEAD": "128"},
    ),
    cases=(
        Case("frozen", (1024, 1024, 1024, 2)),
        Case("frozen", (1024, 288, 96, 3)),
    ),
)

if __name__ == "__main__":
    raise SystemExit(main(EXPERIMENT))
