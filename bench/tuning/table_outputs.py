"""table-outputs: outputs in a table of weights."""

from .harness import Case, Experiment, main

EXPERIMENT = Experiment(
    key="table-outputs",
    reason="The outputs of a table are the terms of one sum of grad_x: more of them cost accuracy.",
    variants=(
        {"TABLE_OUTPUTS": "16"},
        {"TABLE_OUTPUTS": "64"},
        {"TABLE_OUTPUTS": "256"},
    ),
    cases=(
        Case("grad_x", (1000, 16, 640, 1)),
        Case("grad_x", (1024, 32, 512, 2)),
        Case("grad_x", (1024, 96, 256, 1)),
        Case("grad_x", (8, 96, 256, 16)),
    ),
    errors=True,
)

if __name__ == "__main__":
    raise SystemExit(main(EXPERIMENT))
