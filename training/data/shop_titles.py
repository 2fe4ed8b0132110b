"""The shop of the synthetic log: its categories with four product lines each, and item titles."""

from collections.abc import Sequence

PRODUCT_LINES = {
    "Running": ("Trail running shoes", "Road running shoes", "Running belt", "Hydration vest"),
    "Cycling": ("Road bike helmet", "Bib shorts", "Bike light", "Clipless pedals"),
    "Swimming": ("Swim goggles", "Training fins", "Wetsuit", "Pull buoy"),
    "Climbing": ("Climbing shoes", "Climbing harness", "Dynamic rope", "Quickdraw set"),
    "Camping": ("Two-person tent", "Sleeping bag", "Camp stove", "Headlamp"),
    "Fishing": ("Fly rod", "Spinning reel", "Lure box", "Waders"),
    "Yoga": ("Yoga mat", "Cork block", "Meditation cushion", "Yoga leggings"),
    "Football": ("Football boots", "Shin guards", "Match ball", "Goalkeeper gloves"),
    "Coffee": ("Espresso machine", "Burr grinder", "Pour-over dripper", "Coffee beans"),
    "Tea": ("Green tea", "Oolong tea", "Cast-iron teapot", "Herbal infusion"),
    "Baking": ("Stand mixer", "Bread tin", "Piping set", "Sourdough basket"),
    "Kitchen knives": ("Chef's knife", "Paring knife", "Whetstone", "Cutting board"),
    "Gardening": ("Pruning shears", "Raised bed", "Seed collection", "Watering can"),
    "House plants": ("Ceramic planter", "Grow lamp", "Potting mix", "Fern"),
    "Woodworking": ("Hand plane", "Chisel set", "Bar clamp", "Marking gauge"),
    "Painting": ("Watercolour set", "Acrylic paint", "Sable brush", "Stretched canvas"),
    "Knitting": ("Merino yarn", "Circular needles", "Stitch markers", "Pattern book"),
    "Photography": ("Prime lens", "Travel tripod", "Camera bag", "Filter kit"),
    "Guitar": ("Acoustic guitar", "Guitar strings", "Effects pedal", "Clip-on tuner"),
    "Piano": ("Digital piano", "Piano bench", "Sheet music", "Sustain pedal"),
    "Vinyl": ("Turntable", "Phono preamplifier", "Record brush", "Record crate"),
    "Headphones": ("Studio headphones", "Wireless earbuds", "Headphone amplifier", "Ear pads"),
    "Board games": ("Strategy game", "Party game", "Cooperative game", "Card sleeves"),
    "Puzzles": ("Jigsaw puzzle", "Wooden puzzle", "Puzzle cube", "Puzzle table"),
    "Model trains": ("Steam locomotive", "Freight wagon", "Curved track", "Station building"),
    "Astronomy": ("Refractor telescope", "Eyepiece", "Star atlas", "Equatorial mount"),
    "Aquariums": ("Glass aquarium", "Canister filter", "Aquarium plant", "Fish food"),
    "Dogs": ("Dog harness", "Chew toy", "Dog bed", "Training treats"),
    "Cats": ("Scratching post", "Cat fountain", "Wand toy", "Cat carrier"),
    "Crime novels": ("Nordic mystery", "Courtroom thriller", "Cosy mystery", "Spy novel"),
}

# Of models, in the order of their popularity; each line starts elsewhere in this circle.
_MODELS = (
    *("Juniper", "Kestrel", "Harbour", "Solstice", "Fjord", "Marigold", "Cobalt", "Willow"),
    *("Ember", "Lagoon", "Tundra", "Saffron", "Orchard", "Meridian", "Heron", "Basalt"),
    *("Clover", "Zephyr", "Driftwood", "Aurora", "Thistle", "Quarry", "Sparrow", "Monsoon"),
    *("Cedar", "Polaris", "Bramble", "Indigo", "Summit", "Velvet", "Pebble", "Nightingale"),
)
_STEP = 5  # models from the start of one line to that of the next; prime to their number
# Where the model's name does not simply come first.
_FORMS = {
    "Tea": "{line} of the {model} hills",
    "Coffee": "{model} {line}",
    "Board games": "{model}, a {line}",
    "Puzzles": "{line} “{model} by Night”",
    "Vinyl": "{model} Audio {line}",
    "Headphones": "{model} Audio {line}",
    "Crime novels": "The {model} Affair, a {line}",
}


def make_title(category: str, lines: Sequence[str], line: int, model: int) -> str:
    """The title of a model, from 1 on, of a category's product line; no two are the same.

    Beyond the names there are, models are second and later editions.
    """
    first = (list(PRODUCT_LINES).index(category) * len(lines) + line) * _STEP
    edition, position = divmod(model - 1, len(_MODELS))
    name = _MODELS[(first + position) % len(_MODELS)]
    product = lines[line]
    shown = product if product.startswith("Nordic") else product[0].lower() + product[1:]
    title = _FORMS.get(category, "{model} {line}").format(model=name, line=shown)
    title = title[0].upper() + title[1:]
    return title if not edition else f"{title}, edition {edition + 1}"
