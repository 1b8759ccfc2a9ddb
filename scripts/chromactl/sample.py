"""The legacy data set of the runbooks: four collections in the older metadata form that profile sergio maps from.

Everything follows from the seed, so that making it again makes the same. The texts are assembled from word
lists; their embeddings are the hashing embedder's.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

import numpy as np

from chromactl.console import Console
from chromactl.embedding import hashing_embeddings
from chromactl.errors import PreconditionError
from chromactl.stores.base import Batch, Collection, CollectionSpec, Metadata, Target

SIZES = {"sergio_personality": 2350, "sergio_rhetorical": 1890, "sergio_humor": 2150, "sergio_corpus": 3442}
BATCH_RECORDS = 500

_WORDS = {
    "sergio_personality": "conscientiousness values openness empathy boundaries trust discipline curiosity patience "
    "responsibility honesty temperament habits resilience agreeableness reflection growth",
    "sergio_rhetorical": "metaphor systems thinking analogy contrast repetition question irony framing argument "
    "parallel structure emphasis example reframing pause cadence",
    "sergio_humor": "self deprecating funny laughter absurd timing joke awkward playful exaggeration story teasing "
    "warm surprise punchline banter relief",
    "sergio_corpus": "identity relational narrative conversation family community memory language meaning practice "
    "session question listening presence history change",
}
_ENGLISH = (
    "the and of a that we you when people think about how it feels to be with another person in time because what "
    "matters is not only the answer but the way you arrive there and who walks beside you every day"
)
_SPANISH = (
    "la y de una que nosotros cuando pensamos en lo que significa estar con otra persona porque importa no solo la "
    "respuesta sino el camino y quien va a tu lado cada día también mañana corazón"
)
_TRAITS = ["openness", "conscientiousness", "extraversion", "agreeableness", "neuroticism"]
_DEVICES = ["metaphor", "analogy", "rhetorical_question", "repetition", "reframing"]
_HUMORS = ["self_deprecating", "observational", "absurd", "playful_teasing"]
_KINDS = ["transcript", "narrative", "interview"]
_LANGUAGES = ["english", "english", "english", "spanish", "mixed"]


@dataclass(frozen=True, slots=True)
class Sample:
    """What was asked for: how many chunks in all, float32[n, dimension] embeddings, the seed."""

    chunks: int = sum(SIZES.values())
    dimension: int = 768
    seed: int = 7

    def sizes(self) -> dict[str, int]:
        """Chunks per collection, in the proportions of the runbooks; they add up to `chunks`."""
        total = sum(SIZES.values())
        sizes = {name: self.chunks * size // total for name, size in SIZES.items()}
        by_remainder = sorted(SIZES, key=lambda name: -(self.chunks * SIZES[name] % total))
        for name in by_remainder[: self.chunks - sum(sizes.values())]:
            sizes[name] += 1
        return sizes

    def spec(self, collection: str) -> CollectionSpec:
        """The collection as the older service made it: its metric in the metadata."""
        metadata: dict[str, str | int | float | bool] = {"hnsw:space": "cosine", "description": f"legacy {collection}"}
        return CollectionSpec(collection, "cosine", metadata, dimension=self.dimension)

    def batches(self, collection: str, *, embed: bool = True) -> Iterator[Batch]:
        """The collection's records; without `embed`, with embeddings of dimension 0."""
        for start in range(0, self.sizes()[collection], BATCH_RECORDS):
            yield self.batch(collection, start, embed=embed)

    def batch(self, collection: str, start: int, *, embed: bool = True) -> Batch:
        """The batch that begins at this record, made without those before it."""
        random = Random(f"{self.seed} {collection} {start}")  # noqa: S311 (test data, no secret)
        end = min(start + BATCH_RECORDS, self.sizes()[collection])
        records = [_record(random, collection, number) for number in range(start, end)]
        documents = [document for _, document, _ in records]
        return Batch(
            ids=[record for record, _, _ in records],
            embeddings=hashing_embeddings(documents, self.dimension) if embed else np.empty((len(records), 0), "<f4"),
            documents=list(documents),
            uris=[None] * len(records),
            metadatas=[metadata for _, _, metadata in records],
        )


def make(sample: Sample, target: Target, console: Console) -> bool:
    """Put the data set into the database; False if it was there already.

    Raises:
        PreconditionError: a collection of that name holds something else.
    """
    there = {collection.name: collection for collection in target.collections()}
    missing = [name for name in SIZES if name not in there]
    for name in SIZES:
        if name in there and not _holds(target, there[name], sample):
            raise PreconditionError(
                f"{target.url}: already holds a collection {name} with other content; "
                "the sample needs an empty database"
            )
    sizes = sample.sizes()
    run = f"00000000T000000-{sample.seed % 16**6:06x}"
    with console.progress(sum(sizes[name] for name in missing), "sample") as advance:
        staged = []
        for name in missing:
            collection = target.stage(sample.spec(name), run)
            for batch in sample.batches(name):
                target.write(collection, batch, repeat=True)
                advance("sample", len(batch))
            staged.append(collection)
    if staged:
        target.swap(staged, run)
    return bool(staged)


def _holds(target: Target, collection: Collection, sample: Sample) -> bool:
    """Whether the collection has the sample's ids, and the first batch's documents and metadata."""
    size = sample.sizes()[collection.name]
    if set(target.ids(collection)) != {_id(collection.name, number) for number in range(size)}:
        return False
    first = sample.batch(collection.name, 0, embed=False)
    return _rows(target.read_text(collection, first.ids)) == _rows(first)


def _rows(batch: Batch) -> dict[str, tuple[str | None, Metadata | None]]:
    columns = zip(batch.ids, batch.documents, batch.metadatas, strict=True)
    return {record: (document, metadata) for record, document, metadata in columns}


def _record(random: Random, collection: str, number: int) -> tuple[str, str, Metadata]:
    short = collection.removeprefix("sergio_")
    language = random.choice(_LANGUAGES)
    document = _document(random, collection, language)
    metadata: Metadata = {
        "file": f"{short}/session_{number // 40:04d}.md",
        "line": number % 40 * 12 + 1,
        "topic": random.choice(_WORDS[collection].split()),
        "lang": language,
        "confidence": random.choice(["low", "medium", "high"]),
        "authenticity": round(random.uniform(0.5, 1.0), 3),
    }
    if random.random() < 0.8:
        metadata["speaker"] = "Sergio" if random.random() < 0.9 else "Interviewer"
    if random.random() < 0.1:
        metadata["is_disputed"] = True
    if random.random() < 0.3:
        metadata["citation"] = f"if://citation/{short}-{number:05d}-2025-{number % 12 + 1:02d}-{number % 28 + 1:02d}"
    return _id(collection, number), document, metadata | _own_fields(random, collection, document)


def _id(collection: str, number: int) -> str:
    return f"{collection.removeprefix('sergio_')}_{number:06d}"


def _own_fields(random: Random, collection: str, document: str) -> Metadata:
    if collection == "sergio_personality":
        return {
            "trait": random.choice(_TRAITS),
            "score": round(random.uniform(0, 100), 1),
            "examples": random.randrange(9),
        }
    if collection == "sergio_rhetorical":
        fields: Metadata = {"device": random.choice(_DEVICES), "marker": document.split()[0]}
        return fields | ({"frequency": "often"} if random.random() < 0.5 else {})
    if collection == "sergio_humor":
        return {
            "humor": random.choice(_HUMORS),
            "audience": random.choice(["clients", "group", "public"]),
            "rating": round(random.uniform(1, 5), 2),
        }
    return {"kind": random.choice(_KINDS), "intensity": round(random.random(), 2)}


def _document(random: Random, collection: str, language: str) -> str:
    own = _WORDS[collection].split()
    common = {"english": _ENGLISH, "spanish": _SPANISH, "mixed": f"{_ENGLISH} {_SPANISH}"}[language].split()
    words = [random.choice(own) if random.random() < 0.3 else random.choice(common) for _ in range(70)]
    return " ".join(words).capitalize() + "."
