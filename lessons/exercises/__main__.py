"""python lessons/exercises [check | hint | solution | reset] 03a, or grade FOLDER,
or grade --class FOLDER --csv marks.csv --feedback DIR

Without a word it shows your progress and the next file to open. Answers are written in
answers/, which git ignores; only "reset" replaces a file there, and it keeps a backup.
"""

import argparse
import json
import sys
import time
from itertools import count
from pathlib import Path

sys.path[:0] = map(str, Path(__file__).resolve().parents[1:3])

from exercises.checking import (ANSWERS, COMMAND, EXERCISES, FILES,  # noqa: E402
                                copy_stubs, mark, verdicts)
from exercises.classroom import grade_class  # noqa: E402
from minicontrolnet.errors import Problem  # noqa: E402
from minicontrolnet.run.files import write_file  # noqa: E402
from minicontrolnet.run.options import file_to_write, in_range, report_problems  # noqa: E402


def show(args: argparse.Namespace) -> None:
    """The list, and what to do next."""
    for id, exercise in EXERCISES.items():
        print(f"[{'x' if id in args.passed else ' '}] {id}  {exercise.task:48}"
              f" {exercise.minutes:2} min  {exercise.paper}")
    print(f"\n{len(args.passed)} of {len(EXERCISES)} passed")
    todo = next((e for id, e in EXERCISES.items() if id not in args.passed), None)
    print(f"next: {todo.id}, write {todo.name} in {args.answers / todo.file}\n"
          f"then: {COMMAND} check {todo.id}" if todo else "all done: --mine is next")


def check(args: argparse.Namespace) -> None:
    """Check one exercise, or all; the status is 1 unless everything passes."""
    ids = [args.what] if args.what else EXERCISES
    for id, said in verdicts(ids, args.answers, args.seed):
        right = bool(mark(said))
        (args.passed.add if right else args.passed.discard)(id)
        print(f"{id} {EXERCISES[id].name}: {said}", flush=True)
        if args.what and right:
            print(f"see it work: python lessons/{EXERCISES[id].file[2:]} --mine")
    sys.exit(int(not args.passed.issuperset(ids)))


def hint(args: argparse.Namespace) -> None:
    """The first hint, then the second; from then on the second again."""
    again = args.what in args.hints
    print(EXERCISES[args.what].hints[again])
    more = f"solution {args.what} --show" if again else f"hint {args.what}"
    print(f"   more: {COMMAND} {more}")
    args.hints.add(args.what)


def solution(args: argparse.Namespace) -> None:
    """The package's own source, after passing or with --show."""
    if args.what not in args.passed and not args.show:
        raise Problem(f"{args.what} is not passed yet; try {COMMAND} hint {args.what},"
                      " or give --show to see the solution all the same")
    print("#", EXERCISES[args.what].solution)
    print(EXERCISES[args.what].source())


def reset(args: argparse.Namespace) -> None:
    """Begin a file again; what was written goes to a backup."""
    mine = args.answers / EXERCISES[args.what].file
    ids = [id for id, exercise in EXERCISES.items() if exercise.file == mine.name]
    if len(ids) > 1 and not args.yes:
        raise Problem(f"{mine.name} holds {', '.join(ids)}: all of them are reset, a"
                      f" backup is kept; go on with {COMMAND} reset {args.what} --yes")
    backups = (mine.with_suffix(f".backup{i}.py") for i in count(1))
    backup = mine.rename(next(path for path in backups if not path.exists()))
    copy_stubs(args.answers)
    args.passed.difference_update(ids)
    print(f"{mine.name} is as it came; what you wrote is in {backup}")


def grade(args: argparse.Namespace) -> None:
    """Check a folder of answers, or a class; change nothing. It runs their code."""
    if args.students:
        return grade_class(args.students, args.csv, args.feedback, args.seed, args.only)
    folder, first = Path(args.what or ".").resolve(), FILES[0].name
    if not any((folder / path.name).exists() for path in FILES):
        below = ", ".join(sorted(p.parent.name for p in folder.glob(f"*/{first}")))
        raise Problem(f"{folder} holds no answers (no {first} and so on); grade another"
                      f" folder{f', such as {below} in it' if below else ''}")
    marks = {}
    for id, said in verdicts(args.only, folder, args.seed):
        marks[id] = {"passed": bool(mark(said)), "message": said}
        word = {1: "passed", 0: "not passed", None: "not begun"}[mark(said)]
        print(f"{id}  {word}", flush=True)
    passed = sum(one["passed"] for one in marks.values())
    print(f"{passed} of {len(marks)} passed (seed {args.seed})")
    if args.json:
        content = {"answers": str(folder), "date": time.strftime("%Y-%m-%d"), "seed":
                   args.seed, "passed": passed, "of": len(marks), "exercises": marks}
        write_file(args.json, json.dumps(content, indent=1).encode())


def read_options(words: list[str] | None) -> argparse.Namespace:
    runs = {run.__name__: run for run in (show, check, hint, solution, reset, grade)}
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__,
                                     formatter_class=argparse.RawTextHelpFormatter)
    text = "\n".join(f"{name}: {run.__doc__}" for name, run in runs.items())
    parser.add_argument("command", choices=runs, nargs="?", default="show", help=text)
    parser.add_argument("what", nargs="?", help="an exercise; for grade a folder")
    parser.add_argument("--answers", type=Path, default=ANSWERS, metavar="DIR")
    parser.add_argument("--seed", type=in_range(int, 0, 2**31), default=0)
    parser.add_argument("--show", action="store_true", help="solution: unpassed, too")
    parser.add_argument("--yes", action="store_true", help="reset: the whole file")
    parser.add_argument("--only", nargs="+", metavar="ID", default=list(EXERCISES),
                        help="grade: these exercises alone, such as 03a 05a")
    parser.add_argument("--json", type=file_to_write(".json"), help="grade: the marks")
    parser.add_argument("--class", type=Path, metavar="DIR", dest="students",
                        help="grade: the folder that holds a folder a student")
    parser.add_argument("--csv", type=file_to_write(".csv"), help="grade: class marks")
    parser.add_argument("--feedback", type=Path, metavar="DIR",
                        help="grade --class: a page a student")
    args = parser.parse_args(words, argparse.Namespace(passed=set(), hints=set()))
    args.run, args.answers = runs[args.command], args.answers.resolve()
    args.what = args.what if args.run == grade else args.what and args.what.lower()
    none = [None] if args.run in (show, check) else []
    only = [id.lower() for id in args.only]
    for id in only if args.run == grade else [args.what]:
        if id not in [*EXERCISES, *none]:
            parser.error(f"{id!r} is no exercise; there are {', '.join(EXERCISES)}")
    args.only = [id for id in EXERCISES if id in only]
    return args


def main(words: list[str] | None = None) -> None:
    report_problems()
    args = read_options(words)
    if args.run == grade:
        return grade(args)
    copy_stubs(args.answers)
    path, keys = args.answers / "progress.json", ("passed", "hints")
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        args.passed, args.hints = (set(EXERCISES).intersection(kept[k]) for k in keys)
    except Exception:  # none yet, or damaged in any way: checks bring it back
        pass
    try:
        args.run(args)
    finally:
        write_file(path, json.dumps({k: sorted(vars(args)[k]) for k in keys}).encode())


if __name__ == "__main__":
    main()
