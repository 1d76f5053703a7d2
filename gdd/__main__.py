"""`python -m gdd` and `accelerate launch -m gdd`: the console command."""

import sys

from gdd.cli import main

sys.exit(main())
