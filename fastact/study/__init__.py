"""The study: why activations decide whether deep networks learn, in pictures and numbers.

`python -m fastact study` runs every part; a part is a module with two functions.  `run(options, advance)`
returns its `Findings`; `steps(options)` returns how often it calls `advance`.
"""
