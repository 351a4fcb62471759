"""wide-width: vectors side by side in the activations' formulas."""

from .harness import Case, Experiment, main

EXPERIMENT = Experiment(
    key="wide-width",
    reason=(
        "The steps of a formula wait for each other, some 60 cycles in all; with several vectors in turn "
        "the CPU does not."
    ),
    variants=(
        {"WIDTH": "2"},
        {"WIDTH": "8"},
    ),
    cases=(
        Case("activation sigmoid", (65536,)),
        Case("activation gelu", (65536,)),
        Case("activation mish", (65536,)),
        Case("activation tanh", (65536,)),
    ),
)

if __name__ == "__main__":
    raise SystemExit(main(EXPERIMENT))
