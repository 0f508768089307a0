"""``python -m captum_gmar`` is ``captum-gmar``."""

import sys

from captum_gmar.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
