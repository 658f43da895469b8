"""fileexport: one directory, exported to other machines, safely and fast."""
