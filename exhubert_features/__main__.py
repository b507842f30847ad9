"""``python -m exhubert_features`` is the ``exhubert`` command."""

import sys

from .cli import main

sys.exit(main())
