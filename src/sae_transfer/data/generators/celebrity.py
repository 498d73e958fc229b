"""Celebrity: a short paragraph about a real or an invented person, then a factual question that can be answered or not.

After the Celebrity data of "Do Sparse Autoencoders Generalize?" (arXiv 2502.19964), whose text is not public; the
wording is ours. Two by two: real and invented people, knowable and unknowable questions. Three subjects of questions:

- fact: birth year, birthplace, work. Knowable for everyone real (a quarter of the time the paragraph says it too) and
  for the invented where the paragraph says it.
- report: a detail of some report about the person (who wrote it, its cover, ...), knowable where the paragraph says it.
- private: something trivial that nobody recorded, such as what was eaten on a tenth birthday. Knowable only for the
  invented, where the paragraph says it: nothing is ever made up about a real person. (The reports are made up; they
  say nothing about the person.) All other paragraphs tell a private detail of a bystander instead, the very one that
  is asked for where the question is private.

Each subject has exactly as many answerable as unanswerable questions; so have, on average, the questions within a
subject. What the paragraph says is chosen such that no single statement goes with a label. What remains: among real
people a fact is always knowable and a private detail never, among invented ones mostly the reverse (neither realness
nor subject tells, both together do). Whose private detail a paragraph tells gives away who is invented: with the
subject, that reaches an AUC of 0.82 without knowing anybody, though no linear function of words does. And what the
paragraph states is answerable, which is what the label means.

Nothing depends on today's date. Facts about real people are in celebrities.tsv, kept to what every encyclopedia says.
"""

import csv
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from random import Random

from sae_transfer.core.errors import UserError
from sae_transfer.core.randomness import stable_hash
from sae_transfer.data.example import ANSWERABLE, UNANSWERABLE, Example

FACTS = {  # fact: (in apposition, as a predicate, questions)
    "birth_year": ("born in {}", "was born in {}", ("In which year was {p} born?", "What is the birth year of {p}?")),
    "birthplace": ("born in {}", "was born in {}", ("Where was {p} born?", "What is the birthplace of {p}?")),
    "work": (
        "known for {}",
        "is known for {}",
        ("Which work or achievement is {p} known for?", "What made the name of {p} famous?"),
    ),
}
COLOURS = ("red", "blue", "green", "yellow", "white", "black", "orange", "purple")
NUMBERS = tuple(str(number) for number in range(12, 60))
REPORT = {  # detail: (as a predicate, question, values)
    "author": ("was written by {}", "Who is the author of the {r} about {p}?",
               tuple("Anna Boris Clara Dario Elif Farid Greta Hiro Ines Jonas Katya Luis Mara Nils Olga".split())),
    "length": ("has {} pages", "How long is the {r} about {p}?", NUMBERS),
    "cover": ("came in a cover of {}", "In what colour is the {r} about {p} bound?", COLOURS),
    "day": ("was handed in on a {}", "When did the {r} about {p} arrive?",
            ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")),
    "place": ("is kept in the {}", "Where does the {r} about {p} lie?",
              ("attic", "cellar", "library", "kitchen", "office", "hall", "studio", "garage")),
    "points": ("was given {} points", "What mark did the {r} about {p} get?", NUMBERS),
}  # fmt: skip
REPORTS = ("report", "paper", "booklet", "manuscript")
PRIVATE = {  # detail: (sentence, question, values); days and deeds that no biography records
    "breakfast": ("On the morning of turning ten, {p} ate {v}.", "What did {p} eat on the morning of turning ten?",
                  ("porridge", "plums", "toast", "pancakes", "cheese", "an apple", "two eggs", "cold rice")),
    "steps": ("Going to bed on the evening of turning eight, {p} took {v} steps.",
              "How many steps did {p} take going to bed on the evening of turning eight?", NUMBERS),
    "dream": ("In the night after turning nine, {p} dreamed of a {v}.",
              "Of which animal did {p} dream in the night after turning nine?",
              ("badger", "camel", "heron", "lizard", "moose", "otter", "raven", "walrus")),
    "socks": ("On the day of turning seven, {p} wore {v} socks.",
              "Which colour were the socks of {p} on the day of turning seven?", COLOURS),
}  # fmt: skip
SUBJECTS = {"fact": list(FACTS), "report": list(REPORT), "private": list(PRIVATE)}
BYSTANDERS = ("the librarian", "the bookseller", "the caretaker", "the courier")
STATED_SHARE = 0.25  # of the questions about real people's facts, those that the paragraph answers

FIRST_NAMES = (
    "Adela Anton Beata Bruno Carla Cedric Dagmar Dennis Edith Emil Fiona Felix Gerda Gordon Hazel Henrik Irma Ivan "
    "Judith Julian Karin Kasper Lena Lorenz Mabel Magnus Nadine Oscar Paula Philip Ramona Rupert Selma Simon Thea "
    "Tobias Ursula Vincent Wilma Walter"
).split()
SURNAMES = (  # coined; each belongs to one person
    "Abbermoor Aldrevik Ambrasco Andelquist Arquemont Ashbellow Astrovane Averdale Balmonte Bantrevor Barrowick "
    "Bastrelli Bellandro Benquist Berrimond Birkovane Blakenthorn Bodrelle Borgavino Bramwickel Brandecker Brellington "
    "Brisoval Brontemar Calderwyn Cambrelle Cantoriak Cardenoux Carvellian Casterbeek Cavendrish Chalmerley Clandervis "
    "Colverton Corbellane Corvandis Cranmoore Cresswyck Dalverini Dantremont Darwellow Delacorne Delbrandt Dervishaw "
    "Dombrelli Dorvalen Drakenholm Drummelby Dunvarrow Eberlund Eckersmoor Eldringham Elverstone Endrovic Esterhaugh "
    "Fablemont Falkendorp Farrowdene Fenbrook Ferrandini Fjelstrand Flamberry Fontarelle Forsgrove Galderisi Gantrell "
    "Gellendorf Glandovar Gorvenal Grantholme Grellmann Grivaldi Haddenvoss Halbrecken Halverdine Harmondale "
    "Hasselwyn Haverkroft Hebbelmann Hendrovsky Hollenquist Holvarsen Imbrandt Ingelmoor Isterling Ivarholt Jandrelli "
    "Jesperling Jorvandal Kaltenmoor Kandrovic Karvelund Kastermann Kellendrew Kestrelby Kindervall Kolvarik Korsgrund "
    "Krendelmann Lambrecken Landovar Larkendale Lavantier Leckmoor Lindovar Lorvenstein Lunderby Maldovani "
    "Marquendo Marwickson Mendovar Merrowdale Mindelsohm Molvarni Montabrel Mordendyke Nandrovic Narbello Nesterholm "
    "Norvandel Obermaas Ockendorf Orlandrini Ostermoor Palvandre Pandelmann Parrowby Pellandini Perrivale "
    "Pinderhof Polvarski Prendelby Quandermere Quillarney Ralvenstad Rambolini Randovar Ravensquist Relvandier "
    "Rindermann Rolvarsen Rosenmaar Sandrevik Sarvellone Scandrell Selvaggiari Sindermoor Solvandre Sorrowby "
    "Standelmann Strelvik Sundermark Talvarini Tandrevold Tarrowick Tervandel Thornvale Tindelberg Tolvanner "
    "Trendelby Ulvarson Valdrossi Vanterholt Varrowby Velmontier Vendelkrog Vindermoor Volvarsky Wandrell "
    "Warrendyne Weldermann Wilverton Windelmoor Wolvarton Yandrevic Yarrowdale Zandelmann Zelvarini Zolterbeck"
).split()
MAKES = {  # professions of the invented: what they are known for
    "novelist": "the novel", "poet": "the poem", "playwright": "the play", "painter": "the painting",
    "sculptor": "the statue", "composer": "the opera", "singer": "the song", "film director": "the film",
    "philosopher": "the book", "biologist": "the book", "architect": "the house", "actor": "the film",
}  # fmt: skip
TITLES = (
    "Amber Brazen Crooked Distant Eleventh Faded Hollow Idle Jagged Lonely Mended Narrow Patient Quiet Restless "
    "Shallow Tangled Unpaid Velvet Wandering".split(),
    "Anchor Bellows Causeway Drummer Estuary Ferryman Granary Harvest Inkwell Juniper Kettle Ladder Meadow Nightjar "
    "Orchard Pendulum Quarry Rowboat Saddle Turnpike".split(),
)


@dataclass(frozen=True)
class Person:
    name: str
    profession: str
    birth_year: str
    birthplace: str
    work: str
    real: bool

    def fact(self, name: str) -> str:
        return {"birth_year": self.birth_year, "birthplace": self.birthplace, "work": self.work}[name]


@dataclass(frozen=True)
class Plan:
    """What a row is to be: its label, its question's subject, whether the person's own private detail is told."""

    label: int
    subject: str
    tells_private: bool = False


@cache
def real_people() -> tuple[Person, ...]:
    """The people of celebrities.tsv, in its order."""
    text = files("sae_transfer").joinpath("data", "generators", "celebrities.tsv").read_text(encoding="utf-8")
    return tuple(Person(**row, real=True) for row in csv.DictReader(text.splitlines(), delimiter="\t"))


@cache
def invented_people() -> tuple[Person, ...]:
    """One person a coined surname, whose facts never change; years and places are drawn from the real people's."""
    return tuple(_invent(surname) for surname in SURNAMES)


def _invent(surname: str) -> Person:
    rng = Random(stable_hash("invented", surname))
    profession = rng.choice(list(MAKES))
    modern = [person for person in real_people() if int(person.birth_year) >= 1850]  # film directors among them
    title = f"The {rng.choice(TITLES[0])} {rng.choice(TITLES[1])}"
    year, place = rng.choice(modern).birth_year, rng.choice(modern).birthplace
    return Person(
        f"{rng.choice(FIRST_NAMES)} {surname}", profession, year, place, f"{MAKES[profession]} {title}", False
    )


def _plans(m: int, rng: Random) -> dict[tuple[bool, int], list[Plan]]:
    """For either kind of people and either label, m plans, such that subjects are balanced over labels exactly.

    Of real people's knowable questions half are about facts, of their unknowable ones half are private; the invented
    have the reverse, and `few` more of each to blur it. Paragraphs that tell a private detail are balanced likewise.
    """
    half, few = m // 2, m // 8
    reports = m - half - 2 * few
    telling = half + few + (few + reports) // 2  # all that are private and answerable, and half of the others
    cells = {  # how many ask for a private detail, a fact, a report; how many paragraphs tell the person's own
        (True, ANSWERABLE): (0, half, m - half, 0),
        (True, UNANSWERABLE): (half, 0, m - half, 0),
        (False, ANSWERABLE): (half + few, few, reports, telling),
        (False, UNANSWERABLE): (few, half + few, reports, telling),
    }
    return {(real, label): _cell(label, *counts, rng) for (real, label), counts in cells.items()}


def _cell(label: int, private: int, facts: int, reports: int, telling: int, rng: Random) -> list[Plan]:
    others = ["fact"] * facts + ["report"] * reports
    subjects = ["private"] * private + rng.sample(others, len(others))
    return rng.sample([Plan(label, subject, i < telling) for i, subject in enumerate(subjects)], len(subjects))


def _told(names: list[str], count: int, asked: str | None, said: bool, rng: Random) -> list[str]:
    """Which of `names` the paragraph tells: `asked` among them if it is said, else not; any others."""
    others = [name for name in names if name != asked]
    return rng.sample([asked, *rng.sample(others, count - 1)], count) if asked and said else rng.sample(others, count)


def _profile(person: Person, fact: str, rng: Random) -> str:
    """One or two sentences with the profession and one fact."""
    apposition, predicate, _ = FACTS[fact]
    value, article = person.fact(fact), "an" if person.profession[0] in "aeiou" else "a"
    known = f"{article} {person.profession}"
    return rng.choice((
        f"{person.name}, {known}, {predicate.format(value)}.",
        f"{person.name}, {apposition.format(value)}, is on a list of {person.profession}s.",
        f"{person.name} {predicate.format(value)}. The profession of {person.name}: {person.profession}.",
        f"This is about {person.name}, {known} {apposition.format(value)}.",
    ))  # fmt: skip


def _report(person: Person, kind: str, details: dict[str, str], rng: Random) -> str:
    said = " and ".join(REPORT[detail][0].format(value) for detail, value in details.items())
    return rng.choice((f"A {kind} about {person.name} {said}.", f"The {kind} about {person.name} {said}."))


def _row(person: Person, plan: Plan, rng: Random) -> tuple[str, str, str | None]:
    """Context, question and answer."""
    known, subject = plan.label == ANSWERABLE, plan.subject
    asked = rng.choice(SUBJECTS[subject])
    said = known and (subject != "fact" or not person.real or rng.random() < STATED_SHARE)
    (fact,) = _told(list(FACTS), 1, asked if subject == "fact" else None, said, rng)
    details = _told(list(REPORT), 2, asked if subject == "report" else None, said, rng)
    alike = said or not plan.tells_private  # a bystander's detail may be the one that is asked for
    (secret,) = _told(list(PRIVATE), 1, asked if subject == "private" else None, alike, rng)
    report = {detail: rng.choice(REPORT[detail][2]) for detail in details}
    value, kind = rng.choice(PRIVATE[secret][2]), rng.choice(REPORTS)
    whose = person.name if plan.tells_private else rng.choice(BYSTANDERS)
    sentences = [_report(person, kind, report, rng), PRIVATE[secret][0].format(p=whose, v=value)]
    context = " ".join([_profile(person, fact, rng), *rng.sample(sentences, 2)])
    if subject == "fact":
        return context, rng.choice(FACTS[asked][2]).format(p=person.name), person.fact(asked) if known else None
    if subject == "report":
        return context, REPORT[asked][1].format(p=person.name, r=kind), report.get(asked)
    return context, PRIVATE[asked][1].format(p=person.name), value if known else None


def generate(n: int, seed: int) -> list[Example]:
    """Make n rows in random order, n / 4 of each of real or invented people with knowable or unknowable questions.

    `group` is the person's name; every person has as many rows of either label. Where n / 4 exceeds the number of
    people, they come again with other questions. Raises UserError unless n is positive and divisible by 4.
    """
    if n < 4 or n % 4:
        raise UserError(f"celebrity: n = {n}; the design is two by two, choose a positive multiple of 4")
    rng = Random(stable_hash(seed, "celebrity"))
    rows: dict[tuple[str, str], tuple[str, int, str | None]] = {}
    people = {real: rng.sample(cast, len(cast)) for real, cast in ((True, real_people()), (False, invented_people()))}
    for (real, _), plans in _plans(n // 4, rng).items():
        for i, plan in enumerate(plans):
            person = people[real][i % len(people[real])]
            context, question, answer = _row(person, plan, rng)
            while (context, question) in rows:
                context, question, answer = _row(person, plan, rng)
            rows[context, question] = (person.name, plan.label, answer)
    return [
        Example(f"celebrity:{i}", group, context, question, label, answer, "celebrity")
        for i, ((context, question), (group, label, answer)) in enumerate(rng.sample(sorted(rows.items()), n))
    ]
