"""The study: why activations decide whether deep networks learn, in pictures and numbers.

`python -m fastact study` runs every part; a part is a module with `steps(options)`, how often it reports
progress, and `run(options, advance)`, which returns its `Findings`.
"""
