"""amx-cut-terms: terms in one running sum of AMX tiles."""

from .harness import Case, Experiment, main

EXPERIMENT = Experiment(
    key="amx-cut-terms",
    reason=(
        "A tile instruction adds 32 terms at once, so longer runs than float32's are accurate enough, and "
        "quicker."
    ),
    variants=({"CUT_TERMS": "(PARTS == 3 ? 256 : PARTS == 2 ? 512 : 1024)"},),
    cases=(
        Case("forward", (2048, 2048, 2048, 2)),
        Case("forward", (2048, 2048, 2048, 2), precision="high"),
        Case("forward", (2048, 2048, 2048, 2), precision="medium"),
    ),
    errors=True,
)

if __name__ == "__main__":
    raise SystemExit(main(EXPERIMENT))
