"""Writes kernels/activation_list.h from the table in fastact/activations.py: run it after a change there."""

from __future__ import annotations

from pathlib import Path

from fastact.activations import CUSTOM, TABLE

HEADER = Path(__file__).resolve().parents[1] / "kernels" / "activation_list.h"
_COST = ("1", "EXPONENTIAL_WORK")


def continued(lines: list[str]) -> str:
    """The lines of a macro, as clang-format writes them."""
    return "".join(f"{line:119}\\\n" for line in lines[:-1]) + lines[-1] + "\n"


def header() -> str:
    """The text of the header."""
    rows = [
        f"  X({name.upper()}, {name}, {', '.join(_COST[cost] for cost in row.exponential)})"
        for name, row in TABLE.items()
    ]
    codes = ",\n".join(f"  FA_{name.upper()} = {row.code}" for name, row in TABLE.items())
    return f"""\
/* The activations: codes and costs.  Written by csrc/tools/activations.py from fastact/activations.py. */
#ifndef FA_ACTIVATION_LIST_H
#define FA_ACTIVATION_LIST_H

enum fa_activation {{
{codes},
  FA_CUSTOM = {CUSTOM} /* a caller's own */
}};

/* The work of an element with an exponential, relative to an element that is only moved.
 * bench/tuning: exponential-work */
#define EXPONENTIAL_WORK 4

/* X(NAME, name, forward cost, backward cost) for each activation */
{continued(["#define FA_ACTIVATIONS(X)", *rows])}
#define FORWARD_COST(NAME, name, forward, backward) [FA_##NAME] = forward,
#define BACKWARD_COST(NAME, name, forward, backward) [FA_##NAME] = backward,

static inline int activation_forward_cost(int activation) {{
  static const unsigned char costs[] = {{FA_ACTIVATIONS(FORWARD_COST)[FA_CUSTOM] = EXPONENTIAL_WORK}};
  return costs[activation];
}}

static inline int activation_backward_cost(int activation) {{
  static const unsigned char costs[] = {{FA_ACTIVATIONS(BACKWARD_COST)[FA_CUSTOM] = EXPONENTIAL_WORK}};
  return costs[activation];
}}

#undef FORWARD_COST
#undef BACKWARD_COST

#endif
"""


if __name__ == "__main__":
    HEADER.write_text(header())
