"""A byte-level BPE vocabulary: trained here, stored in tiktoken's format, encoded by tiktoken.

Training follows GPT-2 (Radford et al. 2019): text is cut into words, each word starts as single
bytes, and the most frequent pair of neighbours becomes a new token until there are enough. Any
bytes can be encoded. Two special tokens follow the ranks: EOS ends every response, PAD fills up
batches and is never predicted. They differ, or a model would never learn to stop.
"""

import base64
import re
from collections import Counter, defaultdict
from pathlib import Path

import tiktoken

from data.files import UserError, write_text

WORLD = Path(__file__).parent / "vocab.tiktoken"
BYTES = {bytes([b]) for b in range(256)}

# GPT-2's split: a word keeps the space before it. Python's `re` knows no \p{L}:
# training spells the same split without it.
GPT2_SPLIT = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
TRAIN_SPLIT = re.compile(r"'(?:[sdmt]|ll|ve|re)| ?[^\W\d_]+| ?\d+| ?(?:[^\s\w]|_)+|\s+(?!\S)|\s+")


def train_bpe(texts, size: int) -> dict[bytes, int]:
    """Learns `size` tokens, 256 bytes included, from an iterable of str; returns {token: rank}.

    Ties between equally frequent pairs go to the one that sorts first, so the result does not
    depend on hash seeds. Stops early when no pair occurs twice.
    """
    counts = Counter(word for text in texts for word in TRAIN_SPLIT.findall(spaced(text)))
    words = [([bytes([b]) for b in word.encode()], n) for word, n in sorted(counts.items())]
    ranks = {bytes([b]): b for b in range(256)}
    pairs: Counter = Counter()
    where = defaultdict(set)  # pair -> the words that may contain it
    for i, (word, n) in enumerate(words):
        for pair in zip(word, word[1:]):
            pairs[pair] += n
            where[pair].add(i)
    while len(ranks) < size and pairs:
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        if pairs[best] < 2:
            break
        ranks[best[0] + best[1]] = len(ranks)
        for i in where.pop(best):
            word, n = words[i]
            for pair in zip(word, word[1:]):
                pairs[pair] -= n
            merged = merge(word, best)
            for pair in zip(merged, merged[1:]):
                pairs[pair] += n
                where[pair].add(i)
            words[i] = (merged, n)
        del pairs[best]
    return ranks


def merge(word: list[bytes], pair: tuple[bytes, bytes]) -> list[bytes]:
    """Joins every occurrence of the pair, from left to right."""
    out: list[bytes] = []
    i = 0
    while i < len(word):
        if tuple(word[i : i + 2]) == pair:
            out.append(pair[0] + pair[1])
            i += 2
        else:
            out.append(word[i])
            i += 1
    return out


def write_ranks(ranks: dict[bytes, int]) -> str:
    """tiktoken's format: a line per token, base64, space, rank."""
    return "".join(f"{base64.b64encode(t).decode()} {r}\n" for t, r in ranks.items())


def read_ranks(path: Path) -> dict[bytes, int]:
    """Reads what `write_ranks` wrote. Raises UserError for a missing or a broken file."""
    try:
        lines = path.read_text(encoding="ascii").splitlines()
        ranks = {base64.b64decode(line.split()[0]): int(line.split()[1]) for line in lines}
    except OSError:
        raise UserError(f"{path} is missing: run python -m data.make") from None
    except (ValueError, IndexError):
        raise UserError(f"{path} is not a vocabulary in tiktoken's format") from None
    if sorted(ranks.values()) != list(range(len(lines))) or not BYTES <= ranks.keys():
        raise UserError(f"{path} is not a whole vocabulary: every byte, and ranks from 0")
    return ranks


class Tokenizer:
    """Text to token ids and back. `eos` and `pad` are ids; `size` counts EOS but not PAD.

    Ids 0..size-1 can be predicted; PAD is `size`, a row that only the embedding has.
    """

    def __init__(self, ranks: dict[bytes, int] | None = None):
        """The vocabulary of these ranks, by default the small world's."""
        world = read_ranks(WORLD)
        self.ranks = ranks = ranks or world
        self.own = ranks != world  # has other tokens than the small world
        self.eos, self.size, self.pad = len(ranks), len(ranks) + 1, len(ranks) + 1
        self.encoding = tiktoken.Encoding(
            "small-world", pat_str=GPT2_SPLIT, mergeable_ranks=ranks, special_tokens={}
        )
        self.encode = self.encoding.encode_ordinary

    @classmethod
    def of(cls, out: str | Path):
        """The vocabulary that the checkpoints of a folder were made with."""
        file = Path(out) / "vocab.tiktoken"
        return cls(read_ranks(file)) if file.exists() else cls()

    def save(self, out: str | Path) -> None:
        """Makes this the vocabulary of a folder; the small world's needs no file.

        Raises UserError if the folder has checkpoints that were made with another one.
        """
        file = Path(out) / "vocab.tiktoken"
        if any(Path(out).glob("*.pt")) and Tokenizer.of(out).ranks != self.ranks:
            raise UserError(f"{out} has checkpoints of another vocabulary: choose another --out")
        if self.own:
            write_text(file, write_ranks(self.ranks))
        else:
            file.unlink(missing_ok=True)

    def document(self, text: str) -> list[int]:
        """A document of the web: every line starts with a space, then EOS.

        GPT-2's split glues a space to the word behind it, so " cat" and "cat" are two tokens. With
        a space before each line a word is one token wherever it stands, and easy to copy.
        """
        return self.encode(spaced(text)) + [self.eos]

    def open_document(self, text: str) -> list[int]:
        """A document that goes on: no EOS, and no space yet on a last line that is empty."""
        return self.encode(spaced(text).removesuffix(" "))

    def prompt(self, text: str) -> list[int]:
        """A prompt as every model sees it: space, text, newline."""
        return self.encode(spaced(text) + "\n")

    def response(self, text: str) -> list[int]:
        """A response as every model sees it: space, text, EOS, encoded apart from its prompt."""
        return self.document(text)

    def decode(self, tokens: list[int]) -> str:
        """Text of the tokens up to the first EOS, without the spaces that `spaced` adds.

        Bytes that are not UTF-8 show as U+FFFD.
        """
        if self.eos in tokens:
            tokens = tokens[: tokens.index(self.eos)]
        text = self.encoding.decode([t for t in tokens if t < self.eos])
        return text.removeprefix(" ").replace("\n ", "\n")


def spaced(text: str) -> str:
    return " " + text.replace("\n", "\n ")
