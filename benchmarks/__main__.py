"""The command line of the benchmarks."""

import os
import sys

# Ratios of several threads do not hold on a busy machine; libraries read this when first imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from benchmarks.runner import main

if __name__ == "__main__":
    sys.exit(main())
