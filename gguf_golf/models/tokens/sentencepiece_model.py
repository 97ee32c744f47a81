"""tokenizer.model: a sentencepiece BPE model, llama.cpp's tokenizer model "llama"."""

from gguf import GGUFWriter, TokenType
from sentencepiece import SentencePieceProcessor

from gguf_golf.errors import InputError
from gguf_golf.models.tokens.files import TokenizerFiles
from gguf_golf.models.tokens.sentencepiece_proto import ModelType, PieceType, SentencePieceModel, parse_model
from gguf_golf.models.tokens.sentencepiece_style import check_bytes, note_class, rules_of
from gguf_golf.models.tokens.space_prefix import SpacePrefix, add_space_prefix
from gguf_golf.models.tokens.special import missing_special_tokens
from gguf_golf.models.tokens.vocabulary import ADDED_SCORE, Vocabulary, flag_notes

TYPES = {
    PieceType.NORMAL: TokenType.NORMAL,
    PieceType.UNKNOWN: TokenType.UNKNOWN,
    PieceType.CONTROL: TokenType.CONTROL,
    PieceType.UNUSED: TokenType.UNUSED,
    PieceType.BYTE: TokenType.BYTE,
}


def read_model(files: TokenizerFiles) -> SentencePieceModel:
    """Load tokenizer.model. Raises InputError if it is not a sentencepiece model."""
    processor = SentencePieceProcessor()
    try:
        processor.LoadFromFile(str(files.model_path))
        return parse_model(processor.serialized_model_proto())
    except (RuntimeError, OSError, ValueError) as error:
        raise InputError(
            f"{files.model_path} is not a sentencepiece model; download it again, or remove it if tokenizer.json is "
            "the tokenizer"
        ) from error


def describes_the_same(files: TokenizerFiles, model: SentencePieceModel) -> bool:
    """Whether tokenizer.json numbers the pieces in the same way; else one of the two was left behind."""
    vocab = files.tokenizer["model"].get("vocab")
    if not isinstance(vocab, dict):
        return False
    texts = {i: text for text, i in vocab.items()} | {token.id: token.text for token in files.added_tokens}
    return all(texts.get(i) == piece.text for i, piece in enumerate(model.pieces))


def sentencepiece_vocabulary(
    writer: GGUFWriter, files: TokenizerFiles, vocab_size: int, model: SentencePieceModel
) -> Vocabulary:
    """Add pieces, scores and the space prefix. Raises InputError for what no GGUF file can hold."""
    _check(files, model)
    vocabulary = Vocabulary(vocab_size)
    vocabulary.check_fits(files.model_path, range(len(model.pieces)))
    vocabulary.special_ids = model.special_ids
    for i, (text, score, type_) in enumerate(model.pieces):
        if type_ == PieceType.USER_DEFINED:  # cut out of the text before any merging, with its spaces as they are
            vocabulary.set(i, text.replace("▁", " "), TokenType.USER_DEFINED, ADDED_SCORE)
        else:
            vocabulary.set(i, text, TYPES[type_], score)
    prefix, normalizes = _prefix(files, model)
    if prefix != SpacePrefix.NEVER and any(piece.type == PieceType.USER_DEFINED for piece in model.pieces):
        raise InputError(
            f"{files.model_path} has user-defined symbols and puts a space in front of a text: llama.cpp would put one "
            "after each of these symbols too, so no GGUF file can hold this tokenizer"
        )
    vocabulary.notes += flag_notes(files.added_tokens, normalized=normalizes)
    vocabulary.add([*files.added_tokens, *missing_special_tokens(files, vocabulary)])
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    vocabulary.write(writer, scores=True)
    add_space_prefix(writer, vocabulary, prefix)
    note_class(files, vocabulary, prefix)
    return vocabulary


def _prefix(files: TokenizerFiles, model: SentencePieceModel) -> tuple[SpacePrefix, bool]:
    """Where a space is put, and whether normalization comes before added tokens; tokenizer.json has the last word."""
    if files.tokenizer:
        rules = rules_of(files)
        return rules.prefix, rules.normalizes
    wanted = files.settings.get("add_prefix_space")
    put = model.add_dummy_prefix if wanted is None else bool(wanted)
    return SpacePrefix.ALWAYS if put else SpacePrefix.NEVER, False


def _check(files: TokenizerFiles, model: SentencePieceModel) -> None:
    """Raise InputError for what llama.cpp does not do for this kind of tokenizer."""
    if model.model_type != ModelType.BPE:
        raise InputError(
            f"{files.model_path} is a sentencepiece {model.model_type.name.lower()} model; llama.cpp tokenizes only "
            "sentencepiece BPE like it"
        )
    odd = {
        f"normalizes with {model.normalizer or 'a character map'}": model.has_charsmap,
        "removes extra spaces": model.remove_extra_whitespaces,
        "does not write spaces as '▁'": not model.escape_whitespaces,
        "puts spaces at the end of words": model.treat_whitespace_as_suffix,
    }
    if found := [what for what, applies in odd.items() if applies]:
        raise InputError(
            f"{files.model_path} {' and '.join(found)}, which llama.cpp does not do for sentencepiece BPE: no GGUF "
            "file can hold this tokenizer"
        )
    check_bytes(files, {piece.text: i for i, piece in enumerate(model.pieces)})
