"""Train, evaluate and write down one case, or draw the table of all of them.

    python benchmarks/learn.py --list
    python benchmarks/learn.py pendulum                     # the default memory
    python benchmarks/learn.py pendulum --memories xlstm lstm gru transformer --match parameters
    python benchmarks/learn.py --page docs/learning.md      # from benchmarks/results/learning/

The case is trained by `xlstm-rl compare` with the released defaults, in runs/learning/<case>, and
goes on there if it was stopped. Words behind the case are options of that command.
"""

import argparse
import shlex
import sys
from pathlib import Path

from learning import results
from learning.cases import CASES
from learning.tables import ALL, GROUPS

from xlstm_rl.cli.compare import prepare
from xlstm_rl.comparing.compare import compare, is_complete, write_report
from xlstm_rl.config import ConfigError


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("case", nargs="?", choices=list(ALL), help="what is learned")
    parser.add_argument("--list", action="store_true", help="say which cases there are")
    parser.add_argument("--page", type=Path, help="write the table of all results into this page")
    parser.add_argument("--out", type=Path, default=Path("runs/learning"), help="folder of runs")
    parser.add_argument("options", nargs=argparse.REMAINDER, help="options of xlstm-rl compare")
    args = parser.parse_args()
    rest = args.options
    if args.list:
        for name, case in ALL.items():
            print(f"{name:<32}{case.total_steps:>10,} steps  {case.seeds} seeds  {case.options}")
        return 0
    if args.page is not None:
        return _page(args.page)
    if args.case is None:
        parser.error("expected a case; --list shows them")
    case = ALL[args.case]
    words = [*shlex.split(case.options), "--total-steps", str(case.total_steps)]
    words += ["--seeds", str(case.seeds), "--out", str(args.out / args.case), *rest]
    try:
        prepared = prepare(words)
    except ConfigError as error:
        parser.error(str(error))
    report = compare(prepared.jobs, prepared.out, prepared.options.jobs, prepared.thresholds)
    write_report(report, prepared.out)
    command = shlex.join(["python", "benchmarks/learn.py", args.case, *rest])
    path = results.write(args.case, case, report, command)
    print(results.compared(results.read(), {args.case: case}))
    print(f"wrote {path}")
    return 0 if is_complete(report) else 1


def _page(path: Path) -> int:
    found = results.read()
    text = path.read_text(encoding="utf-8")
    for name, cases in GROUPS.items():
        head, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
        before, _, rest = text.partition(head)
        table = results.page(found) if cases is CASES else results.compared(found, cases)
        text = f"{before}{head}{table}{end}{rest.partition(end)[2]}"
    path.write_text(text, encoding="utf-8")
    results.draw(found, path.parent / "images" / "learning.png")
    print(f"wrote {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
