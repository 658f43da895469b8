"""One file per module: `tests/test_<module>.py`; `tests/proof/` holds what takes longer."""

import signal

# In the background of a script the shell has Ctrl-C ignored, and programs that tests interrupt inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
