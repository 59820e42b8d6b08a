"""The exercises: your progress, checks, hints, solutions and marks.

    python lessons/exercises
    python lessons/exercises check 03a     (or hint, solution, reset)
    python lessons/exercises grade FOLDER
    python lessons/exercises grade --class FOLDER --csv marks.csv --feedback DIR

The first command shows your progress and the next file to open. Your answers are in answers/,
which git ignores. Only "reset" replaces a file there, and it keeps a backup.
"""

import argparse
import json
import shlex
import sys
import time
from pathlib import Path

sys.path[:0] = map(str, Path(__file__).resolve().parents[1:3])

from exercises.checking import ANSWERS, COMMAND, EXERCISES, FILES, SECONDS, copy_stubs, mark  # noqa: E402
from exercises.checking import check as check_one  # noqa: E402
from exercises.grading import (as_line, copies_of, grade_class, grade_one, hint_at_names,  # noqa: E402
                               is_told, missing_files, not_graded, read_answers, with_missing_files)
from minicontrolnet.errors import Problem  # noqa: E402
from minicontrolnet.run.files import check_place, set_aside, write_and_keep, write_file  # noqa: E402
from minicontrolnet.run.options import any_path, file_to_write, in_range, read_words, report_problems  # noqa: E402

import torch  # noqa: E402  # the package comes before torch, so that Ctrl-C is quiet while torch loads


# The options that have an effect, for each command; any other option is refused.
OPTIONS = {"show": ["answers"], "check": ["answers", "seed"], "hint": ["answers"], "solution": ["answers", "show"],
           "reset": ["answers", "yes"], "grade": ["seed", "only", "json"],
           "grade --class": ["seed", "only", "class", "csv", "feedback"]}


def advice(args: argparse.Namespace, words: str) -> str:
    """A command to type next. It names the folder of the answers, if that is not the usual one."""
    return f"{COMMAND} {words}{elsewhere(args, ' --answers ')}"


def elsewhere(args: argparse.Namespace, option: str) -> str:
    """An option with the folder of the answers; "" if it is the usual one."""
    return "" if args.answers == ANSWERS else option + shlex.quote(str(args.answers))


def show(args: argparse.Namespace) -> None:
    """List the exercises and what to do next."""
    for id, exercise in EXERCISES.items():
        done = "x" if id in args.passed else " "
        print(f"[{done}] {id}  {exercise.task:48} {exercise.minutes:2} min  {exercise.paper}")
    print(f"\n{len(args.passed)} of {len(EXERCISES)} passed")
    todo = next((exercise for id, exercise in EXERCISES.items() if id not in args.passed), None)
    if todo:
        print(f"next: {todo.id}, write {todo.name} in {args.answers / todo.file}\n"
              f"then: {advice(args, f'check {todo.id}')}")
    else:
        print(f"You have passed them all. Now run the lessons with --mine{elsewhere(args, ' ')}.")


def check(args: argparse.Namespace) -> None:
    """Check one exercise, or all of them. The status is 1 unless everything passes."""
    torch.set_num_threads(1)  # two threads that wait for one core are slower than one
    ids = [args.what] if args.what else list(EXERCISES)
    for id in ids:
        message = check_one(EXERCISES[id], args.answers, args.seed)
        passes = bool(mark(message))
        (args.passed.add if passes else args.passed.discard)(id)
        print(f"{id} {EXERCISES[id].name}: {message}", end="", flush=True)
        print("" if passes else elsewhere(args, " --answers "))  # the message ends with the next command
        for copy in [] if passes else copies_of(EXERCISES[id].file, args.answers):
            print(f"there is also {as_line(copy)}, which is not checked; an answer needs the name {EXERCISES[id].file}")
        if args.what and passes:
            print(f"see it at work: python lessons/{EXERCISES[id].file[2:]} --mine{elsewhere(args, ' ')}")
    sys.exit(int(not args.passed.issuperset(ids)))


def hint(args: argparse.Namespace) -> None:
    """Print the first hint, then the second one."""
    again = args.what in args.hints
    print(EXERCISES[args.what].hints[again])
    more = f"solution {args.what} --show" if again else f"hint {args.what}"
    print(f"   more: {advice(args, more)}")
    args.hints.add(args.what)


def solution(args: argparse.Namespace) -> None:
    """Print the package's own source, once you have passed or with --show."""
    if args.what not in args.passed and not args.show:
        raise Problem(f"you have not passed {args.what} yet; try {advice(args, f'hint {args.what}')}, or give --show"
                      " to see the solution anyway")
    print("#", EXERCISES[args.what].solution)
    print(EXERCISES[args.what].source())


def reset(args: argparse.Namespace) -> None:
    """Start a file again. Your version becomes a backup."""
    mine = args.answers / EXERCISES[args.what].file
    ids = [id for id, exercise in EXERCISES.items() if exercise.file == mine.name]
    if len(ids) > 1 and not args.yes:
        raise Problem(f"{mine.name} contains {', '.join(ids)}, and all of them would be reset; if you want this,"
                      f" give {advice(args, f'reset {args.what} --yes')} (it keeps a backup)")
    backup = set_aside(mine)
    copy_stubs(args.answers)
    args.passed.difference_update(ids)
    print(f"{mine.name} is new again. Your version is in {backup}.")


def grade(args: argparse.Namespace) -> None:
    """Check a folder of answers, or a class, and change nothing there. This runs their code."""
    folder = (args.students or Path(args.what or ".")).resolve()
    for path in filter(None, (args.csv, args.json, args.feedback)):
        if path.resolve().is_relative_to(folder):
            raise Problem(f"{path} lies in {folder}, and grading changes nothing there; give a place outside")
    for path in filter(None, (args.csv, args.json, args.feedback and args.feedback / "page.md")):
        check_place(path)
    if args.students:
        grade_class(args.students, args.csv, args.feedback, args.seed, args.only)
        return
    check_folder(folder)
    marks = {}
    missing = missing_files(folder)
    messages = grade_one(read_answers(folder), folder, args.seed, args.only, quiet=False, seconds=SECONDS)
    messages = with_missing_files(messages, missing)
    for id, message in messages.items():
        marks[id] = {"passed": bool(mark(message)), "message": message}
        word = {1: "passed", 0: "not passed", None: "not begun"}[mark(message)]
        print(f"{id}  {word}", flush=True)
    passed = sum(one["passed"] for one in marks.values())
    print(f"{passed} of {len(marks)} passed (seed {args.seed})")
    graded = {EXERCISES[id].file for id in marks}
    for sentence in [why for file, why in missing.items() if file in graded and is_told(why)] + not_graded(folder):
        print(sentence)
    if args.json:
        content = {"answers": str(folder), "date": time.strftime("%Y-%m-%d"), "seed": args.seed,
                   "passed": passed, "of": len(marks), "exercises": marks}
        write_and_keep(args.json, json.dumps(content, indent=1).encode())


def check_folder(folder: Path) -> None:
    """Raise Problem unless the folder contains answers."""
    if not folder.is_dir():
        raise Problem(f"{folder} is not a folder; grade the folder with the answers")
    if any((folder / path.name).exists() for path in FILES):
        return
    first = FILES[0].name
    below = ", ".join(sorted(path.parent.name for path in folder.glob(f"*/{first}")))
    others = f", such as {below} in it" if below else ""
    raise Problem(f"{folder} contains no answers (no {first} and so on); grade another folder{others}"
                  f"{'' if below else hint_at_names(folder)}")


# %% The command line


def read_options(words: list[str] | None) -> argparse.Namespace:
    commands = {run.__name__: run for run in (show, check, hint, solution, reset, grade)}
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    text = "\n".join(f"{name}: {run.__doc__}" for name, run in commands.items())
    parser.add_argument("command", choices=commands, nargs="?", default="show", help=text)
    parser.add_argument("what", nargs="?", help="an exercise; for grade a folder")
    parser.add_argument("--answers", type=any_path, default=ANSWERS, metavar="DIR")
    parser.add_argument("--seed", type=in_range(int, 0, 2**31), default=0)
    parser.add_argument("--show", action="store_true", help="solution: show it although you have not passed")
    parser.add_argument("--yes", action="store_true", help="reset: the whole file")
    parser.add_argument("--only", nargs="+", action="extend", metavar="ID",
                        help="grade: only these exercises, such as 03a 05a")
    parser.add_argument("--json", type=file_to_write(".json"), help="grade: write the marks and messages here")
    parser.add_argument("--class", type=any_path, metavar="DIR", dest="students",
                        help="grade: the folder that contains a folder for each student")
    parser.add_argument("--csv", type=file_to_write(".csv"), help="grade --class: write the marks here")
    parser.add_argument("--feedback", type=any_path, metavar="DIR", help="grade --class: write a page for each student")
    args = read_words(parser, words)
    refuse_idle_options(parser, args)
    args.run = commands[args.command]
    args.answers = args.answers.resolve()
    if args.answers == FILES[0].parent.resolve():
        parser.error("--answers names the folder of the exercises themselves; give another folder")
    given = args.only or []
    if args.run != grade:
        given = [args.what] if args.what else []
        if given and args.run == show:
            parser.error(f"show lists all exercises; give check {args.what} or hint {args.what}")
        if not given and args.run not in (show, check):
            parser.error(f"give an exercise, such as {args.command} 03a")
    for id in given:
        if id.lower() not in EXERCISES:
            parser.error(f"there is no exercise {id!r}; there are {', '.join(EXERCISES)}")
    ids = [id.lower() for id in given]
    if args.run == grade:
        args.only = [id for id in EXERCISES if id in ids or not ids]
    else:
        args.what = ids[0] if ids else None
    return args


def refuse_idle_options(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """End with one sentence if an option, or the folder beside --class, has no effect on the command."""
    command = "grade --class" if args.command == "grade" and args.students else args.command
    for name in dict.fromkeys(name for names in OPTIONS.values() for name in names):
        attribute = "students" if name == "class" else name
        is_given = getattr(args, attribute) != parser.get_default(attribute)
        if is_given and name not in OPTIONS[command]:
            right = " or ".join(other for other, names in OPTIONS.items() if name in names)
            parser.error(f"--{name} has no effect on {command}; it is for {right}")
    if command == "grade --class" and args.what:
        parser.error(f"grade takes one folder, and there are {args.what!r} and --class; leave out one of them")


def main(words: list[str] | None = None) -> None:
    report_problems()
    args = read_options(words)
    if args.run == grade:
        return grade(args)
    copy_stubs(args.answers)
    progress = args.answers / "progress.json"
    check_place(progress)
    args.passed, args.hints = read_progress(progress)
    try:
        args.run(args)
    finally:
        kept = {"passed": sorted(args.passed), "hints": sorted(args.hints)}
        write_file(progress, json.dumps(kept).encode())


def read_progress(path: Path) -> tuple[set[str], set[str]]:
    """The exercises that are passed, and those whose first hint was shown."""
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        return set(EXERCISES).intersection(kept["passed"]), set(EXERCISES).intersection(kept["hints"])
    except FileNotFoundError:
        return set(), set()
    except Exception:  # it is damaged; checking again restores what was passed
        print(f"your progress begins anew, because {path.name} was damaged; it is now {set_aside(path)}")
        return set(), set()


if __name__ == "__main__":
    main()
