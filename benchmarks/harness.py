"""Time several implementations of a job in turn, and write the table of all benchmarks."""

import ctypes
import json
import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import product
from pathlib import Path

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from utils.files import write_text
from utils.reporting.tables import Column, Row, Table, format_text, write_tables
from utils.training.device import machine_name

NAIVE = "naive"  # name of the reference implementation
DTYPES = {"float32": torch.float32, "bf16": torch.bfloat16}
CLOCKS = WALL, CPU_TIME = 0, 1  # indices of the times that `clock` returns


@dataclass(frozen=True)
class Way:
    """One implementation of a job."""

    run: Callable[[], np.ndarray]  # performs a part of the job and returns its time, as `timed` does
    amount: float = 1  # size of that part, in the unit of `whole` in `compare`
    goal: str = ""
    floor: float | None = None  # lower bound of the whole job in seconds: its operations over `matrix_rates`


@dataclass(frozen=True)
class Measurement:
    """One row of the table, in seconds of the whole job or in bytes."""

    what: str
    naive: float | None
    ours: float
    goal: str = ""
    floor: float | None = None
    sample: str = ""  # measured part of the job, and number of rounds
    rounds: Mapping[str, Sequence[float]] = field(default_factory=dict)  # seconds of every round, not extrapolated
    unit: str = "s"

    @property
    def cells(self) -> tuple[str | None, ...]:
        """Return the texts of the row's cells: naive, ours, ratio, share of the floor."""
        ours = quantity(self.ours, self.unit)
        floor = None if self.floor is None else f"{100 * self.floor / self.ours:.0f} %"
        if self.naive is None:
            return None, ours, None, floor
        return quantity(self.naive, self.unit), ours, f"{self.naive / self.ours:.3g}x", floor


def clock() -> np.ndarray:
    """Return the wall-clock time and the CPU time of this process in seconds: (2,)."""
    return np.array([time.perf_counter(), time.process_time()])


def timed(run: Callable[..., object], *arguments: object) -> np.ndarray:
    """Call a function and return its time, (2,) as from `clock`."""
    begin = clock()
    run(*arguments)
    return clock() - begin


def compare(
    what: str,
    ways: dict[str, Way],
    rounds: int,
    whole: float = 1,
    unit: str = "",
    warm_up: int = 1,
    clocks: Sequence[int] = (WALL,),
) -> list[Measurement]:
    """Time all implementations in turn, and return a row for each of them but `NAIVE`, and for each clock.

    Times are medians over rounds after the warm-up, extrapolated to the whole job. `unit`, such as "videos", is that of
    the whole and of the amounts; it is empty if every implementation performs the whole job.
    """
    turns = [{name: way.run().tolist() for name, way in ways.items()} for _ in range(warm_up + rounds)]
    rows = []
    for name, which in product([name for name in ways if name != NAIVE], clocks):
        sample = f"naive {ways[NAIVE].amount:g}, ours {ways[name].amount:g} {unit}, " if unit else ""
        measured = {n: [turn[n][which] for turn in turns] for n in (NAIVE, name)}
        naive, ours = (whole / ways[n].amount * statistics.median(measured[n][warm_up:]) for n in (NAIVE, name))
        title, floor = (f"{what}, {name}, CPU time", None) if which else (f"{what}, {name}", ways[name].floor)
        rows.append(Measurement(title, naive, ours, ways[name].goal, floor, f"{sample}{rounds} rounds", measured))
        print(f"{title}: {', '.join(filter(None, rows[-1].cells))} ({rows[-1].sample})", flush=True)
    return rows


def report(
    stem: Path, title: str, rows: Sequence[Measurement], rates: Mapping[str, float] = {}, notes: Mapping[str, str] = {}
) -> None:
    """Print the table with the machine and its `matrix_rates`; write it in all formats, and the rounds as JSON."""
    machine = {"processor": f"{machine_name('cpu')}, {os.cpu_count()} cores", "time": time.strftime("%Y-%m-%d %H:%M")}
    if torch.cuda.is_available():
        machine["GPU"] = torch.cuda.get_device_name()
    machine |= {**{precision: f"{rate / 1e9:.0f} GFLOP/s" for precision, rate in rates.items()}, **notes}
    columns = tuple(Column(name) for name in ("naive", "ours", "ratio", "share of the floor"))
    lines = tuple(Row((row.what, row.goal, row.sample), row.cells) for row in rows)
    note = "; ".join(f"{name} {value}" for name, value in machine.items())
    table = Table(title, ("what", "goal", "sizes"), columns, lines, (note,))
    write_tables(stem, table)
    everything = {"machine": machine, "measurements": [asdict(row) for row in rows]}
    write_text(stem.with_name(f"{stem.name}_measurements.json"), json.dumps(everything, indent=1))
    print(f"\n{format_text(table)}\nwritten to {stem}.* and {stem}_measurements.json")


def quantity(value: float, unit: str) -> str:
    """Format seconds ("s") or bytes ("bytes") with a suitable unit."""
    if unit == "bytes":
        return f"{value / 1e9:.2f} GB" if value >= 1e9 else f"{value / 1e6:.0f} MB"
    if value >= 100:
        return f"{value:,.0f} s"
    factor, name = (1, "s") if value >= 1 else (1e-3, "ms") if value >= 1e-3 else (1e-6, "us")
    return f"{value / factor:.3g} {name}"


def matrix_rates(size: int = 2048, rounds: int = 10) -> dict[str, float]:
    """Return the peak rate of matrix products on the CPU in operations per second, by precision, for `Way.floor`."""
    rates = {}
    for precision, dtype in DTYPES.items():
        a, b = torch.randn(2, size, size, dtype=dtype)
        rates[precision] = 2 * size**3 / min(timed(torch.mm, a, b)[WALL] for _ in range(rounds))
    return rates


def count_operations(run: Callable[[], object]) -> int:
    """Return the number of operations in all matrix products of a function."""
    with FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()


def peak_bytes(run: Callable[[], object], device: torch.device) -> int:
    """Return the peak memory that a function allocates, in bytes."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        return torch.cuda.max_memory_allocated() - before
    ctypes.CDLL(None).malloc_trim(0)  # returns freed memory to the system
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    before = resident_bytes("VmRSS")
    run()
    return resident_bytes("VmHWM") - before


def resident_bytes(field: str) -> int:
    """Return this process's resident bytes, mapped files included: current ("VmRSS") or peak ("VmHWM")."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))
