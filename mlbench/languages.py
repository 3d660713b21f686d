"""Languages of the data sets: BCP-47 codes, the scripts they are written in, and default resource tiers.

Tiers are those of MultiJail (Deng et al., arXiv:2310.06474) for its ten languages. The others follow its rule, the
share of the language among Common Crawl's pages: above 1 % high, above 0.1 % mid, else low (read from Common Crawl's
language statistics by us; Czech, Dutch and Polish lie close above the first border). A task whose paper groups its
languages otherwise states its own tiers.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping
from functools import cache

from mlbench.core import Language, Tier
from mlbench.errors import DataError, nearest

SCRIPTS: dict[Language, tuple[str, ...]] = {
    "af": ("Latn",), "am": ("Ethi",), "ar": ("Arab",), "bg": ("Cyrl",), "bn": ("Beng",), "ckb": ("Arab",),
    "cs": ("Latn",), "de": ("Latn",), "el": ("Grek",), "en": ("Latn",), "es": ("Latn",), "fa": ("Arab",),
    "fr": ("Latn",), "gu": ("Gujr",), "he": ("Hebr",), "hi": ("Deva",), "hu": ("Latn",), "hy": ("Armn",),
    "id": ("Latn",), "it": ("Latn",), "ja": ("Jpan", "Hani"), "jv": ("Latn",), "ka": ("Geor",), "kmr": ("Latn",),
    "kn": ("Knda",), "ko": ("Hang",), "ku": ("Arab", "Latn"), "ml": ("Mlym",), "mr": ("Deva",), "ms": ("Latn",),
    "ne": ("Deva",), "nl": ("Latn",), "pa": ("Guru", "Arab"), "pl": ("Latn",), "ps": ("Arab",), "pt": ("Latn",),
    "ru": ("Cyrl",), "sr": ("Cyrl", "Latn"), "sv": ("Latn",), "sw": ("Latn",), "ta": ("Taml",), "te": ("Telu",),
    "th": ("Thai",), "tl": ("Latn",), "tr": ("Latn",), "uk": ("Cyrl",), "ur": ("Arab",), "vi": ("Latn",),
    "yo": ("Latn",), "zh": ("Hani",), "zu": ("Latn",),
    "as": ("Beng",), "be": ("Cyrl",), "kk": ("Cyrl",), "km": ("Khmr",), "ky": ("Cyrl",), "lo": ("Laoo",),
    "mk": ("Cyrl",), "mn": ("Cyrl", "Mong"), "my": ("Mymr",), "or": ("Orya",), "sd": ("Arab",), "si": ("Sinh",),
    "tg": ("Cyrl",), "ug": ("Arab",),
}  # fmt: skip
"""ISO 15924 codes of the scripts in which texts of a language are expected; a code that is missing is not checked."""

FLORES: dict[Language, str] = {
    "af": "afr_Latn", "am": "amh_Ethi", "ar": "arb_Arab", "bg": "bul_Cyrl", "bn": "ben_Beng", "ckb": "ckb_Arab",
    "cs": "ces_Latn", "de": "deu_Latn", "el": "ell_Grek", "en": "eng_Latn", "es": "spa_Latn", "fa": "pes_Arab",
    "fr": "fra_Latn", "gu": "guj_Gujr", "he": "heb_Hebr", "hi": "hin_Deva", "hu": "hun_Latn", "hy": "hye_Armn",
    "id": "ind_Latn", "it": "ita_Latn", "ja": "jpn_Jpan", "jv": "jav_Latn", "ka": "kat_Geor", "kmr": "kmr_Latn",
    "kn": "kan_Knda", "ko": "kor_Hang", "ml": "mal_Mlym", "mr": "mar_Deva", "ms": "zsm_Latn", "ne": "npi_Deva",
    "nl": "nld_Latn", "pa": "pan_Guru", "pl": "pol_Latn", "ps": "pbt_Arab", "pt": "por_Latn", "ru": "rus_Cyrl",
    "sr": "srp_Cyrl", "sv": "swe_Latn", "sw": "swh_Latn", "ta": "tam_Taml", "te": "tel_Telu", "th": "tha_Thai",
    "tl": "tgl_Latn", "tr": "tur_Latn", "uk": "ukr_Cyrl", "ur": "urd_Arab", "vi": "vie_Latn", "yo": "yor_Latn",
    "zh": "zho_Hans", "zu": "zul_Latn",
}  # fmt: skip
"""FLORES-200's codes, which NLLB and Belebele use. Kurdish ("ku") has none: kmr is Kurmanji, ckb Sorani."""

TIERS: dict[Tier, tuple[Language, ...]] = {
    "high": ("en", "zh", "it", "vi", "ru", "de", "es", "fr", "ja", "nl", "pl", "pt", "cs", "tr"),
    "mid": ("ar", "ko", "th", "bg", "el", "fa", "he", "hi", "hu", "id", "sr", "sv", "uk"),
}
"""Everything else is low."""

ALIASES: dict[str, Language] = {"sp": "es", "jp": "ja", "cn": "zh", "kr": "ko", "filipino": "tl", "tagalog": "tl"}
"""Names that released data sets use, and the codes they stand for."""

UNICODE = {
    "LATIN": "Latn", "CYRILLIC": "Cyrl", "ARABIC": "Arab", "BENGALI": "Beng", "DEVANAGARI": "Deva", "THAI": "Thai",
    "HANGUL": "Hang", "CJK": "Hani", "HIRAGANA": "Jpan", "KATAKANA": "Jpan", "GREEK": "Grek", "HEBREW": "Hebr",
    "TAMIL": "Taml", "TELUGU": "Telu", "KANNADA": "Knda", "MALAYALAM": "Mlym", "GUJARATI": "Gujr",
    "GURMUKHI": "Guru", "ETHIOPIC": "Ethi", "ARMENIAN": "Armn", "GEORGIAN": "Geor", "KHMER": "Khmr", "LAO": "Laoo",
    "MYANMAR": "Mymr", "SINHALA": "Sinh", "TIBETAN": "Tibt", "ORIYA": "Orya", "MONGOLIAN": "Mong",
}  # fmt: skip
"""First word of a letter's Unicode name -> ISO 15924; kana stand for Japanese, which mixes them with Han."""


def tier(language: Language) -> Tier:
    """Return the default tier of a language."""
    return next((name for name, codes in TIERS.items() if language in codes), "low")


def tiers(languages: Iterable[Language]) -> dict[Language, Tier]:
    """Return the default tiers of several languages."""
    return {language: tier(language) for language in languages}


@cache
def _script(letter: str) -> str:
    return UNICODE.get(unicodedata.name(letter, "").split(" ")[0].split("-")[0], "")


def scripts(text: str) -> Counter[str]:
    """Return how many letters of a text are in each script; Han characters next to kana are Japanese, Jpan."""
    counts = Counter(_script(letter) for letter in text if letter.isalpha())
    del counts[""]
    if counts["Jpan"]:
        counts["Jpan"] += counts.pop("Hani", 0)
    return counts


def script_of(text: str) -> str:
    """Return the ISO 15924 code of the script most letters of a text are in, "" where it has no letter.

    Han characters next to kana are Japanese, Jpan.
    """
    counts = scripts(text)
    return max(counts, key=lambda script: counts[script]) if counts.total() else ""


def in_script(text: str, language: Language) -> bool:
    """Return whether at least a quarter of a text's letters are in a script of its language; True where unknown.

    A quarter, since names and terms in Latin letters are longer than the words around them in Chinese or Korean.
    """
    expected, counts = SCRIPTS.get(language, ()), scripts(text)
    return not expected or 4 * sum(counts[script] for script in expected) >= counts.total()


def code(name: str, where: str = "") -> Language:
    """Return the code of a language given as a BCP-47 code or by its English name.

    Raises:
        DataError: Nothing is called so; names the nearest.
    """
    known = _names()
    if name in known or known.get(name.partition("-")[0]):
        return name
    by_name: dict[str, Language] = {}
    for each, english in known.items():
        by_name.setdefault(english.lower(), each)
    found = ALIASES.get(name.lower()) if len(name) > 2 else None
    found = found or by_name.get(name.lower())
    if found:
        return found
    shown = repr(name) if len(name) <= 20 else f"of {len(name)} characters"
    place = f"{where}: " if where else ""
    raise DataError(f"{place}unknown language {shown}", hint=_near(name), allowed=SCRIPTS)


def name(language: Language) -> str:
    """Return the English name of a language, or its code where Unicode's CLDR has none."""
    return _names().get(language, language)


@cache
def _names() -> Mapping[Language, str]:
    from babel import Locale

    names = {code.replace("_", "-"): name for code, name in Locale("en").languages.items()}
    # The data sets' own codes come first, so that a name two codes share leads to theirs.
    return {code: names.get(code, code) for code in SCRIPTS} | names | {"tl": "Tagalog", "kmr": "Kurmanji"}


def _near(name: str) -> str:
    from babel.core import get_global

    alias = ALIASES.get(name.lower()) or get_global("language_aliases").get(name.lower(), "")
    if alias in _names():
        return f"did you mean {alias!r} ({_names()[alias]})?"
    by_name = {_names()[code]: code for code in SCRIPTS}
    if nearest(name, by_name):
        close = nearest(name, by_name).removeprefix("did you mean '").removesuffix("'?")
        return f"did you mean {by_name[close]!r} ({close})?"
    return nearest(name, SCRIPTS)
