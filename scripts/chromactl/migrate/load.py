"""Import: into new collections beside the live ones; and the proof, by reading every record back."""

from __future__ import annotations

from chromactl import metric
from chromactl.compare import Comparison, Difference
from chromactl.console import Advance
from chromactl.digest import CollectionDigest
from chromactl.migrate.gate import Passage
from chromactl.migrate.plan import PlannedCollection
from chromactl.migrate.state import RunFolder
from chromactl.schema.profile import Profile
from chromactl.stores.base import Collection, Source, Target


def load(
    target: Target,
    staged: Collection,
    planned: PlannedCollection,
    profile: Profile,
    folder: RunFolder,
    batch_size: int,
    advance: Advance,
) -> int:
    """Write every shard that is not in the ledger yet; the number of records that are in the target then."""
    passage = Passage(profile, planned)
    done = folder.noted("import", planned.name)
    if target.count(staged) < sum(entry["records"] for entry in done.values()):
        # The target does not hold what the ledger says: files in the making end with the process that made them,
        # and a server may have been put back to an older state. So everything is written again.
        done = {}
    begun = folder.noted("import-begun", planned.name)
    records = 0
    for number, shard in enumerate(folder.shards(planned.name)):
        if number in done:
            records += done[number]["records"]
        else:
            batch = passage.load(folder, shard)
            folder.note("import-begun", planned.name, number)
            for part in batch.slices(batch_size):
                target.write(staged, part, repeat=number in begun)
            folder.note("import", planned.name, number, records=len(batch))
            records += len(batch)
        advance(shard.rows)
    return records


def verify(
    store: Source,
    collection: Collection,
    planned: PlannedCollection,
    profile: Profile,
    folder: RunFolder,
    advance: Advance,
    *,
    to_the_end: bool = True,
) -> tuple[Comparison, str]:
    """Compare every record of the collection with what it should be; also the digest of what was read.

    Without `to_the_end` it stops after the first shard that shows a difference.
    """
    passage = Passage(profile, planned)
    comparison = Comparison()
    digest = CollectionDigest()
    there = store.ids(collection)
    extra = set(there)
    if (proven := metric.prove(store, collection, there)) not in (None, planned.spec.space):
        comparison.differences.append(Difference("", "metric", planned.spec.space, str(proven)))
    for shard in folder.shards(planned.name):
        if comparison.differences and not to_the_end:
            break
        expected = passage.load(folder, shard)
        actual, _ = store.read(collection, expected.ids)
        comparison.add(expected, actual, space=planned.spec.space)
        digest.add(actual)
        extra.difference_update(expected.ids)
        advance(shard.rows)
    else:
        comparison.differences += [Difference(record, "record", "absent", "there") for record in sorted(extra)]
    return comparison, digest.hexdigest()


def digest_of(store: Source, collection: Collection, records_at_once: int = 5000) -> str:
    """The digest of everything that the collection holds now."""
    digest = CollectionDigest()
    ids = store.ids(collection)
    for start in range(0, len(ids), records_at_once):
        batch, _ = store.read(collection, ids[start : start + records_at_once])
        digest.add(batch)
    return digest.hexdigest()
