"""An index may be searched all the while that it is tuned with ``inplace=False``."""

import json
import subprocess
import sys
from pathlib import Path

from conftest import sized

SOAK = Path(__file__).with_name("soak.py")


def test_a_soak(figure):
    seconds = sized(8, 300)
    ran = subprocess.run(
        [sys.executable, "-W", "error", SOAK, str(seconds)], capture_output=True, text=True, timeout=seconds + 120
    )
    assert ran.returncode == 0, f"ended with {ran.returncode}: {ran.stderr[-2000:]}"
    came = json.loads(ran.stdout.splitlines()[-1])
    assert came["searches"] > 100
    assert came["swapped"] > 0
    assert came["untouched"] == came["tuned"]
    assert came["wrong"] == 0
    figure(
        "served while it is tuned",
        f"{seconds} s, 2 readers, {came['searches']} batches of 64 queries, {came['tuned']} tunings",
        f"{came['swapped']} swaps, {came['wrong']} results of neither state, no crash",
    )
