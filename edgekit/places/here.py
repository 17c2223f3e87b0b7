"""This machine as a place: a worker in a process of its own, so that it is measured as any device is.

Refuses nothing; its times are a device's, if this machine is one."""

import sys

from edgekit.places import Place, Start

COMMAND = (sys.executable, "-m", "edgekit_runtime.worker", "--scratch", "files")


def this_machine() -> Place:
    """The place that `--on here` names."""
    return Place("here", "device", "this machine", lambda scratch: Start(COMMAND), lambda status, said: None)
