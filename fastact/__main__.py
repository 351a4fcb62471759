"""`python -m fastact`."""

import sys

from .cli import main

sys.exit(main())
