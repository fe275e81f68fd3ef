"""Word count over files.

python examples/word_count.py [FILE ...]        without arguments: this repository's own documentation

The files are read off the event loop, words are counted by key, and the result is checked against collections.Counter.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from pathlib import Path

import sage_actor as sage

WORD = re.compile(r"[^\W\d_]+")
OWN = sorted(str(path) for path in (Path(__file__).resolve().parent.parent / "docs").glob("*.md"))


def words(line: str) -> list[str]:
    return WORD.findall(line.lower())


files = sys.argv[1:] or OWN
env = sage.LocalEnvironment("word count")
counts = (
    env.from_source(sage.FileSource, path=files)
    .flat_map(words)
    .key_by(lambda word: word)
    .count(emit="final")  # one result per word at the end; without it, one update per word read
    .collect()
)
env.execute()

for word, count in sorted(counts, key=lambda pair: (-pair[1], pair[0]))[:10]:
    print(f"{count:>7,}  {word}")
print(f"{sum(count for _, count in counts):>7,}  words in {len(files)} files, {len(counts):,} of them different")

plain: Counter[str] = Counter()
for file in files:
    plain.update(words(Path(file).read_text(encoding="utf-8")))
assert dict(counts) == plain, "the dataflow and a plain loop must count the same"
