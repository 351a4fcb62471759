"""dot-cut: terms that one lane of a dot product adds up."""

from .harness import Case, Experiment, main

EXPERIMENT = Experiment(
    key="dot-cut",
    reason=(
        "With few rows NumPy spreads each sum over several vectors; dot products may not be less accurate."
    ),
    variants=(
        {"DOT_CUT": "16"},
        {"DOT_CUT": "64"},
        {"DOT_CUT": "256"},
    ),
    cases=(
        Case("forward", (1, 1024, 1024, 2)),
        Case("forward", (3, 1024, 64, 2)),
        Case("forward", (4, 4096, 20, 3)),
        Case("forward", (8, 32, 32, 2)),
    ),
    errors=True,
)

if __name__ == "__main__":
    raise SystemExit(main(EXPERIMENT))
