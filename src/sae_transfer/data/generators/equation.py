"""Equation: variables are given values, and a question asks for an expression that they do or do not determine.

After the Equation data of "Do Sparse Autoencoders Generalize?" (arXiv 2502.19964), whose text is not public; the
wording is ours. Rows come in pairs made from one skeleton that holds a determined variable `t` and its undetermined
twin `w`. The question needs `t` in the answerable row and `w` in the other; all else, the values and every count
included, is the same. The twins differ in one of four ways (how `w` fails to be determined):

- absent: `t` is given; `w` does not occur in the context.
- leaf: `t` is given; `w` only helps to define a distractor, as `t` does too.
- chain: `t` is defined through the given `a`, `w` in the same way through `x`, which is never given.
- long: the same with one more link.

So the label cannot be read off lengths, numbers of variables, chains or distractors. What remains is the relation of
question and context that the label is about: in absent pairs the unanswerable question has a variable that the context
lacks. The other kinds are there so that this cue alone does not suffice.
"""

import ast
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from random import Random

from sae_transfer.core.errors import UserError
from sae_transfer.core.randomness import stable_hash
from sae_transfer.data.example import ANSWERABLE, UNANSWERABLE, Example

KINDS = ("absent", "absent", "leaf", "chain", "long")  # the paper's plain case twice as often
FREE = {"absent": "w", "leaf": "w", "chain": "x", "long": "x"}  # what is never given, and so makes w undetermined
OPERATIONS = {  # a definition's form: in words
    "{} + {}": ("{} plus {}", "the sum of {} and {}"),
    "{} - {}": ("{} minus {}", "the result of taking {1} from {0}"),
    "{} * {}": ("{} times {}", "the product of {} and {}"),
    "{} / {}": ("{} divided by {}", "the ratio of {} to {}"),
}
OPERATORS: dict[type[ast.operator], Callable[[Fraction, Fraction], Fraction]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
    ast.Pow: lambda base, exponent: Fraction(base**exponent),
}  # fmt: skip
QUESTIONS = {  # number of variables: forms
    1: ("{}", "{} + 4", "3 * {}", "{} - 5", "{} / 2", "7 * ({} + 1)", "{} ** 2"),
    2: (*OPERATIONS, "2 * {} + {}", "{} - 3 * {}", "5 * ({} + {})", "{} ** 2 + {}"),
    3: ("{} + {} + {}", "({} + {}) * {}", "{} * {} - {}", "({} - {}) / {}", "{} + {} / {}", "{} * ({} - {})"),
    4: ("{} + {} - {} + {}", "({} + {}) * ({} - {})", "{} * {} + {} * {}", "({} + {}) / ({} + {})"),
}
NAMES = (*([tuple("bcdfghjkmnpqrstuvwxyz")] * 3), tuple("BCDFGHJKMNPQRSTUVWXYZ"), tuple(f"x{i}" for i in range(1, 25)))
ASK = (
    "Calculate {}.", "Compute {}.", "Determine {}.", "Evaluate {}.", "Find {}.", "How much is {}?", "What is {}?",
    "What does {} come to?", "What is the value of {}?", "Work out {}.",
)  # fmt: skip
SENTENCES = ("Let {} be {}.", "The value of {} is {}.", "{} equals {}.", "Suppose that {} is {}.", "{} is equal to {}.")
LAYOUTS = {  # layout: (before, statement or None for sentences, between, after)
    "commas": ("", "{} = {}", ", ", "."),
    "semicolons": ("We know that ", "{} = {}", "; ", "."),
    "sentences": ("", None, " ", ""),
    "lines": ("", "{} = {}", "\n", ""),
    "bullets": ("Values:\n", "- {}: {}", "\n", ""),
    "table": ("variable | value\n", "{} | {}", "\n", ""),
}
OPENINGS = (
    "", "", "", "Consider the following.\n", "A pupil finds this on a worksheet.\n",
    "The notes of a laboratory list some quantities.\n",
    "Here is an exercise from a book on arithmetic, copied without any changes.\n",
)  # fmt: skip
CLOSINGS = ("", "", "", "\nAll numbers are exact.", "\nNo units are needed.", "\nThe order has no meaning.")


@dataclass(frozen=True)
class Expression:
    form: str
    operands: tuple[str, ...]  # slots such as "t" or "g2", or numbers

    def text(self, names: Mapping[str, str], form: str | None = None) -> str:
        return (form or self.form).format(*(names.get(o, o) for o in self.operands))

    def value(self, values: Mapping[str, Fraction]) -> Fraction:
        """Raises ZeroDivisionError, and KeyError where a variable has no value."""
        return _evaluate(ast.parse(self.form.format(*self.operands), mode="eval").body, values)


@dataclass(frozen=True)
class Skeleton:
    kind: str
    definitions: tuple[tuple[str, Expression], ...]  # each uses only slots defined before it, or a free one
    question: Expression  # with the slot t

    @property
    def group(self) -> str:
        """The structure without names, values, wording and order."""
        given = {"x": "?", **({"w": "?"} if FREE[self.kind] == "w" else {})}
        shapes = sorted(f"{slot}={e.text(dict.fromkeys(filter(str.isdigit, e.operands), '#') | given)}"
                        for slot, e in self.definitions)  # fmt: skip
        return f"{self.kind}: {'; '.join(shapes)}; {self.question.text({})}"

    @property
    def slots(self) -> list[str]:
        return sorted({slot for slot, _ in self.definitions} | {"t", "w", FREE[self.kind]})


def _evaluate(node: ast.expr, values: Mapping[str, Fraction]) -> Fraction:
    match node:
        case ast.Constant(value=int(number)):
            return Fraction(number)
        case ast.Name(id=slot):
            return values[slot]
        case ast.BinOp(left=left, op=op, right=right):
            return OPERATORS[type(op)](_evaluate(left, values), _evaluate(right, values))
    raise ValueError(f"not an expression: {ast.dump(node)}")


def _given(rng: Random) -> Expression:
    return Expression("{}", (str(rng.randint(2, 99)),))


def _link(rng: Random, base: str, others: list[str]) -> Expression:
    """A definition through `base` and either a small number or another variable with a value."""
    form = rng.choice(list(OPERATIONS))
    other = rng.choice(others) if others and rng.random() < 0.4 else str(rng.randint(2, 9))
    if form == "{} * {}" and other.isdigit():
        return Expression(form, (other, base))
    return Expression(form, (base, other))


def _twins(kind: str, rng: Random, others: list[str]) -> list[tuple[str, Expression]]:
    """Definitions of the determined `t` and of its undetermined twin `w`, as alike as the kind allows."""
    if kind == "absent":
        return [("t", _given(rng))]
    if kind == "leaf":
        return [("t", _given(rng)), ("p", _link(rng, "t", others)), ("q", _link(rng, "w", others))]
    if kind == "chain":
        return [("a", _given(rng)), ("t", _link(rng, "a", others)), ("w", _link(rng, "x", others))]
    links = [("b", _link(rng, "a", others)), ("t", _link(rng, "b", others))]
    return [("a", _given(rng)), *links, ("y", _link(rng, "x", others)), ("w", _link(rng, "y", others))]


def _skeleton(rng: Random) -> Skeleton:
    kind = rng.choice(KINDS)
    n_terms = rng.randint(1, 4)
    others = [f"g{i}" for i in range(n_terms - 1)]
    definitions = [(slot, _given(rng)) for slot in others]
    distractors = [f"d{i}" for i in range(rng.randint(0, 3))]
    linked = rng.choice(others) if others and rng.random() < 0.4 else None
    for slot in distractors:
        definitions.append((slot, _link(rng, linked, []) if linked and slot == "d0" else _given(rng)))
    definitions += _twins(kind, rng, others + distractors)
    terms = list(others)  # in order, so that structures equal up to a renaming have one group
    terms.insert(rng.randint(0, len(others)), "t")
    return Skeleton(kind, tuple(definitions), Expression(rng.choice(QUESTIONS[n_terms]), tuple(terms)))


def _values(skeleton: Skeleton, free: int) -> dict[str, Fraction]:
    values = {FREE[skeleton.kind]: Fraction(free)}
    for slot, expression in skeleton.definitions:
        values[slot] = expression.value(values)
    return values


def _unknown(question: Expression) -> Expression:
    return Expression(question.form, tuple("w" if o == "t" else o for o in question.operands))


def _answer(skeleton: Skeleton) -> Fraction | None:
    """The answer to the pair's answerable question; None if the pair is no good.

    No good: a division by zero, or an unanswerable question whose value does not depend on what is missing (a factor
    that happens to be zero), or numbers that nobody would work out.
    """
    try:
        worlds = [_values(skeleton, free) for free in (1009, 2003)]
        needs_missing = len({_unknown(skeleton.question).value(world) for world in worlds}) == 2
        answer = skeleton.question.value(worlds[0])
    except ZeroDivisionError:
        return None
    readable = abs(answer.numerator) < 10**6 and answer.denominator < 1000
    return answer if needs_missing and readable else None


def _number(value: Fraction) -> str:
    """Exact: an integer, a decimal of at most four places, or a fraction."""
    scaled = value * 10**4
    if value.denominator == 1 or scaled.denominator != 1:
        return str(value)
    digits = f"{abs(scaled.numerator):05d}"
    return f"{'-' if value < 0 else ''}{digits[:-4]}.{digits[-4:]}".rstrip("0")


def _symbols(text: str, *, tight: bool) -> str:
    """Powers as people write them; products as `3 * n` or, tight, as `3n`."""
    text = text.replace(" ** ", "^")
    return re.sub(r"\b(\d+) \* (?=[A-Za-z(])", r"\1", text) if tight else text


def _wording(e: Expression, names: Mapping[str, str], rng: Random, in_words: float) -> str:
    tight, words = rng.random() < 0.5, rng.random() < in_words
    phrase = rng.choice(OPERATIONS.get(e.form, ("",)))
    return e.text(names, phrase) if words and phrase else _symbols(e.text(names), tight=tight)


def _context(skeleton: Skeleton, names: Mapping[str, str], rng: Random) -> str:
    layout = rng.choice(list(LAYOUTS))
    before, statement, between, after = LAYOUTS[layout]
    definitions = rng.sample(skeleton.definitions, len(skeleton.definitions))
    statements = [
        (statement or rng.choice(SENTENCES)).format(names[slot], _wording(e, names, rng, 0.0 if statement else 0.6))
        for slot, e in definitions
    ]
    return rng.choice(OPENINGS) + before + between.join(statements) + after + rng.choice(CLOSINGS)


def _pair(rng: Random) -> list[tuple[str, str, str, str | None]] | None:
    """(group, context, question, answer) of the answerable and of the unanswerable row, or None if it came out ill.

    In half of the pairs the context stays and the question's variable changes; in the others the twins swap names, so
    that the question stays and the context changes.
    """
    skeleton = _skeleton(rng)
    answer = _answer(skeleton)
    if answer is None:
        return None
    names = dict(zip(skeleton.slots, rng.sample(rng.choice(NAMES), len(skeleton.slots)), strict=True))
    swapped = names | {"t": names["w"], "w": names["t"]} if rng.random() < 0.5 else names
    wording, ask = rng.getrandbits(64), rng.choice(ASK)
    known = (names, skeleton.question, _number(answer))
    rows: list[tuple[str, str, str, str | None]] = []
    for used, question, text in (known, (swapped, _unknown(skeleton.question), None)):
        same = Random(wording)  # both rows take the same choices of wording
        context = _context(skeleton, used, same)
        rows.append((skeleton.group, context, ask.format(_wording(question, used, same, 0.4)), text))
    return rows


def generate(n: int, seed: int) -> list[Example]:
    """Make n rows in random order, n / 2 of either label; `answer` is an exact number, or None.

    `group` is the skeleton, which the two rows of a pair share; pairs may share it too. Raises UserError unless n is
    even and positive.
    """
    if n < 2 or n % 2:
        raise UserError(f"equation: n = {n}; rows come in pairs, choose an even number of at least 2")
    rng = Random(stable_hash(seed, "equation"))
    rows: dict[tuple[str, str], tuple[str, int, str | None]] = {}
    while len(rows) < n:
        pair = _pair(rng)
        if pair and not any((context, question) in rows for _, context, question, _ in pair):
            for (group, context, question, answer), label in zip(pair, (ANSWERABLE, UNANSWERABLE), strict=True):
                rows[context, question] = (group, label, answer)
    shuffled = rng.sample(sorted(rows.items()), n)
    return [
        Example(f"equation:{i}", group, context, question, label, answer, "equation")
        for i, ((context, question), (group, label, answer)) in enumerate(shuffled)
    ]
