"""The tables of `bisect_tool profile`."""

from __future__ import annotations

from pathlib import Path

from bisect_tool.analysis import limits, ncu, perf
from bisect_tool.analysis.launches import Cell
from bisect_tool.reporting import profile

DATA = Path(__file__).parent.parent / "data" / "ncu"


def recorded(M: int) -> limits.Profiled:
    text = (DATA / f"5120x13824-M{M}.csv").read_text()
    return limits.profiled(Cell("here", 5120, 13824, M), ncu.kernels(text))


def test_limits_as_tables_that_say_which_unit_is_busiest() -> None:
    text = profile.limits_text([recorded(1), recorded(3)], cold=False)
    assert text.startswith("**5120 → 13824**, affine 4-bit, group 64, float16\n- limited by L1")
    assert "| 5120 → 13824 | 3   | qmv_kernel | (1728, 3, 1) | (32, 8, 1) | 6.55" in text
    row = next(line for line in text.splitlines() if line.startswith("| 5120") and "36.37 M" in line)
    assert row.count("**") == 2 and "| **98 %** |" in row and "| 4.02 " in row
    assert "- `qmv_kernel<8, 16, 64, 1, 0, half_t, integer_subbyte<4, 0>, half_t>`" in text
    assert "as the calls before left them" in text and "emptied" in profile.limits_text(
        [recorded(1)], cold=True
    )


def test_no_time_is_printed() -> None:
    for text in (profile.limits_text([recorded(1)], cold=False), str(profile.limits_data([recorded(1)]))):
        assert " µs" not in text and " ms" not in text


def test_what_is_not_counted_is_a_dash() -> None:
    bare = limits.profiled(Cell("here", 64, 64, 1), [ncu.Kernel("kernel(int)", "(1, 1, 1)", "(32, 1, 1)")])
    text = profile.limits_text([bare], cold=False)
    assert "| kernel   | (1, 1, 1) | (32, 1, 1) | –              | –           | – of –      |" in text


def test_limits_as_data_keep_the_names_of_ncu() -> None:
    (one,) = profile.limits_data([recorded(3)])
    assert one["cell"] == {
        "K": 5120, "N": 13824, "M": 3, "bits": 4, "group_size": 64, "mode": "affine", "dtype": "float16",
        "transpose": True,
    }  # fmt: skip
    assert one["kernels"][0]["counters"]["launch__waves_per_multiprocessor"] == 6.55
    assert profile.readings_data([recorded(1), recorded(3)])[0]["says"][0].startswith("limited by L1")


def sampled(counters: dict[str, float]) -> perf.Sampled:
    functions = [perf.Function(f"f{n}", "lib.so", share) for n, share in enumerate([0.6, 0.3, 0.08])]
    return perf.Sampled((*functions, perf.Function("rare", "lib.so", 0.02)), 1000, counters, 4)


def test_samples_name_what_matters() -> None:
    found = [(Cell("here", 640, 640, 3), sampled({}))]
    text = profile.samples_text(found)
    assert "| 640 → 640 | 3   | f0         | lib.so    | 60.0 %  | 1000         |" in text
    assert "this machine counts no instructions" in text and "a cycle" not in text
    many = perf.Sampled(tuple(perf.Function(f"g{n}", "", 0.1) for n in range(10)), 10, {}, 1)
    assert "all others" in profile.samples_text([(Cell("here", 640, 640, 3), many)])


def test_counters_are_given_for_each_call() -> None:
    counted = sampled({"instructions": 8e6, "cycles": 4e6, "cache-misses": 4000})
    text = profile.samples_text([(Cell("here", 640, 640, 3), counted)])
    assert "| 640 → 640 | 3   | 4       | 2.00 M                | 2.00      | 1,000                 |" in text
    some = sampled({"instructions": 8e6})
    assert "| 2.00 M                | –         | –" in profile.samples_text(
        [(Cell("here", 640, 640, 3), some)]
    )
    (data,) = profile.samples_data([(Cell("here", 640, 640, 3), counted)])
    assert data["counters"]["cycles"] == 4e6 and data["functions"][0]["share"] == 0.6


def test_captures_say_how_to_open_them() -> None:
    found = [(Cell("here", 5120, 1024, 3), Path("/builds/x.gputrace"))]
    text = profile.captures_text(found)
    assert "| 5120 → 1024 | 3   | /builds/x.gputrace" in text and "`open FILE` (Xcode)" in text
    assert profile.captures_data(found)[0]["capture"] == "/builds/x.gputrace"
