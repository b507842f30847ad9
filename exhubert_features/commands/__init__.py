"""One file per sub-command: ``add_arguments(parser)`` and ``run(options) -> exit code``.

These files import only argparse and the like at the top; heavy imports stay inside ``run``.
"""
