"""What tests of programs that use eventlog need: a simulated disk, a clock, scripts of writers, and rows to compare.

The Hypothesis strategies are in `eventlog.testing.strategies`, which alone needs Hypothesis.
"""

from eventlog.testing.clock import FakeClock
from eventlog.testing.crashfs import CrashFs
from eventlog.testing.disk import CRASH_MODES, CrashMode
from eventlog.testing.faults import Operation, Stopped
from eventlog.testing.scripts import Progress, Script, play

__all__ = ["CRASH_MODES", "CrashFs", "CrashMode", "FakeClock", "Operation", "Progress", "Script", "Stopped", "play"]
