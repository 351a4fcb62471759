"""highest-on-tiles: which products "highest" runs on AMX tiles."""

from .harness import Case, Experiment, main

EXPERIMENT = Experiment(
    key="highest-on-tiles",
    reason=(
        "Splitting numbers into three parts has to be shared by many rows and units, and the lanes have "
        "to be filled."
    ),
    variants=(
        {
            "MIN_HIGHEST_ROWS": "1",
            "MIN_HIGHEST_COLUMNS": "1",
            "MIN_HIGHEST_UNITS": "1",
            "MIN_HIGHEST_DEPTH": "1",
            "MIN_HIGHEST_TERMS": "1",
        },
        {"MIN_HIGHEST_ROWS": "(1 << 30)"},
    ),
    cases=(
        Case("forward", (64, 288, 96, 3)),
        Case("forward", (96, 288, 96, 3)),
        Case("forward", (100, 784, 240, 5)),
        Case("forward", (256, 128, 128, 2)),
        Case("forward", (97, 131, 57, 3)),
        Case("forward", (1024, 64, 64, 1)),
        Case("forward", (20000, 16, 100, 1)),
        Case("forward", (2048, 96, 64, 1)),
        Case("forward", (4096, 1024, 16, 1)),
        Case("forward", (200, 300, 2, 256)),
    ),
)

if __name__ == "__main__":
    raise SystemExit(main(EXPERIMENT))
