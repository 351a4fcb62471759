"""depth-cut: terms in one running sum."""

from .harness import Case, Experiment, main

EXPERIMENT = Experiment(
    key="depth-cut",
    reason="One running sum over much depth loses accuracy; partial sums of 256 terms cost no speed.",
    variants=(
        {"DEPTH_CUT": "128"},
        {"DEPTH_CUT": "512"},
        {"DEPTH_CUT": "4096"},
    ),
    cases=(
        Case("forward", (100, 784, 240, 5)),
        Case("forward", (64, 4096, 128, 2)),
        Case("forward", (1024, 1024, 1024, 2)),
    ),
    errors=True,
)

if __name__ == "__main__":
    raise SystemExit(main(EXPERIMENT))
