"""The parts of an exercise, and helpers for its check.

The package is the solution: an exercise names a function there. The stub that a learner starts from is
this function without its body, and each known mistake is this function with an edit, so nothing is
written twice. A check calls a function and returns what it observed. A right answer gives the same
observations as the solution, and each known mistake gives its own. The top of a file, up to its import
of this module, and the stubs are copied to answers/.
"""

import ast
import inspect
import textwrap
from collections.abc import Callable, Generator
from pkgutil import resolve_name
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from minicontrolnet.controlnet import ControlNet, lock
from minicontrolnet.unet import UNet

Observed = dict[str, Any]  # a description of what was looked at -> what was seen
Edit = str | tuple[str, ...]  # what is returned instead, where RIGHT is the right result; or old, new, old, new


class Exercise(NamedTuple):
    """One exercise. Everything else about it follows from these facts."""

    id: str
    minutes: int
    paper: str
    task: str
    solution: str  # such as "minicontrolnet.unet.UNet.forward"
    check: Callable[[Any, torch.Generator], Observed]
    hints: tuple[str, str]
    mistakes: dict[str, Edit]  # the misconception -> how such an answer differs from the solution
    remarks: dict[str, str] = {}  # an observation that may differ in a right answer -> a remark for the learner
    hide: tuple[str, ...] = ()  # parts of the docstring that would give the answer away
    bugs: tuple[str, ...] = ()  # for a bug hunt: the stub is the solution with this edit

    @property
    def name(self) -> str:
        """The name of the function in the learner's file. A method is called CLASS_method there."""
        return resolve_name(self.solution).__qualname__.replace(".", "_")

    @property
    def file(self) -> str:
        """The name of the learner's file."""
        return self.check.__module__.split(".")[-1] + ".py"

    def source(self, edit: Edit = ()) -> str:
        """The solution, with an edit, as a learner would write it: not indented, and under its name."""
        solution = resolve_name(self.solution)
        source = textwrap.dedent(inspect.getsource(solution))
        source = source.replace(f"def {solution.__name__}(", f"def {self.name}(", 1)
        if isinstance(edit, str):
            right = source[source.rindex("return ") + len("return "):].strip()
            edit = (f"return {right}", "return " + edit.replace("RIGHT", f"({right})"))
        for old, new in zip(edit[::2], edit[1::2]):
            if old not in source:
                raise LookupError(f"{self.id}: {self.solution} does not contain {old!r}")
            source = source.replace(old, new)
        return source

    def stub(self) -> str:
        """The text that the learner starts from: the solution, with only its first statement left."""
        lines = self.source(self.bugs).splitlines()
        node = ast.parse("\n".join(lines)).body[0]
        if isinstance(node, ast.ClassDef):
            node = next(inner for inner in node.body if isinstance(inner, ast.FunctionDef))
        kept = node.body[0]  # the docstring; in a class it is super().__init__()
        if not self.bugs:
            lines[kept.end_lineno : node.end_lineno] = [" " * kept.col_offset + 'raise NotImplementedError("write me")']
        text = "\n".join(lines)
        for part in self.hide:
            text = text.replace(part, "...", 1)
        return f"# {self.id} ({self.minutes} min; {self.paper}): {self.task}\n{text}\n"

    def wrong(self, misconception: str) -> Any:
        """The solution with one of the known mistakes, ready to be called."""
        names = dict(vars(inspect.getmodule(resolve_name(self.solution))))
        exec(self.source(self.mistakes[misconception]), names)
        return names[self.name]


def exercise(id: str, minutes: int, paper: str, task: str, solution: str, **facts: Any) -> Callable[..., Exercise]:
    """A decorator that turns a check into an Exercise."""

    def make(check: Callable[[Any, torch.Generator], Observed]) -> Exercise:
        return Exercise(id, minutes, paper, task, solution, check, **facts)

    return make


class Mistake(Exception):
    """A mistake that is possible in any exercise. Its arguments are the finding and its likely cause."""


def call(function: Callable, *inputs: Any) -> Any:
    """Call a learner's function and return its output. Raises Mistake if it changes an input or returns nothing."""
    forward = function.forward if isinstance(function, nn.Module) else function
    try:
        inspect.signature(forward).bind(*inputs)
    except TypeError as error:
        raise Mistake(str(error), f"The function must take {len(inputs)} inputs. Keep the def line that it came"
                                  " with.") from None
    before = [[x.clone() for x in tensors_in(value)] for value in inputs]
    output = function(*inputs)
    for i, (value, copies) in enumerate(zip(inputs, before), 1):
        if not all(map(torch.equal, tensors_in(value), copies)):
            raise Mistake(f"input number {i} has other values than before the call",
                          "You changed an input in place (by +=, or by a method whose name ends in _). The caller"
                          " still needs it, so make a new tensor.")
    if output is None:
        raise Mistake("None", "The function ends without a return.")
    if isinstance(output, Generator):
        raise Mistake("a generator", "Write tuple(... for ...), not (... for ...).")
    for x in tensors_in(output):
        if x.layout != torch.strided or x.is_complex() or x.device.type != "cpu":
            raise Mistake(f"a tensor of {x.dtype}, {x.layout}, on {x.device}",
                          "The result must be a dense tensor of real numbers, on the device of the inputs.")
    return output


def tensors_in(value: Any) -> list[Tensor]:
    several = value if isinstance(value, (tuple, list)) else [value]
    return [x for x in several if isinstance(x, Tensor)]


def normal(generator: torch.Generator, *size: int) -> Tensor:
    return torch.randn(*size, generator=generator, dtype=torch.float64)


def tiny(generator: torch.Generator) -> tuple[UNet, ControlNet, tuple[Tensor, ...], Tensor]:
    """A tiny locked base, a ControlNet, inputs (xt, t, prompt), and a condition."""
    base = UNet((32, 32, 32, 32), c_emb=8).double()
    control = ControlNet(base)
    for parameter in [*base.parameters(), *control.parameters()]:  # a weight of 0 would hide mistakes
        parameter.data = 0.2 * normal(generator, *parameter.shape)
    inputs = normal(generator, 2, 3, 32, 32), torch.tensor([250, 600]), torch.tensor([[1, 2, 3], [8, 4, 0]])
    return lock(base), control, inputs, normal(generator, 2, 1, 32, 32).sigmoid()


def reached_from(output: Tensor, parts: dict[str, nn.Module]) -> list[str]:
    """The names of the parts whose parameters get a gradient from the output."""
    if output.requires_grad:
        output.sum().backward()
    return [name for name, part in parts.items()
            if any(p.grad is not None and p.grad.any() for p in part.parameters())]
