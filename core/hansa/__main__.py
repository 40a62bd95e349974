"""``python -m hansa``."""

import sys

from hansa.cli.main import main

sys.exit(main())
