"""One of Python's process pools: `peers.py workers what`. Says `ready`, then for each line with a count `seconds sum`."""

import sys
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import Pool


def same(x):
    return x


def map_all(pool, count):
    return sum(pool.map(same, range(count)))


def submit(executor, count):
    return sum(future.result() for future in [executor.submit(same, x) for x in range(count)])


def round_trip(executor, count):
    return sum(executor.submit(same, x).result() for x in range(count))


MEASURED = {"map": (Pool, map_all), "submit": (ProcessPoolExecutor, submit), "round_trip": (ProcessPoolExecutor, round_trip)}


def main():
    make, measure = MEASURED[sys.argv[2]]
    with make(int(sys.argv[1])) as pool:
        measure(pool, 100)
        print("ready", flush=True)
        while count := sys.stdin.readline():
            began = time.perf_counter()
            total = measure(pool, int(count))
            print(time.perf_counter() - began, total, flush=True)


if __name__ == "__main__":
    main()
