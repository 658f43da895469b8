"""fileexport: one directory, exported to other machines, safely and fast."""

__version__ = "0.1.0.dev0"
