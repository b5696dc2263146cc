"""Prompts for the teacher: tasks times topics, in a fixed mixed order, so that any first part of them is varied."""

from __future__ import annotations

_TASKS = (
    "Explain {} to a curious ten-year-old.",
    "Write a short story in which {} matter more than anyone expected.",
    "What are the most common mistakes people make with {}? Give advice.",
    "Describe the history of {} in a few paragraphs.",
    "Write a letter to a friend about {}.",
    "Argue for and against spending public money on {}.",
    "Write a newspaper report about a surprising event that has to do with {}.",
    "How would you teach a course about {}? Describe the first lesson.",
    "Write a dialogue between two strangers who disagree about {}.",
    "Describe a day in the life of somebody who works with {}.",
    "Compare {} as they are today with what they were a hundred years ago.",
    "Write a speech that opens a museum of {}.",
    "What would the world be like without {}?",
    "Give a beginner practical advice about {}.",
    "Describe {} so vividly that a reader can see, hear and smell them.",
    "Write a review of a book about {}.",
    "Tell a childhood memory that has to do with {}.",
    "What questions should a journalist ask an expert on {}? Answer two of them.",
    "Write a fable about {} and its moral.",
    "Which scientific ideas help to understand {}?",
)
_TOPICS = (
    "lighthouses", "bread ovens", "night trains", "telescopes", "kitchen gardens", "old maps", "river ferries",
    "violins", "bicycles", "public libraries", "thunderstorms", "street markets", "mountain huts", "love letters",
    "wild horses", "tide pools", "beehives", "clock towers", "glass bottles", "sailing ships", "honey cakes",
    "stone bridges", "puppet theatres", "radio stations", "olive groves", "chess clubs", "hot springs", "kites",
    "orchards", "windmills", "carpenters", "snowstorms", "lanterns", "deserts", "coffee houses", "tunnels",
    "hospitals", "volcanoes", "bakeries", "owls", "typewriters", "harbours", "festivals", "forests", "canals",
    "postcards", "comets", "looms", "wolves", "umbrellas", "choirs", "ponds", "castles", "mirrors", "fishermen",
    "elevators", "salt mines", "tea gardens", "sculptors", "glaciers", "songbirds", "printing presses", "pepper",
    "migrating whales", "vineyards", "fire stations", "board games", "caves", "aqueducts", "sewing machines",
    "storks", "pottery", "football clubs", "satellites", "barbers", "cathedrals", "rice fields", "elephants",
    "vaccines", "silk roads", "sundials", "robots", "dictionaries", "earthquakes", "newspapers", "waterfalls",
    "islands", "batteries", "tailors", "spices", "observatories", "reindeer", "drums", "submarines", "pyramids",
    "parks", "mushrooms", "coral reefs", "diaries", "airports",
)  # fmt: skip


def prompts(count: int) -> list[str]:
    """Return the first ``count`` prompts of 2,000.

    Raises
    ------
    ValueError
        If there are not so many.
    """
    pairs = [(task, (i + shift * 37) % 100) for shift in range(100) for i, task in enumerate(_TASKS)]
    if not 1 <= count <= len(pairs):
        raise ValueError(f"there are prompts for 1 .. {len(pairs)} answers (got {count})")
    return [task.format(_TOPICS[(topic * 7 + place) % 100]) for place, (task, topic) in enumerate(pairs[:count])]
