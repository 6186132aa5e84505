"""Makes the corpus of this folder and trains on it with the Rust library (tokenizers 0.23.2).

    python make.py

corpus.jsonl   invented text: words of Zipf frequencies in five scripts, prose and code, one {"text"} a line
golden.json    `runs`: merges ("left right") and vocabulary size for several settings on the corpus;
               `small`: many tiny corpora over two or three letters, where equal counts, overlaps (aaa) and tokens formed in
               two ways decide. Kept only if five runs of the library agree (its maps are hashed at random).
"""

import json
import random

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

SPECIAL = ["<unk>", "<s>", "</s>", "<pad>"]
BLOOM = " ?[^(\\s|[.,!?…。，、।۔،])]+"
SCRIPTS = ["bdfgklmnprstvz aeiou", "бвгдклмнпрст аеиоу", "βγδκλμνπρστ αειο", "कखगतदनपमरलस ािीुे", "天地人山川日月火水木 中大小上下"]


def cutter(pattern):
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=pattern == "gpt2")
    if pattern == "gpt2":
        return byte_level
    return pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(BLOOM), "isolated", invert=False), byte_level])


def train(texts, pattern, vocab_size, min_frequency=0, special=SPECIAL):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = cutter(pattern)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, min_frequency=min_frequency, special_tokens=special, show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator(texts, trainer)
    model = json.loads(tokenizer.to_str())["model"]
    tokens = [token for token, _ in sorted(model["vocab"].items(), key=lambda item: item[1])]
    return tokens, [" ".join(pair) for pair in model["merges"]]


def make_corpus(rng):
    lexicons = []
    for script in SCRIPTS:
        consonants, vowels = script.split(" ")
        words = ["".join(rng.choice(consonants) + rng.choice(vowels) for _ in range(rng.randint(1, 4))) for _ in range(1500)]
        lexicons.append((words, [1 / (rank + 2) for rank in range(len(words))]))

    def sentence(k):
        words, weights = lexicons[k]
        picked = rng.choices(words, weights, k=rng.randint(3, 12))
        end = rng.choice([".", "!", "?", "…", "।", "。", ",\n", " — ", ":"])
        return " ".join(picked).capitalize() + end

    def code():
        words, weights = lexicons[0]
        a, b, c = rng.choices(words, weights, k=3)
        n = rng.randint(0, 9999)
        return rng.choice([
            f"function {a}({b}: number, {c} = {n}) {{\n  return {b} + {c}[{n}];\n}}\n",
            f"    if ({a}.{b} !== null && {c} <= 0x{n:x}) {{\n\t\t{a}.{b}({c});\n    }}\n",
            f"export const {a.upper()}_{b.upper()} = '{c}'; // {n}%\n", f"| {a} | {b:>12} | {n:.2f} |\n", f"```\n{a} --{b}={c} | {a}\n```\r\n",
        ])

    documents = []
    while sum(len(d.encode()) for d in documents) < 400_000:
        k = rng.choices(range(5), [6, 2, 1, 1, 2])[0]
        parts = [code() if rng.random() < 0.3 else sentence(k) + rng.choice([" ", " ", "\n", "\n\n", "  "]) for _ in range(rng.randint(2, 30))]
        documents.append("".join(parts) + rng.choice(["", "</s>", "🦊", "\ufeff", "\u00a0", "  \n"]))
    return documents


def main():
    rng = random.Random(20260101)
    corpus = make_corpus(rng)
    with open("corpus.jsonl", "w", encoding="utf-8") as file:
        for text in corpus:
            file.write(json.dumps({"text": text}, ensure_ascii=False) + "\n")
    runs = []
    for pattern, vocab_size, min_frequency, special in [
        ("bloom", 2000, 0, SPECIAL), ("gpt2", 1500, 0, SPECIAL), ("bloom", 6000, 40, SPECIAL), ("bloom", 100_000, 2, ["<|end|>"]),
    ]:
        results = [train(corpus, pattern, vocab_size, min_frequency, special) for _ in range(3)]
        assert results[0] == results[1] == results[2]
        tokens, merges = results[0]
        runs.append(dict(pattern=pattern, vocab_size=vocab_size, min_frequency=min_frequency, special=special, tokens=len(tokens), merges=merges))
        print(pattern, vocab_size, len(tokens), len(merges))
    small, unstable = [], 0
    while len(small) < 300:
        letters = rng.choice(["ab", "abc", "aé", "a<s>/"])
        words = ["".join(rng.choice(letters) for _ in range(rng.randint(1, 14))) for _ in range(rng.randint(1, 12))]
        texts = [" ".join(rng.choices(words, k=rng.randint(1, 8))) for _ in range(rng.randint(1, 6))]
        vocab_size = 260 + rng.randint(1, 60)
        results = [train(texts, "bloom", vocab_size) for _ in range(5)]
        if all(result == results[0] for result in results):
            small.append(dict(texts=texts, vocab_size=vocab_size, tokens=len(results[0][0]), merges=results[0][1]))
        else:
            unstable += 1
    print("small", len(small), "unstable", unstable, "with fewer tokens than merges", sum(c["tokens"] - 260 != len(c["merges"]) for c in small))
    with open("golden.json", "w", encoding="utf-8") as file:
        json.dump(dict(runs=runs, small=small), file, ensure_ascii=False, indent=0)


main()
