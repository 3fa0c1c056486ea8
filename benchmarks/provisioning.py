"""How long provisioning takes: synthesis of one mirror, of one of many, of all; deployment of one and of many.

Everything is measured in turn in one run, with the real CDK CLI, on the embedded cloud; the best of several counts.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from localcloud import LocalCloud

_ROOT = Path(__file__).parent.parent
_MANY = 500
_DEPLOYED = 20


def main() -> None:
    """Measure, and print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3, help="of each, in turn; the best counts")
    runs = parser.parse_args().runs
    with tempfile.TemporaryDirectory(prefix="provisioning-") as folder, LocalCloud() as cloud:
        work = Path(folder)
        single, many, some = (_mirrors(work / f"{count}.yaml", count) for count in (1, _MANY, _DEPLOYED))
        cases = {
            "one mirror": ["-c", f"config={single}"],
            f"one of {_MANY} (`-c mirror=NAME`)": ["-c", f"config={many}", "-c", "mirror=Replica-7"],
            f"all {_MANY}": ["-c", f"config={many}"],
        }
        _cdk(cloud, work, ["synth", "--quiet", *cases["one mirror"]])  # The first one fills a cache.
        seconds: dict[str, list[float]] = {case: [] for case in cases}
        for _ in range(runs):
            for case, options in cases.items():
                seconds[case].append(_cdk(cloud, work, ["synth", "--quiet", *options]))
        best = {case: min(values) for case, values in seconds.items()}
        alone, chosen, everything = best.values()
        print("| `cdk synth` | seconds | |\n|---|---|---|")
        notes = (
            "",
            f"{chosen / alone:.2f} times one alone",
            f"{(everything - alone) / (_MANY - 1) * 1000:.1f} ms each",
        )
        for (case, value), note in zip(best.items(), notes, strict=True):
            print(f"| {case} | {value:.2f} | {note} |")
        target = f"aws://{cloud.account}/{cloud.region}"
        _cdk(cloud, work, ["bootstrap", target, "-c", f"config={single}"])
        print(f"\n| `cdk deploy` on the embedded cloud, best of {runs} | seconds | |\n|---|---|---|")
        alone = _deployed(cloud, work, single, ["--all"], runs)
        print(f"| one mirror | {alone:.1f} | |")
        for concurrency in (5, 20):
            took = _deployed(cloud, work, some, ["--all", "--concurrency", str(concurrency)], 1)
            note = f"{took / _DEPLOYED:.1f} s each, {took / _DEPLOYED / alone:.2f} times one alone"
            print(f"| {_DEPLOYED} mirrors, `--concurrency {concurrency}` | {took:.1f} | {note} |")
        spread = max(statistics.stdev(values) / min(values) for values in seconds.values()) if runs > 1 else 0
        print(f"\nLargest spread of a case's synthesis: {spread:.0%} of its best run.")


def _mirrors(path: Path, count: int) -> Path:
    lines = ["defaults:", "  azure: {organization: contoso, project: Shop}", "mirrors:"]
    lines += [f"  Replica-{number}: {{azure: {{repository: Repo-{number}}}}}" for number in range(1, count + 1)]
    path.write_text("\n".join(lines) + "\n")
    return path


def _deployed(cloud: LocalCloud, work: Path, config: Path, options: Sequence[str], runs: int) -> float:
    """Return the best time of a deployment from nothing; destroy it each time."""
    times = []
    for _ in range(runs):
        context = ["-c", f"config={config}"]
        times.append(_cdk(cloud, work, ["deploy", *options, "--require-approval", "never", *context]))
        _cdk(cloud, work, ["destroy", "--all", "--force", *context])
    return min(times)


def _cdk(cloud: LocalCloud, work: Path, arguments: Sequence[str]) -> float:
    command = [str(_ROOT / "node_modules" / ".bin" / "cdk"), *arguments, "--output", str(work / "cdk.out")]
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    clean = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    started = time.monotonic()
    done = subprocess.run(
        [*command, "--no-notices"],
        cwd=_ROOT,
        env={**clean, **cloud.environment(), "PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(f"cdk {arguments[0]} failed:\n{done.stdout}{done.stderr}")
    return time.monotonic() - started


if __name__ == "__main__":
    main()
