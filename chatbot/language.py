"""Which language a text is in, and the words it is searched by. It does not translate and has no weights."""

from __future__ import annotations

import math
import re
import threading
import unicodedata
from collections import Counter
from functools import cache, lru_cache
from itertools import pairwise
from pathlib import Path

# Scripts that put no spaces between words: kana, Han, Hangul; Thai, Lao, Myanmar, Khmer.
_KANA = "\u3041-\u3096\u309d-\u309f\u30a1-\u30fa\u30fc-\u30ff\u31f0-\u31ff"
_HAN = "\u3005-\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_HANGUL = "\u1100-\u11ff\u3131-\u318e\uac00-\ud7a3"
_SPACELESS = f"{_KANA}{_HAN}{_HANGUL}\u0e01-\u0e3a\u0e40-\u0e4e\u0e81-\u0ece\u1000-\u1049\u1780-\u17d3"
_INDIC = "\u0900-\u0963\u0966-\u0dff"  # letters together with the vowel signs that `\w` leaves out

_WORD = re.compile(rf"[{_SPACELESS}]+|(?:(?![{_SPACELESS}])(?>[^\W_]|[{_INDIC}]))++")
_SPACELESS_RUN = re.compile(rf"[{_SPACELESS}]+")
_MARKS = re.compile("[\u0300-\u036f\u0483-\u0487\u0591-\u05c7\u0610-\u061a\u0640\u064b-\u065f\u0670]")
_POSSESSIVE = re.compile(r"(?<=\w)['’]s\b")


def words(text: str) -> list[str]:
    """The words to index or look up, in order, repeats kept.

    Letters and digits only, folded (NFKC, case, accents of Latin letters) and English-stemmed where Latin.
    Characters of scripts without spaces come singly and in pairs: of 12 Chinese, Japanese and Korean probes
    that found 12, SQLite's own tokenizer 2, its trigrams 3, jieba 11.
    """
    folded = _MARKS.sub("", unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold()))
    found: list[str] = []
    for match in _WORD.finditer(_POSSESSIVE.sub("", folded)):
        word = match.group()
        if _SPACELESS_RUN.match(word):
            found.extend(word)
            found.extend(first + second for first, second in pairwise(word))
        else:
            found.append(_stem(word))
    return found


_stemming = threading.Lock()  # the stemmer keeps the word it works on in itself


@lru_cache(maxsize=100_000)
def _stem(word: str) -> str:
    bare = _MARKS.sub("", unicodedata.normalize("NFKD", word))
    if not bare.isascii():
        return word
    with _stemming:
        return str(_stemmer().stemWord(bare))


@cache
def _stemmer():  # type: ignore[no-untyped-def]
    import snowballstemmer

    return snowballstemmer.stemmer("english")


# A letter that only one language of its script writes, the commonest language of the script last.
_BY_SCRIPT: tuple[tuple[str, str, tuple[tuple[str, str], ...]], ...] = (
    (
        "cyrillic",
        "\u0400-\u04ff",
        (("uk", "іїєґ"), ("mk", "ѓќѕ"), ("sr", "ђћљњџј"), ("ru", "ыэё"), ("bg", "ъ"), ("ru", "")),
    ),
    (
        "arabic",
        "\u0600-\u06ff\u0750-\u077f\ufb50-\ufdff\ufe70-\ufeff",
        (("ur", "ٹڈڑےں"), ("fa", "پچژگکی"), ("ar", "")),
    ),
    ("hebrew", "\u0590-\u05ff", (("he", ""),)),
    ("greek", "\u0370-\u03ff\u1f00-\u1fff", (("el", ""),)),
    ("armenian", "\u0530-\u058f", (("hy", ""),)),
    ("georgian", "\u10a0-\u10ff", (("ka", ""),)),
    ("devanagari", "\u0900-\u097f", (("mr", "ळ"), ("hi", ""))),
    ("bengali", "\u0980-\u09ff", (("bn", ""),)),
    ("gurmukhi", "\u0a00-\u0a7f", (("pa", ""),)),
    ("gujarati", "\u0a80-\u0aff", (("gu", ""),)),
    ("tamil", "\u0b80-\u0bff", (("ta", ""),)),
    ("telugu", "\u0c00-\u0c7f", (("te", ""),)),
    ("kannada", "\u0c80-\u0cff", (("kn", ""),)),
    ("malayalam", "\u0d00-\u0d7f", (("ml", ""),)),
    ("sinhala", "\u0d80-\u0dff", (("si", ""),)),
    ("thai", "\u0e00-\u0e7f", (("th", ""),)),
    ("lao", "\u0e80-\u0eff", (("lo", ""),)),
    ("myanmar", "\u1000-\u109f", (("my", ""),)),
    ("khmer", "\u1780-\u17ff", (("km", ""),)),
)

# "what does 道 mean" is English, "请解释 attention" Chinese: of a script without spaces, a character counts as a
# word does.
_RUNS = re.compile(
    rf"(?P<hangul>[{_HANGUL}])|(?P<kana>[{_KANA}])|(?P<han>[{_HAN}])|"
    + "|".join(f"(?P<{name}>[{letters}]+)" for name, letters, _ in _BY_SCRIPT)
    + "|(?P<latin>[A-Za-zÀ-ÖØ-öø-ɏ\u1e00-\u1eff]+)"
)
_ADDRESS = re.compile(r"\b(?:https?://|www\.)\S+|(?<!\S)(?>\S[^\s@]*@)\S++")
_CHINESE_ONLY = frozenset("的了吗嗎呢吧么麼们們这這那哪怎谁誰您你她很没沒什")
_TURN_WORD = re.compile(r"\w+")
_ENOUGH_LATIN = 12  # letters: with fewer, the guess is poor
_LONGEST = 2_000  # characters looked at

# The Latin-script languages that are told apart: their prior, and words that are common in questions.
_LATIN = {
    "en": (
        0.4,
        "the of and what is are how who when where why does do did in to it this that was were can you for about "
        "which list show tell give explain summarize",
    ),
    "de": (
        0.08,
        "der die das und ist sind wie was wer wann wo warum ein eine den im zu von mit es für welche gibt mir",
    ),
    "es": (
        0.08,
        "el la los las y es son qué cómo quién cuándo dónde por un una de en que del cuál para me",
    ),
    "fr": (
        0.08,
        "le la les et est sont que qui quand où pourquoi comment un une des du de quel quelle pour ce dans moi",
    ),
    "it": (0.06, "il lo la gli e è sono che come chi quando dove perché un una di del della quanto per mi quali"),
    "pt": (0.06, "o os as e é são que como quem quando onde por um uma de do da no na qual quais para me isto"),
    "nl": (0.04, "de het een en is zijn wat hoe wie wanneer waar waarom van in op dat dit voor me welke"),
    "pl": (0.03, "i jest są co jak kto kiedy gdzie dlaczego w na z do to ile mam czy jakie mi się"),
    "tr": (0.03, "ve bir bu ne nasıl kim nerede neden için mi mı var kaç bana"),
    "vi": (0.03, "là và của có gì ai khi nào thế cho tôi một bao nhiêu"),
    "id": (0.03, "yang dan di apa bagaimana siapa kapan mana ini itu untuk dari berapa saya"),
    "sv": (0.02, "och är vad hur vem när var varför en ett det som av på för i detta mig"),
    "cs": (0.01, "a je jsou co jak kdo kdy kde proč v na z do to mi kolik"),
    "da": (0.01, "og er hvad hvordan hvem hvornår hvor hvorfor en et det som af på for i dette mig"),
    "fi": (0.01, "ja on ovat mitä mikä miten kuka milloin missä miksi se tämä minulle"),
    "hu": (0.01, "a az és van mi hogyan ki mikor hol miért egy ez mennyi nekem"),
    "no": (0.01, "og er hva hvordan hvem når hvor hvorfor en et det som av på for i dette meg"),
    "ro": (0.01, "și este sunt ce cum cine când unde un o de la din pentru a în mi"),
}
_ENGLISH = frozenset(f"{_LATIN['en'][1]} bye hello hey hi no please sorry thank thanks yes".split())
_STAYS = 100  # times likelier that a conversation stays in its language
_COMMON_WORD = 4  # nats for a word of the list
_SMOOTHING = 3e-5  # share of a letter sequence that a language's profile lacks


def detect(text: str, fallback: str | None = None) -> str:
    """ISO 639-1. By script, then by letters; the fallback (the conversation's language, else "en") in doubt."""
    text = _ADDRESS.sub(" ", text)
    scripts = Counter(match.lastgroup for match in _RUNS.finditer(text) if match.lastgroup)
    cjk = scripts["han"] + scripts["kana"] + scripts["hangul"]
    others = {name: scripts[name] for name, _, _ in _BY_SCRIPT}
    script = max(others, key=lambda name: others[name], default="")
    most = max(cjk, others.get(script, 0))
    if most == 0 or scripts["latin"] > most:
        return _latin(text, fallback)
    return _cjk(text, scripts, fallback) if most == cjk else _by_letters(text.lower(), script)


def _cjk(text: str, scripts: Counter[str], fallback: str | None) -> str:
    han, kana, hangul = scripts["han"], scripts["kana"], scripts["hangul"]
    if hangul > han + kana or (hangul and hangul >= kana and hangul * 2 >= han):
        return "ko"
    if kana and kana * 20 >= han + kana:  # Japanese has it in nearly every phrase; Chinese in a shop's name
        return "ja"
    return "ja" if fallback == "ja" and not _CHINESE_ONLY & set(text) else "zh"


def _by_letters(text: str, script: str) -> str:
    languages = next(languages for name, _, languages in _BY_SCRIPT if name == script)
    return next(language for language, letters in languages if not letters or set(letters) & set(text))


def _latin(text: str, fallback: str | None) -> str:
    """Naive Bayes over langdetect's letter sequences and a few common words, since turns are short.

    Of 800 questions of QReCC 99.8 % are found to be English (langdetect's own sampling: 98.8 %); of 112 short turns
    in 17 other languages, 107 (102), and 110 in a conversation in that language (102).
    """
    if sum(map(str.isalpha, text)) < _ENOUGH_LATIN:
        # a name alone may stand in a Chinese turn, "Thanks!" does not
        stays = fallback in _LATIN or not _ENGLISH & set(_TURN_WORD.findall(text.lower()))
        return fallback if fallback and stays else "en"
    text, factory = text[:_LONGEST], _factory()
    detector = factory.create()
    detector.append(text)
    scores = {name: math.log(prior * (_STAYS if name == fallback else 1)) for name, (prior, _) in _LATIN.items()}
    for sequence in detector._extract_ngrams():
        for name, share in zip(factory.langlist, factory.word_lang_prob_map[sequence], strict=True):
            scores[name] += math.log(_SMOOTHING + share)
    turn = _TURN_WORD.findall(text.lower())
    for name, (_, common) in _LATIN.items():
        scores[name] += _COMMON_WORD * len([word for word in turn if word in common.split()])
    return max(scores, key=scores.__getitem__)


@cache
def _factory():  # type: ignore[no-untyped-def]
    """langdetect's profiles of these languages alone."""
    from langdetect.detector_factory import PROFILES_DIRECTORY, DetectorFactory

    factory = DetectorFactory()
    factory.load_json_profile([(Path(PROFILES_DIRECTORY) / name).read_text("utf-8") for name in _LATIN])
    return factory


_CLOSING = "\"'”’»›)]}」』】〉》）］"  # it stays with the sentence that it closes
_MOST_CLOSING = 4  # of them
_SENTENCE_MARK = re.compile(r"[.!?…]++|[。！？｡][.!?…。！？｡]*+|\n")
_OPENING = "\"'“‘«([「『（"
_LETTERS_OR_DIGITS = re.compile(r"[^\W\d_]++|\d++")
_INITIALS = re.compile(
    rf"(?![{_SPACELESS}])[^\W\d_](?:\.[^\W\d_]{{1,2}}+)*+"
)  # J, U.S, a.m, Ph.D: the last point left out
_LONGEST_SHORTENED = 12  # characters
_BY_USE = {  # words: that no sentence ends with, shortened; before numbers; that may end one; that begin many
    "never last": "dr mr mrs ms mx prof st mt gen col maj capt lt sgt cpl rev hon sen rep gov pres messrs mme mlle vs "
    "cf viz e.g i.e",
    "before numbers": "no nos nr fig figs vol vols p pp ch chap sec art par eq tab app ca approx",
    "shortened": "inc ltd co corp jr sr bros dept est ext al etc ave blvd rd jan feb mar apr jun jul aug sep sept oct "
    "nov dec",
    "openers": "the a an it its he his she her they their we our you your this that these those there here in on at by "
    "for from with to of as if when while where who what which why how but and or so then also however after before "
    "since because although not no yes is are was were do does did has have had can may please see",
}
_USED = {use: frozenset(listed.split()) for use, listed in _BY_USE.items()}


def sentence_ends(text: str) -> list[int]:
    """Where each sentence ends but the last, its closing quotes and brackets with it.

    After a shortened word or an initial only before a word that often begins sentences: "U.S. Army", "in the U.S. It".
    No library: pysbd changes the text that it splits, so that places in it are lost, and its last release is of 2021.
    """
    ends, start = [], 0
    for mark in _SENTENCE_MARK.finditer(text):
        if mark.start() < start:
            continue
        stop = mark.end() if mark[0] == "\n" else _ended(text, start, mark.start(), mark.end())
        if 0 < stop < len(text):
            ends.append(stop)
            start = stop
    return ends


def _ended(text: str, start: int, dot: int, stop: int) -> int:
    """Where the sentence from `start` ends whose last mark may be `text[dot:stop]`; 0 where it goes on."""
    marks, spaceless = text[dot:stop], text[dot] in "。！？｡"
    for _ in range(_MOST_CLOSING):
        if stop < len(text) and text[stop] in _CLOSING and not (spaceless and _opens(text, start, stop)):
            stop += 1
    if spaceless:
        return stop
    if stop < len(text) and not text[stop].isspace():
        return 0  # 3.5, example.org
    after = stop
    while after < len(text) and (text[after].isspace() or text[after] in _OPENING):
        after += 1
    word = _LETTERS_OR_DIGITS.match(text, after, after + 40)
    small = word is not None and word[0][0].islower()
    if "!" in marks or "?" in marks:
        return 0 if small and text[stop - 1] in _CLOSING else stop  # "Why?" she asked.
    if small or (marks != "." and word is None):
        return 0
    return 0 if marks == "." and _shortened(text, start, dot, word) else stop


def _opens(text: str, start: int, quote: int) -> bool:
    """Whether a straight quotation mark opens a quotation and does not close one."""
    return text[quote] in "\"'" and text.count(text[quote], start, quote) % 2 == 0


def _shortened(text: str, start: int, dot: int, next_word: re.Match[str] | None) -> bool:
    """Whether the point at `dot` belongs to the word before it, and the sentence goes on."""
    before = text[max(start, dot - _LONGEST_SHORTENED) : dot].replace("(", " ").split()
    if not before or not text[dot - 1].isalnum():
        return False
    word, following = before[-1].strip("\"'“‘[").casefold(), next_word[0] if next_word else ""
    if word in _USED["never last"]:
        return True
    if word.isdecimal():  # the number of an entry in a list
        return len(word) < 4 and not text[start:dot].strip(" \t\n0123456789")
    if word in _USED["before numbers"]:
        return following[:1].isdigit()
    if word in _USED["shortened"] or _INITIALS.fullmatch(word):
        return following != "" and following.casefold() not in _USED["openers"]
    return False
