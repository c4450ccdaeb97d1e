//! CLIP's tokenizer: a prompt to token ids.

use serde_json::{Value, json};
use tokenizers::AddedToken;

const START: &str = "<|startoftext|>";
const END: &str = "<|endoftext|>";

/// CLIP's byte-level byte-pair encoding, lower-cased, with the padding of the model at hand.
pub struct Tokenizer {
    encoding: tokenizers::Tokenizer,
    start: u32,
    end: u32,
    padding: u32,
}

/// Tokenizer files that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TokenizerError {
    /// Not the files of a CLIP tokenizer.
    #[error("tokenizer: {0}")]
    Invalid(String),
    /// A special token that is not in the vocabulary.
    #[error("tokenizer: the vocabulary has no `{0}`: this is not CLIP's")]
    NoToken(String),
}

/// A tokenized prompt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tokens {
    /// Start, tokens, end, padding.
    pub ids: Vec<u32>,
    /// How many of the prompt's tokens did not fit and were cut off.
    pub cut: usize,
}

impl Tokenizer {
    /// From the text of a `tokenizer.json`.
    pub fn from_json(text: &str, padding: Option<&str>) -> Result<Self, TokenizerError> {
        let encoding = text.parse::<tokenizers::Tokenizer>().map_err(invalid)?;
        Self::with_padding(encoding, padding)
    }

    /// From the texts of `vocab.json` and `merges.txt`, all that the original models have.
    pub fn from_vocabulary(
        vocabulary: &str,
        merges: &str,
        padding: Option<&str>,
    ) -> Result<Self, TokenizerError> {
        let vocabulary: Value = serde_json::from_str(vocabulary)
            .map_err(|error| TokenizerError::Invalid(format!("vocab.json: {error}")))?;
        let merges: Vec<&str> = merges
            .lines()
            .filter(|line| !line.starts_with("#version") && !line.is_empty())
            .collect();
        let special = |token: &str| {
            json!({"id": vocabulary.get(token), "content": token, "single_word": false,
                "lstrip": false, "rstrip": false, "normalized": false, "special": true})
        };
        let pattern = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+";
        let description = json!({
            "version": "1.0",
            "added_tokens": [special(START), special(END)],
            "normalizer": {"type": "Sequence", "normalizers": [
                {"type": "NFC"},
                {"type": "Replace", "pattern": {"Regex": r"\s+"}, "content": " "},
                {"type": "Lowercase"},
            ]},
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
                {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Removed", "invert": true},
                {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true,
                    "use_regex": true},
            ]},
            "model": {"type": "BPE", "unk_token": END, "continuing_subword_prefix": "",
                "end_of_word_suffix": "</w>", "fuse_unk": false, "byte_fallback": false,
                "vocab": vocabulary, "merges": merges},
        });
        Self::from_json(&description.to_string(), padding)
    }

    fn with_padding(
        mut encoding: tokenizers::Tokenizer,
        padding: Option<&str>,
    ) -> Result<Self, TokenizerError> {
        // As in transformers, the padding token is matched whole wherever a prompt has it: with
        // SD 2.1 every `!` becomes token 0, never `!</w>`.
        let special = padding.map(|token| AddedToken::from(token, true).normalized(false));
        encoding.add_special_tokens(special).map_err(invalid)?;
        let id = |token: &str| {
            encoding
                .token_to_id(token)
                .ok_or_else(|| TokenizerError::NoToken(token.to_owned()))
        };
        let (start, end, padding) = (id(START)?, id(END)?, id(padding.unwrap_or(END))?);
        Ok(Self {
            encoding,
            start,
            end,
            padding,
        })
    }

    /// The ids of a prompt, cut or padded to `length`; start and end are always there.
    pub fn encode(&self, prompt: &str, length: usize) -> Result<Tokens, TokenizerError> {
        let encoded = self.encoding.encode_fast(prompt, false).map_err(invalid)?;
        let room = length.saturating_sub(2);
        let tokens = encoded.get_ids();
        let mut ids = vec![self.start];
        ids.extend(tokens.iter().take(room));
        ids.push(self.end);
        ids.resize(length, self.padding);
        Ok(Tokens {
            ids,
            cut: tokens.len().saturating_sub(room),
        })
    }
}

/// The padding token that the tokenizer's own files name: `special_tokens_map.json` wins over
/// `tokenizer_config.json`, as in transformers (for SD 2.1 they differ: `!` against the end token).
pub fn padding_token(
    special_tokens_map: Option<&Value>,
    tokenizer_config: Option<&Value>,
) -> Option<String> {
    [special_tokens_map, tokenizer_config]
        .into_iter()
        .flatten()
        .find_map(|json| {
            let token = json.get("pad_token")?;
            token
                .as_str()
                .or_else(|| token.get("content")?.as_str())
                .map(str::to_owned)
        })
}

fn invalid(error: impl std::fmt::Display) -> TokenizerError {
    TokenizerError::Invalid(error.to_string())
}
