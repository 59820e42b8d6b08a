"""python lessons/exercises [check | hint | solution | reset] 03a, or grade FOLDER --json FILE

Without a word it shows your progress and the next file to open. Answers are written in answers/,
which git ignores; only "reset" ever replaces a file there, and it keeps a backup.
"""

import argparse
import inspect
import json
import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]

from exercises.catalogue import EXERCISES, Exercise  # noqa: E402
from exercises.checking import (ANSWERS, COMMAND, check, copy_stubs, grade, lesson_of, reference_of, reset,  # noqa: E402
                                stub_of)
from minicontrolnet import Problem  # noqa: E402
from minicontrolnet.options import number, problems_in_one_sentence  # noqa: E402
from minicontrolnet.training import write_atomically  # noqa: E402


class Progress:
    """What was passed and how many hints were read, kept in answers/progress.json."""

    def __init__(self, answers: Path):
        self.path = answers / "progress.json"
        try:
            kept = json.loads(self.path.read_text(encoding="utf-8"))
            self.passed = set(kept["passed"]) & {exercise.id for exercise in EXERCISES}
            self.hints = {id: int(read) for id, read in dict(kept["hints"]).items()}
        except (OSError, ValueError, KeyError, TypeError):  # none yet, or damaged: checks bring it back
            self.passed, self.hints = set(), {}

    def save(self) -> None:
        with write_atomically(self.path) as file:
            file.write(json.dumps({"passed": sorted(self.passed), "hints": self.hints}).encode())


def find(text: str) -> Exercise:
    """An argparse type: an exercise by its id."""
    for exercise in EXERCISES:
        if exercise.id == text.lower():
            return exercise
    raise argparse.ArgumentTypeError(f"{text!r} is not an exercise; give one of {', '.join(e.id for e in EXERCISES)}")


def show(args: argparse.Namespace, progress: Progress) -> None:
    """The list, and what to do next."""
    for exercise in EXERCISES:
        mark = "x" if exercise.id in progress.passed else " "
        print(f"[{mark}] {exercise.id}  {exercise.task:58} {exercise.minutes:2} min  {exercise.paper}")
    print(f"\n{len(progress.passed)} of {len(EXERCISES)} passed")
    after(progress, args.answers)


def after(progress: Progress, answers: Path) -> None:
    todo = next((exercise for exercise in EXERCISES if exercise.id not in progress.passed), None)
    if todo is None:
        print("all done; every lesson takes --mine now")
        return
    print(f"next: {todo.id}, write {todo.name} in {answers / stub_of(todo).name}\n"
          f"then: {COMMAND} check {todo.id}")


def check_command(args: argparse.Namespace, progress: Progress) -> None:
    wanted = [args.exercise] if args.exercise else EXERCISES
    failed = False
    for exercise in wanted:
        verdict = check(exercise, args.answers, args.seed)
        failed |= not verdict.passed
        (progress.passed.add if verdict.passed else progress.passed.discard)(exercise.id)
        print(f"{exercise.id} {exercise.name}: {verdict.message}")
        if verdict.passed and args.exercise:
            print(f"   see it work: python lessons/{lesson_of(exercise).name} --mine")
    progress.save()
    if args.exercise and not failed:
        after(progress, args.answers)
    sys.exit(int(failed))


def hint_command(args: argparse.Namespace, progress: Progress) -> None:
    """The first hint, then the second; from then on the second again."""
    given = progress.hints.get(args.exercise.id, 0)
    print(args.exercise.hints[min(given, 1)])
    print(f"   another hint: {COMMAND} hint {args.exercise.id}" if given == 0 else
          f"   the answer: {COMMAND} solution {args.exercise.id} --show")
    progress.hints[args.exercise.id] = given + 1
    progress.save()


def solution_command(args: argparse.Namespace, progress: Progress) -> None:
    """The package's own source, after passing or with --show."""
    if args.exercise.id not in progress.passed and not args.show:
        raise Problem(f"{args.exercise.id} is not passed yet; try {COMMAND} hint {args.exercise.id},"
                      " or give --show to see the solution all the same")
    print(f"# minicontrolnet.{args.exercise.reference}\n{inspect.getsource(reference_of(args.exercise)[2])}")


def reset_command(args: argparse.Namespace, progress: Progress) -> None:
    backup = reset(args.exercise, args.answers)
    same_file = {e.id for e in EXERCISES if e.id[:2] == args.exercise.id[:2]}
    progress.passed -= same_file
    progress.save()
    print(f"{stub_of(args.exercise).name} is as it came (exercises {', '.join(sorted(same_file))});"
          f" what you wrote is in {backup or 'no file: there was none'}")


def grade_command(args: argparse.Namespace, progress: None) -> None:
    """Check a folder of answers; nothing in it is changed. This runs the code in it."""
    if not args.folder.is_dir():
        raise Problem(f"{args.folder} is not a folder; give the one with the answers")
    marks = grade(args.folder.resolve(), args.seed)
    if args.json:
        with write_atomically(args.json) as file:
            file.write(json.dumps(marks, indent=1).encode())
    for id, verdict in marks["exercises"].items():
        print(f"{id}  {'passed' if verdict['passed'] else 'not passed'}")
    print(f"{marks['passed']} of {marks['of']} passed (seed {args.seed})")


def parser() -> argparse.ArgumentParser:
    whole = argparse.ArgumentParser(prog=COMMAND, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    whole.add_argument("--answers", type=Path, default=ANSWERS, metavar="DIR", help="where your answers are; default: answers/")
    commands = whole.add_subparsers(metavar="check | hint | solution | reset | grade")
    whole.set_defaults(run=show)
    for name, run in {"check": check_command, "hint": hint_command, "solution": solution_command, "reset": reset_command}.items():
        command = commands.add_parser(name, help=(run.__doc__ or "").splitlines()[0] if run.__doc__ else None)
        command.add_argument("exercise", type=find, nargs="?" if name == "check" else None, metavar="ID", help="such as 03a")
        command.set_defaults(run=run)
        if name == "check":
            command.add_argument("--seed", type=number(int, 0, 2**31), default=0, help="other inputs")
        if name == "solution":
            command.add_argument("--show", action="store_true", help="even if it is not passed")
    command = commands.add_parser("grade", help=grade_command.__doc__.splitlines()[0])
    command.add_argument("folder", type=Path)
    command.add_argument("--json", type=Path, metavar="FILE")
    command.add_argument("--seed", type=number(int, 0, 2**31), default=0)
    command.set_defaults(run=grade_command)
    return whole


def main(words: list[str] | None = None) -> None:
    args = parser().parse_args(words)
    with problems_in_one_sentence():
        if args.run is grade_command:
            grade_command(args, None)
            return
        args.answers = args.answers.resolve()
        try:
            copy_stubs(args.answers)
        except OSError as error:
            raise Problem(f"cannot write to {args.answers} ({error}); give another folder with --answers") from error
        args.run(args, Progress(args.answers))


if __name__ == "__main__":
    main()
