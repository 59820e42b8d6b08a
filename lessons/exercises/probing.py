"""What an exercise is, and what the checks share.

The package is the solution: an exercise names a function there. Its stub is that
function with the body cut out, each known mistake is that function with one edit, so
nothing is written twice. A check calls a function and returns what it observed: for a
right answer the same as for the solution, and for a mistake that is known its own. The
head of a file, up to its import of this one, and the stubs are copied to answers/.
"""

import ast
import importlib
import inspect
import textwrap
from collections.abc import Callable, Generator
from functools import partial
from itertools import accumulate
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from minicontrolnet.controlnet import ControlNet, lock
from minicontrolnet.unet import UNet

Observed = dict[str, Any]  # what was looked at, in words -> what was seen
Edit = str | tuple[str, ...]  # what is returned instead, or parts: old, new, old, new


class Exercise(NamedTuple):
    id: str
    minutes: int
    paper: str
    task: str
    solution: str  # such as "minicontrolnet.unet.UNet.forward"
    check: Callable[[Any, torch.Generator], Observed]
    hints: tuple[str, str]
    mistakes: dict[str, Edit]  # what it shows -> how it differs from the solution
    remarks: dict[str, str] = {}  # an observation that may differ -> what to say then
    hide: tuple[str, ...] = ()  # what the stub's docstring must not give away
    bugs: tuple[str, ...] = ()  # a bug hunt: the stub is the solution with this edit

    @property
    def name(self) -> str:
        """The function's name in the learner's file: a method is CLASS_method there."""
        return "_".join(self.place[1])

    @property
    def file(self) -> str:
        """The name of the file that it is written in."""
        return self.check.__module__.split(".")[-1] + ".py"

    @property
    def place(self) -> tuple[str, list[str]]:
        """The name of the solution's module, and the names that lead on from there."""
        names = self.solution.split(".")
        where = 3 if names[1] == "measure" else 2
        return ".".join(names[:where]), names[where:]

    def find(self) -> tuple[Any, Any]:
        """Where the solution stands (a module or a class), and the solution itself."""
        module, names = self.place
        owner = importlib.import_module(module)
        return tuple(accumulate([owner, *names], getattr))[-2:]

    def source(self, edit: Edit = ()) -> str:
        """The solution, edited, as a learner would write it: flat, under its name."""
        solution = self.find()[1]
        source = textwrap.dedent(inspect.getsource(solution))
        source = source.replace(f"def {solution.__name__}(", f"def {self.name}(", 1)
        if isinstance(edit, str):
            right = source[source.rindex("return ") + len("return "):].strip()
            edit = f"return {right}", "return " + edit.replace("RIGHT", f"({right})")
        for old, new in zip(edit[::2], edit[1::2]):
            if old not in source:
                raise LookupError(f"{self.id}: there is no {old!r} in {self.solution}")
            source = source.replace(old, new)
        return source

    def stub(self) -> str:
        """What the learner begins with: the first statement is kept, the others go."""
        lines = self.source(self.bugs).splitlines()
        node = ast.parse("\n".join(lines)).body[0]
        if isinstance(node, ast.ClassDef):
            node = next(n for n in node.body if isinstance(n, ast.FunctionDef))
        kept = node.body[0]  # the docstring; in a class, super().__init__()
        if not self.bugs:
            missing = " " * kept.col_offset + 'raise NotImplementedError("write me")'
            lines[kept.end_lineno : node.end_lineno] = [missing]
        text = "\n".join(lines)
        for part in self.hide:
            text = text.replace(part, "...", 1)
        return f"# {self.id} ({self.minutes} min; {self.paper}): {self.task}\n{text}\n"

    def wrong(self, words: str) -> Any:
        """The solution with one of the known mistakes, ready to be called."""
        names = dict(vars(inspect.getmodule(self.find()[1])))
        exec(self.source(self.mistakes[words]), names)
        return names[self.name]


exercise = partial(partial, Exercise)  # @exercise(facts) makes an Exercise of a check


class Mistake(Exception):
    """Wrong whatever the exercise is: what was found, and what that shows."""


def call(function: Callable, *inputs: Any) -> Any:
    """The output of a learner's function, which must leave its inputs alone."""
    forward = function.forward if isinstance(function, nn.Module) else function
    try:
        inspect.signature(forward).bind(*inputs)
    except TypeError as error:
        raise Mistake(f"{error}", f"a function of {len(inputs)} inputs is wanted: keep"
                      " the line that it came with") from None
    before = [[x.clone() for x in tensors_in(value)] for value in inputs]
    output = function(*inputs)
    for i, (value, was) in enumerate(zip(inputs, before), 1):
        if not all(map(torch.equal, tensors_in(value), was)):
            raise Mistake(f"input number {i} has other values than before the call",
                          "you changed an input in place (+=, a name that ends in _):"
                          " callers still need it, make a new tensor")
    if output is None or isinstance(output, Generator):
        raise Mistake(type(output).__name__, "a function ends without a return" if
                      output is None else "write tuple(... for ...), not (... for ...)")
    for x in tensors_in(output):
        if x.layout != torch.strided or x.is_complex() or x.device.type != "cpu":
            raise Mistake(f"a tensor of {x.dtype}, {x.layout}, on {x.device}",
                          "real numbers are wanted, dense and where the inputs are")
    return output


def tensors_in(value: Any) -> list[Tensor]:
    several = value if isinstance(value, (tuple, list)) else [value]
    return [x for x in several if isinstance(x, Tensor)]


def normal(generator: torch.Generator, *size: int) -> Tensor:
    return torch.randn(*size, generator=generator, dtype=torch.float64)


def tiny(generator: torch.Generator) -> tuple[UNet, ControlNet, Any, Tensor]:
    """A tiny locked base, a ControlNet, inputs (xt, t, prompt), and a condition."""
    base = UNet((32, 32, 32, 32), c_emb=8).double()
    control = ControlNet(base)
    for parameter in [*base.parameters(), *control.parameters()]:  # 0 would hide errors
        parameter.data = 0.2 * normal(generator, *parameter.shape)
    xt, t = normal(generator, 2, 3, 32, 32), torch.tensor([250, 600])
    prompt = torch.tensor([[1, 2, 3], [8, 4, 0]])
    return lock(base), control, (xt, t, prompt), normal(generator, 2, 1, 32, 32)


def reached_from(output: Tensor, parts: dict[str, nn.Module]) -> list[str]:
    """The names of the parts that a backward pass from the output reaches."""
    if output.requires_grad:
        output.sum().backward()
    return [name for name, part in parts.items()
            if any(p.grad is not None and p.grad.any() for p in part.parameters())]
