"""Leave out each sync and change each order that the store relies on, in turn, and say which crash shows it.

Sweeps every case of tests/crash after every crash, also after each kill and a second run; takes many minutes.
With --thorough every combination of lost bytes and lost names counts.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent / "tests" / "crash"))

from crash_cases import store_cases
from hub_cases import hub_cases
from serve_cases import serve_cases

from eventlog.testing.judge import Judge
from eventlog.testing.mutate import Mutations, table


def main() -> int:
    """Print the table; exit 1 when something was not noticed, or a crash broke a promise."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--thorough", action="store_true", help="every combination of what a power loss can leave")
    arguments = parser.parse_args()
    mutations = Mutations()
    problems = 0
    cases = (*store_cases(), *serve_cases(), *hub_cases())
    for case in sorted(cases, key=lambda case: "killed" in case.name):
        judge = Judge(
            case if arguments.thorough else case._replace(trace=case.trace.joined()), thorough=arguments.thorough
        )
        for made, problem in judge.problems():
            problems += 1
            print(f"{case.name}: after {made} changes: {problem}")
        mutations.add(judge)
        print(f"{case.name}: {len(judge.case.trace.changes)} changes, {judge.judged} distinct disks", flush=True)
    print("\n".join(table(mutations.caught.items())))
    for site, where in mutations.missed.items():
        print(f"not noticed: {site}, in {len(where)} cases")
    print(f"{len(mutations.caught)} noticed, {len(mutations.missed)} not noticed, {problems} problems")
    return 1 if problems or len(mutations.missed) > 1 else 0


if __name__ == "__main__":
    sys.exit(main())
