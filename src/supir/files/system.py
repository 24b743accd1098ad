"""Which system this is. Asked as ``system.WINDOWS``, so that a test can be another system for a while."""

import os
import sys

WINDOWS, MACOS = os.name == "nt", sys.platform == "darwin"
