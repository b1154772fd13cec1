import string
import subprocess
import sys
import unicodedata
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise, product

import pytest
import snowballstemmer
from hypothesis import given
from hypothesis import strategies as st

from chatbot.language import detect, sentence_ends, words

TURNS = [
    ("How many days of leave are there?", "en"),
    ("What about the second one?", "en"),
    ("who is the ceo of tesla", "en"),
    ("Tell me about Ada Lovelace", "en"),
    ("summarize the document", "en"),
    ("compare the two plans", "en"),
    ("give me an example", "en"),
    ("Wie viele Urlaubstage habe ich?", "de"),
    ("Was steht im zweiten Kapitel?", "de"),
    ("¿Cuántos días de vacaciones tengo?", "es"),
    ("Combien de jours de congé ai-je ?", "fr"),
    ("Quanti giorni di ferie ho?", "it"),
    ("Quantos dias de férias eu tenho?", "pt"),
    ("Hoeveel vakantiedagen heb ik?", "nl"),
    ("Ile dni urlopu mi przysługuje?", "pl"),
    ("Kaç gün iznim var acaba?", "tr"),
    ("Tôi có bao nhiêu ngày nghỉ phép?", "vi"),
    ("有多少天年假?", "zh"),
    ("什么是 RAG-Token?", "zh"),
    ("请解释 transformers 的 attention 机制", "zh"),
    ("有幾天的休假?", "zh"),
    ("東京大学の歴史は?", "ja"),
    ("休暇は何日ありますか", "ja"),
    ("휴가는 며칠인가요?", "ko"),
    ("Сколько дней отпуска?", "ru"),
    ("Скільки днів відпустки?", "uk"),
    ("كم عدد أيام الإجازة؟", "ar"),
    ("چند روز مرخصی دارم؟", "fa"),
    ("כמה ימי חופשה יש?", "he"),
    ("Πόσες μέρες άδεια έχω;", "el"),
    ("छुट्टी के कितने दिन हैं?", "hi"),
    ("มีวันลากี่วัน", "th"),
    ("what does 道 mean?", "en"),
]


@pytest.mark.parametrize(("text", "language"), TURNS, ids=[text for text, _ in TURNS])
def test_a_short_turn_is_told_to_be_in_its_language(text: str, language: str):
    assert detect(text) == language


@pytest.mark.parametrize("text", ["", "42", "OK", "GPT-4?", "🙂", "http://example.org/a/very/long/path"])
def test_a_turn_that_tells_nothing_is_in_the_conversations_language(text: str):
    assert (detect(text, "zh"), detect(text, "de"), detect(text)) == ("zh", "de", "en")


@pytest.mark.parametrize(("text", "language"), [("Forklar forskellen", "da"), ("Opsummer dokumentet", "da")])
def test_a_turn_in_doubt_stays_in_the_conversations_language(text: str, language: str):
    assert detect(text) != language
    assert detect(text, language) == language


def test_han_alone_is_japanese_only_in_a_japanese_conversation():
    assert (detect("東京都"), detect("東京都", "ja"), detect("这是什么", "ja")) == ("zh", "ja", "zh")


@pytest.mark.parametrize("text", ["How many days of leave are there?", "Thanks!", "Hello", "What is ABSOL?"])
def test_a_chinese_conversation_can_turn_to_english(text: str):
    assert detect(text, "zh") == "en"


def test_many_threads_get_what_one_gets():
    texts = [text for text, _ in TURNS] * 5
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(detect, texts)) == [detect(text) for text in texts]


def test_many_threads_stem_as_one_does():
    starts = product(string.ascii_lowercase, "abcdefgh", "klmnop")
    texts = ["".join(start) + "ationing" for start in starts]
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(8) as pool:
            stemmed = list(pool.map(words, texts))
    finally:
        sys.setswitchinterval(before)
    assert stemmed == [[word] for word in snowballstemmer.stemmer("english").stemWords(texts)]


def test_another_process_gets_the_same():
    texts = [text for text, _ in TURNS]
    program = f"from chatbot.language import detect; print([detect(text) for text in {texts!r}])"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, encoding="utf-8", check=True)
    assert run.stdout.strip() == repr([detect(text) for text in texts])


@given(st.text())
def test_any_text_has_a_language_of_two_letters(text: str):
    assert len(detect(text)) == 2


def test_words_are_folded_and_stemmed():
    assert words("The Runners' CAFÉS were running") == ["the", "runner", "cafe", "were", "run"]
    assert words("Marie's ﬁles, max_tokens=42, GPT4") == ["mari", "file", "max", "token", "42", "gpt4"]
    assert words("ｆｕｌｌ　ｗｉｄｔｈ") == ["full", "width"]


def test_the_same_word_written_with_and_without_combining_accents_is_one():
    assert words(unicodedata.normalize("NFD", "Zürich мой")) == words("Zürich мой")


def test_scripts_without_spaces_give_characters_and_pairs():
    assert words("东京都 AI") == ["东", "京", "都", "东京", "京都", "ai"]
    assert words("カメラ") == ["カ", "メ", "ラ", "カメ", "メラ"]
    assert words("ｶﾒﾗ") == words("カメラ")
    assert words("학교") == ["학", "교", "학교"]


def test_indic_vowel_signs_stay_in_their_word():
    assert words("हिन्दी में") == ["हिन्दी", "में"]


@given(st.text())
def test_words_hold_no_space_no_ascii_mark_and_no_upper_case(text: str):
    for word in words(text):
        assert word and not any(c.isspace() or c in string.punctuation + string.ascii_uppercase for c in word)
        word.encode("utf-8")


@given(st.text())
def test_the_words_of_words_are_found_by_the_same_query(text: str):
    """An index that splits at spaces holds each word of the text, whole."""
    assert " ".join(words(text)).split(" ") == (words(text) or [""])


@pytest.mark.parametrize(
    "sentences",
    [
        ["Dr. Nora Vance is the secretary.", "Mr. J. R. Hale mends the boats."],
        ["Written by J. R. R. Tolkien in 1937.", "It sold well."],
        ["The U.S. Army came.", "It left the U.S.", "It never came back."],
        ["Use a short word, e.g. this one, i.e. the first."],
        ["Platform No. 5 is closed, see Fig. 2 and pp. 3 to 9.", "He said no.", "Then he left."],
        ["It is 3.5 km to example.org.", "Walk."],
        ["The boathouse opens at 6 a.m. in summer and at 8 a.m. in winter.", "It is closed in July."],
        ["It shuts at 10 p.m.", "The bar stays open."],
        ["Wait... what?!", "Really?", "Yes!!!"],
        ["He left...", "Then it rained."],
        ["He left…", "Nobody knew why."],
        ["“It is late.”", "He left (by train.)", "She stayed."],
        ['"Why?" she asked.', 'He said: "No."', "So it was."],
        ["Acme Inc. Holdings and Smith Jr. agreed.", "Acme Inc.", "It was founded in 1873.", "The end."],
        ["1. Open the page.", "2. Drop the file."],
        ["A first line", "A second line."],
        ["馆长说：“逾期每天罚款一角。”", "星期一闭馆。"],
        ["他问：「几点开门？」", "她说：『九点！』", "（请准时。）", "谢谢！"],
        ['他说："好。"', '"走吧。"', "他们走了。"],
        ["真的吗？！", "我想……算了。", "好。"],
        ["共 3.5 公里。", "See Dr. 王.", "再见。"],
    ],
)
@pytest.mark.parametrize("between", [" ", ""])
def test_sentences_end_where_a_reader_ends_them(sentences: list[str], between: str) -> None:
    joined = sentences[0]
    for before, after in pairwise(sentences):
        spaceless = before.rstrip('”」』）"')[-1] in "。！？"
        joined += ("\n" if before == "A first line" else between if spaceless else " ") + after
    cuts = [0, *sentence_ends(joined), len(joined)]
    assert [joined[start:end].strip() for start, end in pairwise(cuts)] == sentences


@given(st.text(alphabet='aDr.J5!?。！？…"”」）) \n中No'))
def test_sentence_ends_rise_within_the_text(text: str) -> None:
    ends = sentence_ends(text)
    assert ends == sorted(set(ends))
    assert all(0 < end < len(text) for end in ends)
    assert "".join(text[start:end] for start, end in pairwise([0, *ends, len(text)])) == text
