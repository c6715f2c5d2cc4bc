"""Programs: `python -m train_scripts.<name> --help`."""

import os
import signal
import sys


def _leave(signum, frame):
    # Nothing has begun: there is nothing to save. An exception would end up
    # in whatever is being imported.
    os.write(2, b"Stopped.\n")
    os._exit(130)


# Python imports this package before the program itself (it is looking for what
# `-m` names then), and programs take seconds to import the rest; `command_line`
# then installs its own handlers.
if sys.argv[:1] == ["-m"]:
    for _signal in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(_signal) != signal.SIG_IGN:
            signal.signal(_signal, _leave)
