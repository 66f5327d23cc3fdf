"""Plausible text for the demo: posts and comments about one river and its gauges, put together from word lists."""

from __future__ import annotations

import random
import re

_SLOT = re.compile(r"\{(\w+)\}")

#: What may stand in a `{slot}`. Entries have slots of their own; `{level}`, `{rain}` and the like are numbers.
_WORDS: dict[str, tuple[str, ...]] = {
    "place": (
        "the lower weir", "the old mill", "the east sluice", "Alder Bridge", "Heron Island", "the stone ford",
        "the boat landing", "Reed Corner", "the upper reservoir", "the pumping station", "the railway bridge",
        "the fish pass", "Willow Bend", "the confluence", "the town lock",
    ),
    "gauge": ("gauge", "staff gauge", "radar gauge", "pressure sensor", "float recorder"),
    "part": ("river", "stream", "side channel", "mill race", "flood meadow", "backwater", "main channel"),
    "colour": ("clear", "brown", "green", "cloudy", "the colour of tea", "grey with silt"),
    "weather": (
        "steady rain", "a short thunderstorm", "thick fog", "a dry east wind", "the first night frost",
        "late snow in the hills", "three warm days", "drizzle since dawn", "a cloudless week",
    ),
    "animal": (
        "a pair of herons", "the otter", "a kingfisher", "two swans with four young", "a shoal of small barbel",
        "the beavers", "a great many mayflies", "an eel as long as an arm",
    ),
    "plant": ("reeds", "alders", "water crowfoot", "willows", "yellow irises", "duckweed"),
    "thing": ("footpath", "landing stage", "towpath", "lower car park", "cycle track", "picnic meadow", "ferry ramp"),
    "work": (
        "clearing the trash rack", "levelling the {gauge}", "mowing the dyke", "painting the staff",
        "replacing the battery of the {gauge}", "dredging the {part}", "measuring the flow by boat",
    ),
    "when": (
        "this morning", "since yesterday", "at noon", "over the weekend", "after dark", "just before sunrise",
        "for the third day running", "in the small hours", "towards evening",
    ),
    "trend": ("rising slowly", "falling", "steady", "rising faster than forecast", "back to normal", "past its peak"),
    "mood": ("a quiet week", "a long night", "a wet start", "a good month", "an odd day", "low water"),
}  # fmt: skip

_TITLES = (
    "High water at {place}", "Low water at {place}", "Notes from {place}", "The {gauge} at {place} is back",
    "What {weather} does to the {part}", "{place}: {trend}", "{mood} at {place}", "{level} m at {place}",
    "Seen at {place}: {animal}", "Why we are {work}", "{rain} mm of rain, and then?", "The {thing} is under water",
    "{plant} along the {part}", "Water temperature {when}: {degrees} °C", "After {weather}", "Open again: the {thing}",
    "A new {gauge} for {place}", "{flow} cubic metres a second at {place}",
)  # fmt: skip

_SENTENCES = (
    "the {gauge} at {place} showed {level} m {when}.",
    "after {weather} the {part} is {colour} and {trend}.",
    "we measured {degrees} °C at {place}, {depth} cm below the surface.",
    "{rain} mm of rain fell {when}, most of it within {hours} hours.",
    "the {thing} at {place} is closed until the level is below {level} m.",
    "{animal} came past while we were {work}.",
    "between {place} and {place} the water needs about {hours} hours.",
    "the {plant} have grown into the measuring section, so the readings are {centimetres} cm too high.",
    "flow at {place}: {flow} cubic metres a second, {trend}.",
    "with {weather} nobody expected the {part} to be {trend}.",
    "who walks along the {part} should keep off the {thing} for now.",
    "the crew spent the day {work}; the readings {when} have gaps because of that.",
    "{place} stays {centimetres} cm under the first warning mark.",
    "at {place} the {part} has moved its bank by {centimetres} cm since spring.",
    "there is driftwood at {place} again, and the {plant} hold most of it back.",
    "the forecast says {weather}, and {rain} mm by tomorrow.",
    "next reading in {hours} hours.",
)

_UPDATES = ("Update: ", "Later: ", "Second reading: ", "Correction: ", "From the night shift: ")

_COMMENTS = (
    "ours is already over the {thing}.",
    "I read {level} m at {place} {when}.",
    "same here, and the water is {colour}.",
    "is the {thing} open again?",
    "thank you. Could you add the flow at {place}?",
    "we saw {animal} there {when}!",
    "the {gauge} is off by {centimetres} cm, I think: the staff says {level} m.",
    "{rain} mm in our garden. It was {weather}.",
    "does anybody know why they are {work}?",
    "it was worse two years ago, when {place} stood at {level} m.",
    "good to know.",
    "no change at {place}, still {trend}.",
)

_TAGS = (
    "river", "gauge", "flood", "low-water", "rain", "snow", "ice", "wildlife", "maintenance", "paths", "forecast",
    "temperature", "flow", "volunteers", "lock", "mill", "upstream", "downstream",
)  # fmt: skip


def title(rng: random.Random) -> str:
    """A headline."""
    return _fill(rng, rng.choice(_TITLES))


def body(rng: random.Random) -> str:
    """A text of one to five paragraphs, mostly short."""
    return "\n\n".join(_paragraph(rng) for _ in range(rng.choices((1, 2, 3, 4, 5), (8, 6, 4, 2, 1))[0]))


def update(rng: random.Random) -> str:
    """A sentence that somebody adds below a text."""
    return rng.choice(_UPDATES) + _fill(rng, rng.choice(_SENTENCES))


def tags(rng: random.Random) -> list[str]:
    """One to four different tags."""
    return rng.sample(_TAGS, rng.randint(1, 4))


def comment(rng: random.Random) -> str:
    """What somebody says about a post: a sentence or two."""
    return " ".join(_fill(rng, template) for template in rng.sample(_COMMENTS, rng.choice((1, 1, 2))))


def _paragraph(rng: random.Random) -> str:
    return " ".join(_fill(rng, template) for template in rng.sample(_SENTENCES, rng.randint(1, 5)))


def _fill(rng: random.Random, template: str) -> str:
    """`template` with all of its slots filled, and a capital to begin with."""
    text = template
    while slot := _SLOT.search(text):
        text = text[: slot.start()] + _value(rng, slot.group(1)) + text[slot.end() :]
    return text[:1].upper() + text[1:]


def _value(rng: random.Random, slot: str) -> str:
    match slot:
        case "level":
            return f"{rng.uniform(0.4, 4.2):.2f}"
        case "degrees":
            return f"{rng.uniform(2, 22):.1f}"
        case "rain" | "flow":
            return str(rng.randint(3, 90))
        case "hours":
            return str(rng.randint(2, 12))
        case "depth" | "centimetres":
            return str(rng.randint(2, 40))
        case _:
            return rng.choice(_WORDS[slot])
