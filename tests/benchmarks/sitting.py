"""A contestant without libraries: `python -m tests.benchmarks.sitting NAME CASE`."""

import sys
import time

from benchmarks.seat import Pace, Seat, case_from_arguments, take_turns


def main() -> None:
    name, case = case_from_arguments()
    seat = Seat()
    print("what libraries print is no answer")
    if name == "stepping":
        pace = Pace(seat, case, lambda: 2.5)
        pace.begin()
        while True:
            time.sleep(0.01)
            pace.leave_out()
            pace.after_step(7)
    turns = iter(range(2))

    def work() -> dict[str, float]:
        if name == "dying" and next(turns, None) is None:
            sys.exit("it was too much")
        return {"tokens": 5, "begun_at": time.monotonic()}

    take_turns(seat, work, threads=1)


if __name__ == "__main__":
    main()
