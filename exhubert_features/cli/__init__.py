"""The ``exhubert`` command: ``entry`` and one file per sub-command.

Each has ``add_arguments(parser)`` and ``run(options) -> exit code`` and imports only argparse and
the like at the top; heavy imports stay inside ``run``.
"""

from .entry import main

__all__ = ["main"]
