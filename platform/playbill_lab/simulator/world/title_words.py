"""Names in twelve languages, characters, and synopses that speak of their genres, of generated titles.

Axis letters: T titles, G genres.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from playbill.arrays import Bools
from playbill.errors import DataError, Problem, nearest

# ruff: noqa: RUF001 - Turkish letters are what they look like.


@dataclass(frozen=True, slots=True)
class Tongue:
    """How names are made in one language. Word i means the same thing in every language."""

    nouns: tuple[str, ...]
    adjectives: tuple[str, ...]
    of: str
    both: str
    described: str  # Template of an adjective `a` and a noun `n`


def _tongue(nouns: str, adjectives: str, of: str, both: str, described: str) -> Tongue:
    return Tongue(_words(nouns), _words(adjectives), of, both, described)


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


TONGUES = {
    "en": _tongue(
        "Night River Crown Shadow Garden Winter Fire Mirror Ocean Letter Wolf City Storm Secret House Star Road Dream "
        "Blood Silence Bridge Island Game Heart Moon Forest Voice Stone Dawn Ghost Queen Train",
        "Last Broken Golden Lost Hidden Silent Red Endless Stolen Wild Cold Burning",
        "{a} of {b}",
        "{a} and {b}",
        "The {a} {n}",
    ),
    "es": _tongue(
        "Noche Río Corona Sombra Jardín Invierno Fuego Espejo Océano Carta Lobo Ciudad Tormenta Secreto Casa Estrella "
        "Camino Sueño Sangre Silencio Puente Isla Juego Corazón Luna Bosque Voz Piedra Alba Fantasma Reina Tren",
        "Final Roto Dorado Perdido Oculto Callado Rojo Infinito Robado Salvaje Frío Ardiente",
        "{a} de {b}",
        "{a} y {b}",
        "{n} {a}",
    ),
    "pt": _tongue(
        "Noite Rio Coroa Sombra Jardim Inverno Fogo Espelho Oceano Carta Lobo Cidade Tempestade Segredo Casa Estrela "
        "Estrada Sonho Sangue Silêncio Ponte Ilha Jogo Coração Lua Floresta Voz Pedra Aurora Fantasma Rainha Trem",
        "Final Quebrado Dourado Perdido Oculto Calado Vermelho Infinito Roubado Selvagem Frio Ardente",
        "{a} de {b}",
        "{a} e {b}",
        "{n} {a}",
    ),
    "fr": _tongue(
        "Nuit Rivière Couronne Ombre Jardin Hiver Feu Miroir Océan Lettre Loup Ville Orage Secret Maison Étoile Route "
        "Rêve Sang Silence Pont Île Jeu Cœur Lune Forêt Voix Pierre Aube Fantôme Reine Train",
        "Ultime Brisé Doré Perdu Caché Muet Rouge Infini Volé Sauvage Froid Brûlant",
        "{a} de {b}",
        "{a} et {b}",
        "{n} {a}",
    ),
    "de": _tongue(
        "Nacht Fluss Krone Schatten Garten Winter Feuer Spiegel Ozean Brief Wolf Stadt Sturm Geheimnis Haus Stern "
        "Straße Traum Blut Stille Brücke Insel Spiel Herz Mond Wald Stimme Stein Dämmerung Geist Königin Zug",
        "Letzte Zerbrochene Goldene Verlorene Verborgene Stumme Rote Endlose Gestohlene Wilde Kalte Brennende",
        "{a} von {b}",
        "{a} und {b}",
        "{a} {n}",
    ),
    "it": _tongue(
        "Notte Fiume Corona Ombra Giardino Inverno Fuoco Specchio Oceano Lettera Lupo Città Tempesta Segreto Casa "
        "Stella Strada Sogno Sangue Silenzio Ponte Isola Gioco Cuore Luna Foresta Voce Pietra Alba Fantasma Regina "
        "Treno",
        "Ultimo Spezzato Dorato Perduto Nascosto Muto Rosso Infinito Rubato Selvaggio Freddo Ardente",
        "{a} di {b}",
        "{a} e {b}",
        "{n} {a}",
    ),
    "tr": _tongue(
        "Gece Nehir Taç Gölge Bahçe Kış Ateş Ayna Okyanus Mektup Kurt Şehir Fırtına Sır Ev Yıldız Yol Rüya Kan "
        "Sessizlik Köprü Ada Oyun Kalp Ay Orman Ses Taş Şafak Hayalet Kraliçe Tren",
        "Son Kırık Altın Kayıp Gizli Sessiz Kızıl Sonsuz Çalınmış Vahşi Soğuk Yanan",
        "{b} ve {a}",
        "{a} ile {b}",
        "{a} {n}",
    ),
    "pl": _tongue(
        "Noc Rzeka Korona Cień Ogród Zima Ogień Lustro Ocean List Wilk Miasto Burza Sekret Dom Gwiazda Droga Sen Krew "
        "Cisza Most Wyspa Gra Serce Księżyc Las Głos Kamień Świt Duch Królowa Pociąg",
        "Ostatni Złamany Złoty Zagubiony Ukryty Niemy Czerwony Bezkresny Skradziony Dziki Zimny Płonący",
        "{a} {b}",
        "{a} i {b}",
        "{a} {n}",
    ),
    "ja": _tongue(
        "夜 川 冠 影 庭 冬 炎 鏡 海 手紙 狼 街 嵐 秘密 家 星 道 夢 血 沈黙 橋 島 遊戯 心 月 森 声 石 夜明け "
        "幽霊 女王 列車",
        "最後の 壊れた 黄金の 失われた 隠された 静かな 赤い 果てしない 盗まれた 野生の 冷たい 燃える",
        "{b}の{a}",
        "{a}と{b}",
        "{a}{n}",
    ),
    "ko": _tongue(
        "밤 강 왕관 그림자 정원 겨울 불 거울 바다 편지 늑대 도시 폭풍 비밀 집 별 길 꿈 피 침묵 다리 섬 게임 심장 달 숲 "
        "목소리 돌 새벽 유령 여왕 기차",
        "마지막 부서진 황금의 잃어버린 숨겨진 고요한 붉은 끝없는 도둑맞은 야생의 차가운 타오르는",
        "{b}의 {a}",
        "{a} 그리고 {b}",
        "{a} {n}",
    ),
    "hi": _tongue(
        "रात नदी ताज छाया बगीचा सर्दी आग आईना सागर चिट्ठी भेड़िया शहर तूफ़ान राज़ घर तारा सड़क सपना ख़ून ख़ामोशी पुल द्वीप खेल दिल "
        "चाँद जंगल आवाज़ पत्थर सवेरा भूत रानी रेल",
        "आख़िरी टूटा सुनहरा खोया छिपा शांत लाल अनंत चुराया जंगली ठंडा जलता",
        "{b} का {a}",
        "{a} और {b}",
        "{a} {n}",
    ),
    "ar": _tongue(
        "ليل نهر تاج ظل حديقة شتاء نار مرآة محيط رسالة ذئب مدينة عاصفة سر بيت نجمة طريق حلم دم صمت جسر جزيرة لعبة قلب "
        "قمر غابة صوت حجر فجر شبح ملكة قطار",
        "أخير مكسور ذهبي ضائع خفي صامت أحمر أبدي مسروق بري بارد محترق",
        "{a} {b}",
        "{a} و{b}",
        "{n} {a}",
    ),
}
"""Language -> how its names are made. Letters with accents and scripts without spaces are meant to be there."""

GENRE_WORDS = {
    "action": "chase mercenary explosion convoy commando getaway rooftop ambush",
    "adventure": "expedition map treasure voyage jungle compass summit caravan",
    "animation": "animated puppet drawn colourful enchanted talking toy lantern",
    "comedy": "awkward prank roommate mishap wedding rival hilarious misunderstanding",
    "crime": "detective heist cartel informant burglar precinct alibi smuggler",
    "documentary": "archive footage interview true-story investigation witness history testimony",
    "drama": "estranged grief reconcile inheritance marriage widow ambition betrayal",
    "family": "children puppy holiday grandmother classroom friendship birthday campfire",
    "fantasy": "dragon sorcerer prophecy kingdom spell oracle throne realm",
    "horror": "haunted demon scream cellar possession ritual slasher curse",
    "mystery": "disappearance clue riddle locked-room stranger manor puzzle cipher",
    "reality": "contestants judges eliminated villa auction makeover kitchen jackpot",
    "romance": "lovers kiss letter reunion seaside tango engagement longing",
    "sci_fi": "spaceship android colony wormhole clone signal asteroid time-loop",
    "sport": "coach championship underdog stadium marathon boxing league penalty",
    "stand_up": "microphone punchline audience monologue stage heckler tour confession",
    "thriller": "hostage conspiracy kidnapping deadline fugitive surveillance blackmail sniper",
    "war": "battalion trench occupation resistance soldier siege front deserter",
    "western": "outlaw frontier sheriff saloon ranch bounty cattle gunslinger",
}
"""Genre -> words that its synopses use, far oftener than any other title's."""

COMMON_WORDS = _words(
    "family town secret years returns discovers alone together past young world night finds must begins truth"
)
"""Words of every synopsis, whatever it is about."""

FIRST_NAMES = _words(
    "Ada Ben Cora Dev Elif Femi Goran Hana Ivo Jia Kemal Lena Mina Noor Oskar Priya Quim Rosa Sven Tala Uma Vera Wen "
    "Ximena Yuki Zeno"
)
LAST_NAMES = _words("Abel Bauer Costa Diaz Eriksen Fox Gupta Haas Ito Jansen Kaya Lopez Moreau Nowak Okafor Park")


Names = list[list[str]]  # Language -> name of each title

_NOUNS, _ADJECTIVES = len(TONGUES["en"].nouns), len(TONGUES["en"].adjectives)
_PAIRS = _NOUNS * (_NOUNS - 1)
CONCEPTS = 2 * _PAIRS + _NOUNS * _ADJECTIVES  # Names that differ without a number behind them
GENRE_WORDS_PER_SYNOPSIS = 8
COMMON_WORDS_PER_SYNOPSIS = 8


def check_languages(languages: Sequence[str]) -> None:
    """Refuse languages in which no name can be made.

    Raises:
        DataError: There are such languages; all are named.
    """
    unknown = [code for code in languages if code not in TONGUES]
    if unknown:
        known = ", ".join(sorted(TONGUES))
        hints = [f"Did you mean '{close}'?" if (close := nearest(code, TONGUES)) else "" for code in unknown]
        problems = [
            Problem(f"languages.{code}", f"no names can be made in it; known are {known}.", hint)
            for code, hint in zip(unknown, hints, strict=True)
        ]
        raise DataError("the simulated catalogue", problems)


def make_names(count: int, languages: Sequence[str], rng: np.random.Generator) -> Names:
    """Name titles in every language, all of them in `TONGUES`: for each, in order, the name of each title.

    One title means the same thing in all languages; names of one language differ from one another.
    """
    rounds = -(-count // CONCEPTS)
    drawn = np.concatenate([rng.permutation(CONCEPTS) + at * CONCEPTS for at in range(rounds)])[:count]
    return [[_name(TONGUES[code], int(concept)) for concept in drawn] for code in languages]


def _name(tongue: Tongue, concept: int) -> str:
    part, kept = divmod(concept, CONCEPTS)
    number = f" {part + 1}" if part else ""
    if kept >= 2 * _PAIRS:
        noun, adjective = divmod(kept - 2 * _PAIRS, _ADJECTIVES)
        return tongue.described.format(a=tongue.adjectives[adjective], n=tongue.nouns[noun]) + number
    template, pair = divmod(kept, _PAIRS)
    first, second = divmod(pair, _NOUNS - 1)
    second += second >= first
    words = {"a": tongue.nouns[first], "b": tongue.nouns[second]}
    return (tongue.both if template else tongue.of).format(**words) + number


def make_characters(count: int, rng: np.random.Generator) -> list[list[str]]:
    """Name two to four characters of each title."""
    first = rng.integers(len(FIRST_NAMES), size=(count, 4))
    last = rng.integers(len(LAST_NAMES), size=(count, 4))
    kept = rng.integers(2, 5, size=count)
    return [
        [f"{FIRST_NAMES[first[row, at]]} {LAST_NAMES[last[row, at]]}" for at in range(kept[row])]
        for row in range(count)
    ]


def make_synopses(
    genres: Bools, names: Sequence[str], characters: Sequence[Sequence[str]], rng: np.random.Generator
) -> list[str]:
    """Write a synopsis of each title from the words of its genres and words that all share.

    `genres` [T, G], at least one of each title; `names` [G] of the genres, by which words are looked up.
    """
    words = np.array([GENRE_WORDS[name].split() for name in names])
    own = np.array(COMMON_WORDS)
    # Gumbel noise on the members of each row draws one of a title's genres for every word, all at once.
    noise = rng.gumbel(size=(len(genres), GENRE_WORDS_PER_SYNOPSIS, len(names)))
    genre = np.where(genres[:, None, :], noise, -np.inf).argmax(axis=2)
    spoken = words[genre, rng.integers(words.shape[1], size=genre.shape)]
    common = own[rng.integers(len(own), size=(len(genres), COMMON_WORDS_PER_SYNOPSIS))]
    order = rng.permuted(np.tile(np.arange(spoken.shape[1] + common.shape[1]), (len(genres), 1)), axis=1)
    together = np.take_along_axis(np.concatenate([spoken, common], axis=1), order, axis=1)
    heads = [cast[0].split()[0] for cast in characters]
    return [f"{head}: {' '.join(row)}." for head, row in zip(heads, together.tolist(), strict=True)]
