"""How far results are from exact ones, beside limits that follow from bounds: `python -m bench.accuracy`."""
