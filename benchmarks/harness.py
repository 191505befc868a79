"""Times ways to do one job side by side, and prints and writes the one table that all benchmarks have in common."""

import ctypes
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import NamedTuple

import torch
from torch.utils.flop_counter import FlopCounterMode

from utils.files import write_text
from utils.reporting.tables import Column, Row, Table, format_text, write_tables

NAIVE = "naive"  # the way that the others are compared with
DTYPES = {"float32": torch.float32, "bf16": torch.bfloat16}


class Seconds(NamedTuple):
    """Time on the clock, and of the processor's cores in this process."""

    wall: float
    cpu: float

    @staticmethod
    def now() -> "Seconds":
        return Seconds(time.perf_counter(), time.process_time())

    def until_now(self) -> "Seconds":
        return Seconds(*(now - then for now, then in zip(Seconds.now(), self, strict=True)))


@dataclass(frozen=True)
class Way:
    """One way to do a job."""

    run: Callable[[], Seconds]  # does a part of the job
    amount: float = 1  # of that part, in the unit in which `compare` is told the whole
    goal: str = ""
    floor: float | None = None  # seconds that the whole job takes at least


@dataclass(frozen=True)
class Measurement:
    """One row of the table: seconds of the whole job, or bytes."""

    what: str
    naive: float | None
    ours: float
    goal: str = ""
    floor: float | None = None
    sample: str = ""  # what was measured of the job, and how often
    rounds: Mapping[str, Sequence[float]] = field(default_factory=dict)  # seconds of every round, unscaled
    unit: str = "s"

    @property
    def cells(self) -> tuple[str | None, ...]:
        """What the table says: naive, ours, ratio, share of the floor."""
        ours = quantity(self.ours, self.unit)
        floor = None if self.floor is None else f"{100 * self.floor / self.ours:.0f} %"
        if self.naive is None:
            return None, ours, None, floor
        return quantity(self.naive, self.unit), ours, f"{self.naive / self.ours:.3g}x", floor


def timed(run: Callable[..., object], *arguments: object) -> Seconds:
    """Call a function and return how long it took."""
    begin = Seconds.now()
    run(*arguments)
    return begin.until_now()


def compare(
    what: str,
    ways: dict[str, Way],
    rounds: int,
    whole: float = 1,
    unit: str = "",
    warm_up: int = 1,
    clocks: Sequence[str] = ("wall",),
) -> list[Measurement]:
    """Time all ways in turn, so that all see the same moods of the machine: a row for each but `NAIVE`, and each clock.

    The median of some rounds counts, after those to warm up, scaled to the whole job. Its size and the amounts of the
    ways have one unit, such as "videos"; it is empty where every way does the whole job.
    """
    seconds: dict[str, list[Seconds]] = {name: [] for name in ways}
    for _ in range(warm_up + rounds):
        for name, way in ways.items():
            seconds[name].append(way.run())
    rows = []
    for name in [name for name in ways if name != NAIVE]:
        sample = f"naive {ways[NAIVE].amount:g}, ours {ways[name].amount:g} {unit}, " if unit else ""
        for clock in clocks:
            measured = {n: [getattr(times, clock) for times in seconds[n]] for n in (NAIVE, name)}
            naive, ours = (whole / ways[n].amount * statistics.median(measured[n][warm_up:]) for n in (NAIVE, name))
            title = f"{what}, {name}" if clock == "wall" else f"{what}, {name}, CPU time"
            floor = ways[name].floor if clock == "wall" else None
            row = Measurement(title, naive, ours, ways[name].goal, floor, f"{sample}{rounds} rounds", measured)
            print(f"{title}: {', '.join(filter(None, row.cells))} ({row.sample})", flush=True)
            rows.append(row)
    return rows


def report(
    stem: Path, title: str, rows: Sequence[Measurement], rates: Mapping[str, float] = {}, notes: Mapping[str, str] = {}
) -> None:
    """Print the table with `matrix_rates`, and write it in all formats, with all rounds in a further JSON file."""
    gpu = f"{torch.cuda.get_device_name()}, " if torch.cuda.is_available() else ""
    machine = {
        "processor": f"{gpu}{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
        "threads": torch.get_num_threads(),
        "PyTorch": torch.__version__,
        "time": time.strftime("%Y-%m-%d %H:%M"),
        **{precision: f"{rate / 1e9:.0f} GFLOP/s" for precision, rate in rates.items()},
        **notes,
    }
    columns = tuple(Column(name) for name in ("naive", "ours", "ratio", "share of the floor"))
    lines = tuple(Row((row.what, row.goal, row.sample), row.cells) for row in rows)
    note = "; ".join(f"{name} {value}" for name, value in machine.items())
    table = Table(title, ("what", "goal", "sizes"), columns, lines, (note,))
    write_tables(stem, table)
    everything = {"machine": machine, "measurements": [asdict(row) for row in rows]}
    write_text(stem.with_name(f"{stem.name}_measurements.json"), json.dumps(everything, indent=1))
    print(f"\n{format_text(table)}\nwritten to {stem}.* and {stem}_measurements.json")


def quantity(value: float, unit: str) -> str:
    """Format three significant digits with a unit that suits."""
    if unit == "bytes":
        return f"{value / 1e9:.2f} GB" if value >= 1e9 else f"{value / 1e6:.0f} MB"
    if value >= 100:
        return f"{value:,.0f} s"
    factor, name = (1, "s") if value >= 1 else (1e-3, "ms") if value >= 1e-3 else (1e-6, "us")
    return f"{value / factor:.3g} {name}"


def matrix_rates(size: int = 2048, rounds: int = 10) -> dict[str, float]:
    """Return the operations a second of a product of square matrices on the CPU, by precision: the best of some rounds.

    A job's floor is the number of its operations over this rate: the least time that it could take.
    """
    rates = {}
    for precision, dtype in DTYPES.items():
        a, b = torch.randn(size, size, dtype=dtype), torch.randn(size, size, dtype=dtype)
        rates[precision] = 2 * size**3 / min(timed(torch.mm, a, b).wall for _ in range(rounds))
    return rates


def count_operations(run: Callable[[], object]) -> int:
    """Return the operations of all matrix products that a function computes."""
    with FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()


def peak_bytes(run: Callable[[], object], device: torch.device) -> int:
    """Return the bytes that a function needs at most on top of what was taken before."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        return torch.cuda.max_memory_allocated() - before
    ctypes.CDLL(None).malloc_trim(0)  # what was freed goes back to the system
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again
    before = resident_bytes("VmRSS")
    run()
    return resident_bytes("VmHWM") - before


def resident_bytes(field: str) -> int:
    """Return the memory that this process has resident, mapped files included: now ("VmRSS") or at most ("VmHWM")."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))
