r"""The letter that a written answer to a multiple-choice question names, if it names exactly one.

A letter counts where the text states it as the answer ("Answer: B", "the correct option is (B)", "\boxed{B}"), not
where a word merely follows ("the answer is a combination"). The last statement counts; one that names several letters
("Answer: A or C") names none.
"""

import re

# markup that surrounds a letter without meaning anything: Markdown, HTML, LaTeX's fonts and spaces, quotes
_CLEANING = (
    (re.compile(r"[ \t\xa0\u200b\ufeff]+"), " "),
    (re.compile(r"\s*\n\s*"), "\n"),
    (re.compile(r"<(b|strong|i|em|code|p)>([^<>\n]*)</\1>"), r"\2"),
    (re.compile(r"<(answer)>|</answer>", re.IGNORECASE), lambda tag: "Answer: " if tag[1] else ""),
    (re.compile(r"[*`\"“”‘$]|(?<!\w)[_']+|[_'’]+(?!\w)|^[#> ]+|\\[,;:! ]|\\(?:left|right)\b", re.MULTILINE), ""),
)
_FONT = re.compile(r"\\(?:text|textbf|textrm|textit|textsf|mathrm|mathbf|mathsf|mathit|bf|rm|mbox|fbox)\s*\{([^{}]*)\}")
_FONTS_DEEP = 4

_OPEN, _CLOSE = r"[(\[{<]", r"[)\]}>]"
_NOUN = (
    r"(?:answer(?: (?:option|choice|letter))?"
    r"|(?:correct|right|best|final|chosen|selected) (?:answer|option|choice|letter))"
)
_OF = r"(?: (?:to|of|for) [\w -]{1,40}?)?(?: ?\([^()\n]{1,30}\))?"
_ADVERB = r"(?:,? ?(?:therefore|thus|hence|then|so|clearly|indeed|definitely|most likely|likely|probably|simply),?)?"
_VERB = r"(?: (?:is|was|(?:would|should|must|will) be)|['’]s)"
_COLON = r"(?:\n| ?[:：=→][ \n]?| [-–—]+>? )"
_LABEL = r"(?:(?:the )?(?:option|choice|letter|answer) ?:? ?)?"
_LETTER = (
    rf"(?:\\[(\[][ \n]?)?(?:\\boxed ?\{{ ?)?{_LABEL}(?P<open>{_OPEN} ?)?{_LABEL}(?P<letter>[A-Da-d])"
    r"(?=(?P<rest>[^\n]{0,80}))"
)
_STATEMENTS = (
    re.compile(
        rf"\b{_NOUN}{_OF}{_ADVERB}(?:(?P<colon>{_COLON}|{_VERB}{_ADVERB}{_COLON})|{_VERB}{_ADVERB}[ \n]){_LETTER}", re.I
    ),
    re.compile(rf"^(?P<colon>)(?:the )?(?:final |correct )?answer(?: option| choice)? {_LETTER}", re.I | re.MULTILINE),
    re.compile(rf"\\boxed ?\{{ ?{_LABEL}(?P<open>{_OPEN} ?)?(?P<letter>[A-D])(?=(?P<rest>[^\n]{{0,80}}))"),
    re.compile(
        rf"(?P<open>{_OPEN} ?)?(?<![\w'’-])(?P<letter>[A-D])"
        rf"(?=(?P<rest>{_CLOSE}? is (?:the )?(?:correct|right|best|final) (?:answer|option|choice)\b))"
    ),
)
# what follows a letter that stands alone
_ALONE = re.compile(
    rf" ?$| ?{_CLOSE}| ?[,;:!](?!\w)| ?\.(?!\w)| [-–—]+ |—| {_OPEN}| \\[)\]]|\\[)\]]"
    r"| (?:because|since|as|for|due|given|based|which|by)\b| is (?:the )?(?:correct|right|best|final|only)\b"
)
# what follows a letter that is one of several
_ANOTHER = re.compile(
    rf" ?{_CLOSE}? ?(?:,? ?(?:and|or|nor)\b|/|&|,) ?(?:maybe |perhaps |possibly )?(?:option |choice )?"
    rf"(?:{_OPEN} ?[A-Da-d] ?{_CLOSE}|[A-D](?![\w'’-]))"
)


def extract(text: str) -> str | None:
    """The letter A to D of the last statement of an answer; None if there is none, or if it names several."""
    for pattern, replacement in _CLEANING:
        text = pattern.sub(replacement, text)
    for _ in range(_FONTS_DEEP):
        text = _FONT.sub(r"\1", text)
    statements = {}
    for pattern in _STATEMENTS:
        for match in pattern.finditer(text):
            if (letter := _stated(match)) is not None:
                statements[match.start("letter")] = letter
    return (statements[max(statements)] or None) if statements else None


def _stated(match: re.Match[str]) -> str | None:
    """The letter of a match; "" where it names several; None where the letter is part of a word or a formula."""
    letter, rest = match["letter"], match["rest"]
    enclosed = match["open"] is not None and re.match(f" ?{_CLOSE}", rest) is not None
    if _ANOTHER.match(rest) and (letter.isupper() or enclosed):
        return ""
    if not _ALONE.match(rest):
        return None
    # "the answer is a" may be a sentence that was cut off, and "a, b and c" may be variables
    bare = match.groupdict().get("colon") is not None and re.match(r" ?[.)]? ?$| ?\)", rest)
    return letter.upper() if letter.isupper() or enclosed or bare else None
