"""`python -m platonic_ray.cli`: the command line without its installed program."""

import sys

from platonic_ray.cli import main

sys.exit(main())
