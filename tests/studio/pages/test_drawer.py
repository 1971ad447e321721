"""What is kept between two clicks."""

from concurrent.futures import ThreadPoolExecutor

from studio.pages.drawer import Drawer


def test_the_newest_answers_are_kept() -> None:
    drawer: Drawer[int] = Drawer()
    for number in range(64):
        drawer.put(str(number), number)
    drawer.put("0", 100)  # used again, so it is not the oldest any more
    drawer.put("new", 101)
    assert (drawer.get("0"), drawer.get("1"), drawer.get("new")) == (100, None, 101)
    assert len(drawer.items()) == 64
    assert drawer.items()[-2:] == [("0", 100), ("new", 101)]


def test_many_handlers_use_it_at_once() -> None:
    drawer: Drawer[int] = Drawer()

    def work(start: int) -> None:
        for number in range(start, start + 3_000):
            drawer.put(str(number % 100), number)
            assert len(drawer.items()) <= 64

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(0, 24_000, 3_000)))  # raises what a thread raised
