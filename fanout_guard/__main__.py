"""``python -m fanout_guard`` is ``fanout-guard``."""

import sys

from fanout_guard.cli import main

if __name__ == "__main__":
    sys.exit(main())
