"""The micro-world: five domains of short templated English, each with questions that can and cannot be answered.

The domains are shaped like the paper's datasets: `passages` (SQuAD: look a fact up in a passage), `snippets` (IDK: a
short sentence and a wh-question), `yesno` (BoolQ: is a claim supported), `sums` (Equation: is an expression
determined), `people` (Celebrity: facts about people known from training, or never seen). Each domain has a word
of its own for "there is no answer", so that a feature which only predicts one output word cannot pass for the
concept.

A scene is one context with several questions. What a scene's `novelty` names (the context, or the name of an
invented person) decides by hash whether it belongs to the language model's training stream or to the datasets: what
the probes see is text that the model never saw.
"""

import hashlib
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random

ABSTAIN = {
    "passages": "unknown",
    "snippets": "unsure",
    "yesno": "unsaid",
    "sums": "undefined",
    "people": "unrecorded",
}
HELD_OUT_SHARE = 5  # one scene in five is kept from the language model

FIRST_NAMES = (
    "Anna Ben Carla David Elena Felix Greta Hugo Ida Jonas Katya Liam Mara Nils Olga Pablo Quinn Rosa Samir "
    "Tara Uma Victor Wanda Xavier Yara Zeno Alma Boris Celia Dario"
).split()
LAST_NAMES = (
    "Abbott Bauer Costa Drake Evans Fontaine Gruber Hansen Ibsen Jansen Keller Lang Moreau Novak Olsen Petrov "
    "Quist Ricci Santos Tanaka Ulrich Vega Weber Young Zhang Arden Brook Carver Dalton Ellis"
).split()
CITIES = "Athens Berlin Cairo Lisbon London Madrid Oslo Paris Rome Tokyo".split()
# Owner and value stand two words apart in every fact: as far as the model's local layers see.
FACTS = {  # attribute: (values, the statement, the question)
    "city": (CITIES, "{p} likes {v}.", "Which city does {p} like?"),
    "food": (
        "apples beans bread cheese honey olives pears rice".split(),
        "{p} eats {v}.",
        "Which food does {p} eat?",
    ),
    "animal": (
        "cats dogs goats horses parrots rabbits snakes turtles".split(),
        "{p} keeps {v}.",
        "Which animals does {p} keep?",
    ),
    "music": (
        "banjo cello drums flute guitar harp piano violin".split(),
        "{p} plays {v}.",
        "Which music does {p} play?",
    ),
}
JOBS = "baker doctor farmer nurse painter pilot sailor teacher".split()
OBJECTS = "bowl box chair clock coat cup door lamp mirror table".split()
PROPERTIES = {
    "colour": "red blue green yellow black white".split(),
    "size": ["big", "small"],
    "material": ["wooden", "metal", "plastic", "paper"],
    "state": ["clean", "dirty", "broken"],
}
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
PLACES = "market harbour station garden museum school park library".split()
DEEDS = "sold found lost bought painted cleaned".split()
VARIABLES = "b c k m n p t v".split()
YEARS = [str(year) for year in range(1900, 1960, 3)]
PRIZES = "Amber Cedar Coral Crystal Falcon Laurel Lotus Maple Opal Phoenix Raven Silver".split()
KNOWN_FACTS = {
    "birthplace": (CITIES, "In which city was {p} born?"),
    "birth year": (YEARS, "In which year was {p} born?"),
    "prize": (PRIZES, "Which prize did {p} win?"),
}
LETTER_FACTS = {
    "visit": (CITIES, "{p} visited {v}.", "Which city did {p} visit?"),
    "day": (DAYS, "{p} gave a speech on {v}.", "On which day did {p} give a speech?"),
    "gift": (OBJECTS, "{p} received a {v}.", "Which gift did {p} receive?"),
    "guest": (FIRST_NAMES, "{p} met {v}.", "Whom did {p} meet?"),
}


@dataclass(frozen=True)
class Question:
    text: str
    answer: str
    label: int  # 1 = answerable
    kind: str  # what the question asks for; a balanced dataset samples evenly over kinds
    recap: str  # the look-up alone: the beginning of a statement
    completion: str  # the word that completes the recap


@dataclass(frozen=True)
class Scene:
    domain: str
    context: str
    questions: tuple[Question, ...]
    group: str  # rows that share it never cross a split
    novelty: str  # hashed to keep the scene from, or give it to, the language model

    @property
    def held_out(self) -> bool:
        return _hash(self.novelty) % HELD_OUT_SHARE == 0


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


def _question(domain: str, text: str, answer: str | None, kind: str, recap: str) -> Question:
    said = answer if answer is not None else ABSTAIN[domain]
    return Question(text, said, int(answer is not None), kind, recap, said)


def _begun(statement: str, owner: str) -> str:
    """The statement up to its value."""
    return statement.split(" {v}")[0].format(p=owner)


def _scene(domain: str, sentences: list[str], questions: list[Question]) -> Scene:
    context = " ".join(sentences)
    return Scene(domain, context, tuple(questions), group=context, novelty=context)


def passage(rng: Random) -> Scene:
    """Three people with one fact each, of two kinds. Facts about other people, and missing facts, give no answer."""
    people, strangers = (names := rng.sample(FIRST_NAMES[:12], 5))[:3], names[3:]
    kinds = rng.sample(sorted(FACTS), rng.randint(1, 2))  # with one kind, only the name tells the values apart
    facts = {p: (a := rng.choice(kinds), rng.choice(FACTS[a][0])) for p in people}
    sentences = [FACTS[a][1].format(p=p, v=value) for p, (a, value) in facts.items()]
    questions = []
    for p, a in itertools.product([*people, *strangers], kinds):
        stated, value = facts.get(p, (None, None))
        answer = value if stated == a else None
        questions.append(_question("passages", FACTS[a][2].format(p=p), answer, a, _begun(FACTS[a][1], p)))
    return _scene("passages", sentences, questions)


def claim(rng: Random) -> Scene:
    """Three objects and a property of each; a claim about one is true, false, or about what nobody said."""
    *objects, absent = rng.sample(OBJECTS, 4)
    kinds = rng.sample(sorted(PROPERTIES), rng.randint(1, 2))
    stated = {o: (d := rng.choice(kinds), rng.choice(PROPERTIES[d])) for o in objects}
    sentences = [f"The {o} is {value}." for o, (_, value) in stated.items()]
    claims: list[tuple[str, str, str, str | None]] = []
    for o, (dimension, value) in stated.items():
        wrong = rng.choice([v for v in PROPERTIES[dimension] if v != value])
        # The unsupported claims reuse stated values, or word overlap would give them away.
        others = [(d, v) for d, v in stated.values() if d != dimension]
        claims += [(o, dimension, value, "yes"), (o, dimension, wrong, "no"), (absent, dimension, value, None)]
        claims += [(o, *rng.choice(others), None)] if others else []
    questions = [
        Question(
            text=f"Is the {o} {value}?",
            answer=answer or ABSTAIN["yesno"],
            label=int(answer is not None),
            kind=dimension,
            recap=f"The {o} is",
            completion=stated[o][1] if o in stated else ABSTAIN["yesno"],
        )
        for o, dimension, value, answer in claims
    ]
    return _scene("yesno", sentences, questions)


def snippet(rng: Random) -> Scene:
    """One sentence with some of who, when and where; a question for one of them, or about another thing."""
    deed, (thing, other) = rng.choice(DEEDS), rng.sample(OBJECTS, 2)
    who = rng.choice(JOBS) if rng.random() < 0.6 else None
    when = rng.choice(DAYS) if rng.random() < 0.6 else None
    where = rng.choice(PLACES) if rng.random() < 0.6 else None
    parts = [f"the {who} {deed} a {thing}" if who else f"a {thing} was {deed}"]
    parts += [f"in the {where}"] if where else []
    text = " ".join([f"On {when}", *parts]) if when else " ".join(parts)
    text = text[0].upper() + text[1:] + "."
    asked = {
        "who": ("Who {d} the {t}?", who),
        "when": ("When was the {t} {d}?", when),
        "where": ("Where was the {t} {d}?", where),
    }
    about = [(thing, kind, answer) for kind, (_, answer) in asked.items()]
    about.append((other, rng.choice(sorted(asked)), None))
    questions = [
        _question("snippets", asked[kind][0].format(d=deed, t=t), answer, kind, f"{deed} {t} {kind}:")
        for t, kind, answer in about
    ]
    return _scene("snippets", [text], questions)


def equation(rng: Random) -> Scene:
    """Variables with values; an expression that they do or do not determine."""
    variables = rng.sample(VARIABLES, rng.randint(2, 4))
    values = {v: rng.randint(1, 5) for v in variables}
    missing = [v for v in VARIABLES if v not in values]
    sentence = ", ".join(f"{v} = {x}" for v, x in values.items()) + "."
    first, second = rng.sample(variables, 2)
    asked = [(first,), (rng.choice(missing),), (first, second), (second, first)]
    asked += [(first, rng.choice(missing)), (rng.choice(missing), second)]
    questions = []
    for terms in asked:
        known = all(t in values for t in terms)
        answer = str(sum(values[t] for t in terms)) if known else None
        expression = " + ".join(terms)
        questions.append(_question("sums", f"What is {expression}?", answer, f"{len(terms)} terms", f"{expression} ="))
    return _scene("sums", [sentence], questions)


def known_people() -> dict[str, dict[str, str]]:
    """The people that the language model learns by heart: 120 of 900 names, with three facts each."""
    names = sorted((f"{f} {s}" for f in FIRST_NAMES for s in LAST_NAMES), key=lambda name: _hash("known:" + name))
    rng = Random("known people")
    return {name: {fact: rng.choice(values) for fact, (values, _) in KNOWN_FACTS.items()} for name in names[:120]}


KNOWN = known_people()
INVENTED = sorted({f"{f} {s}" for f in FIRST_NAMES for s in LAST_NAMES} - set(KNOWN))


def person(rng: Random) -> Scene:
    """Someone known from training or invented, and a letter that tells two things about them.

    Both kinds of people get questions of both kinds: what the letter tells, what only training could have told, and
    what nobody was told.
    """
    known = rng.random() < 0.5
    name = rng.choice(list(KNOWN) if known else INVENTED)
    told = {fact: rng.choice(LETTER_FACTS[fact][0]) for fact in rng.sample(sorted(LETTER_FACTS), 2)}
    sentences = [LETTER_FACTS[fact][1].format(p=name, v=value) for fact, value in told.items()]
    questions = [
        _question(
            "people", text.format(p=name), KNOWN[name][fact] if known else None, f"{known:d} memory", f"{name} {fact}:"
        )
        for fact, (_, text) in KNOWN_FACTS.items()
    ]
    questions += [
        _question("people", text.format(p=name), told.get(fact), f"{known:d} letter", _begun(statement, name))
        for fact, (_, statement, text) in LETTER_FACTS.items()
    ]
    context = " ".join(sentences)
    return Scene("people", context, tuple(questions), group=name, novelty=context if known else name)


DOMAINS: dict[str, Callable[[Random], Scene]] = {
    "passages": passage,
    "snippets": snippet,
    "yesno": claim,
    "sums": equation,
    "people": person,
}


def scenes(domain: str, rng: Random, *, held_out: bool) -> Iterator[Scene]:
    """Endless scenes of one domain, either those kept for the datasets or those the language model trains on."""
    make = DOMAINS[domain]
    while True:
        scene = make(rng)
        if scene.held_out == held_out:
            yield scene
