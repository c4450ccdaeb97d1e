//! From a source file to what it names. No grammar: comments and texts are left out, what remains
//! is cut into words and signs, and `use` trees are spelled out.

/// Something that a file names: a path (`crate::…` for the crate's own), a macro with its `!`, or
/// the keyword `unsafe`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mention {
    /// Counted from one.
    pub line: usize,
    pub name: String,
}

/// A word, or one sign; `::` counts as one.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Token {
    line: usize,
    text: String,
}

impl Token {
    fn is_word(&self) -> bool {
        let start = self.text.chars().next();
        start.is_some_and(|start| start.is_alphabetic() || start == '_')
    }
}

/// Everything that a file names. `file` is its path below `crates/`, which tells what `super` is.
pub fn mentions(file: &str, text: &str) -> Vec<Mention> {
    let (module, tokens) = (module_of(file), tokens(text));
    let mut found = Vec::new();
    let mut place = 0;
    while place < tokens.len() {
        let token = &tokens[place];
        // `use<'a>` in a type captures, and imports nothing.
        if token.text == "use" && !is(&tokens, place + 1, "<") {
            place = tree(&tokens, place + 1, &[], &module, &mut found);
        } else if token.is_word() {
            let start = place;
            let mut path = vec![token.text.clone()];
            while is(&tokens, place + 1, "::") && tokens.get(place + 2).is_some_and(Token::is_word)
            {
                path.push(tokens[place + 2].text.clone());
                place += 2;
            }
            place += 1;
            let name = if is(&tokens, place, "!") && !is(&tokens, place + 1, "=") {
                format!("{}!", path.join("::"))
            } else if path.len() > 1 || path[0] == "unsafe" {
                resolved(&path, &module)
            } else {
                continue;
            };
            // `a.b::<T>()` is a method, not a path.
            let method = start > 0 && tokens[start - 1].text == ".";
            if !method {
                let line = token.line;
                found.push(Mention { line, name });
            }
        } else {
            place += 1;
        }
    }
    found
}

fn is(tokens: &[Token], place: usize, text: &str) -> bool {
    tokens.get(place).is_some_and(|token| token.text == text)
}

/// Spells out a `use` tree that begins at `place`; gives the place behind it.
fn tree(
    tokens: &[Token],
    mut place: usize,
    before: &[String],
    module: &[String],
    found: &mut Vec<Mention>,
) -> usize {
    let mut path = before.to_vec();
    while let Some(token) = tokens.get(place) {
        match token.text.as_str() {
            "::" => place += 1,
            "{" => {
                place += 1;
                let open = |token: &Token| token.text != "}" && token.text != ";";
                while tokens.get(place).is_some_and(open) {
                    place = tree(tokens, place, &path, module, found);
                    place += usize::from(is(tokens, place, ","));
                }
                return place + 1;
            }
            "as" => place += 2,
            "," | "}" | ";" => break,
            _ => {
                path.push(token.text.clone());
                place += 1;
            }
        }
    }
    let line = tokens[place.min(tokens.len()) - 1].line;
    let name = resolved(&path, module);
    found.push(Mention { line, name });
    place
}

/// A path with `self` and `super` replaced by the module that they stand for.
fn resolved(path: &[String], module: &[String]) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for (place, part) in path.iter().enumerate() {
        match part.as_str() {
            "self" if place == 0 => parts.extend(module.iter().map(String::as_str)),
            "self" => {}
            "super" => {
                if place == 0 {
                    parts.extend(module.iter().map(String::as_str));
                }
                // A module inside the file has a `super` in the file: never above the crate.
                parts.truncate((parts.len() - 1).max(1));
            }
            part => parts.push(part),
        }
    }
    parts.join("::")
}

/// `crate::graph::check` of `cleandift/src/graph/check.rs`.
fn module_of(file: &str) -> Vec<String> {
    let inside = file.split_once("src/").map_or(file, |(_, inside)| inside);
    let path = inside.trim_end_matches(".rs");
    let path = path.strip_suffix("/mod").unwrap_or(path);
    let parts = path
        .split('/')
        .filter(|part| !matches!(*part, "lib" | "main" | "mod"));
    std::iter::once("crate")
        .chain(parts)
        .map(str::to_owned)
        .collect()
}

/// Words and signs of a text, without comments, strings, characters and numbers.
fn tokens(text: &str) -> Vec<Token> {
    let chars: Vec<char> = text.chars().collect();
    let at = |place: usize| chars.get(place).copied().unwrap_or('\0');
    let (mut tokens, mut place, mut line) = (Vec::new(), 0, 1);
    while place < chars.len() {
        let start = place;
        let word = |c: char| c.is_alphanumeric() || c == '_';
        place = match at(place) {
            '/' if at(place + 1) == '/' => until(&chars, place, |place| at(place) == '\n'),
            '/' if at(place + 1) == '*' => comment_end(&chars, place),
            '"' => string_end(&chars, place),
            'r' | 'b' | 'c' if literal_begins(&chars, place) => literal_end(&chars, place),
            // A character if it is closed; otherwise a lifetime.
            '\'' if at(place + 1) == '\\' => {
                until(&chars, place + 3, |place| at(place) == '\'') + 1
            }
            '\'' if at(place + 2) == '\'' => place + 3,
            '\'' => until(&chars, place + 1, |place| !word(at(place))),
            c if c.is_ascii_digit() => until(&chars, place, |place| !word(at(place))),
            c if word(c) => {
                let end = until(&chars, place, |place| !word(at(place)));
                let text = chars[place..end].iter().collect();
                tokens.push(Token { line, text });
                end
            }
            c if c.is_whitespace() => place + 1,
            ':' if at(place + 1) == ':' => {
                let text = "::".to_owned();
                tokens.push(Token { line, text });
                place + 2
            }
            sign => {
                let text = sign.to_string();
                tokens.push(Token { line, text });
                place + 1
            }
        };
        place = place.min(chars.len());
        line += chars[start..place].iter().filter(|c| **c == '\n').count();
    }
    tokens
}

/// The first place from `place` on where `holds`, or the end.
fn until(chars: &[char], place: usize, holds: impl Fn(usize) -> bool) -> usize {
    (place..chars.len())
        .find(|&place| holds(place))
        .unwrap_or(chars.len())
}

/// Behind a block comment, which may hold others.
fn comment_end(chars: &[char], start: usize) -> usize {
    let (mut depth, mut place) = (0, start);
    while place < chars.len() {
        match chars[place..] {
            ['/', '*', ..] => (depth, place) = (depth + 1, place + 2),
            ['*', '/', ..] => (depth, place) = (depth - 1, place + 2),
            _ => place += 1,
        }
        if depth == 0 {
            break;
        }
    }
    place
}

/// Behind a string that begins with the quotation mark at `start`.
fn string_end(chars: &[char], start: usize) -> usize {
    let mut place = start + 1;
    while place < chars.len() && chars[place] != '"' {
        place += if chars[place] == '\\' { 2 } else { 1 };
    }
    place + 1
}

/// Whether a prefixed string or byte begins here: `r"`, `r#"`, `b"`, `br#"`, `c"`, `b'`.
fn literal_begins(chars: &[char], place: usize) -> bool {
    let rest: String = chars[place..].iter().take(3).collect();
    let rest = rest.trim_start_matches(['b', 'c']);
    let raw = rest.strip_prefix('r').unwrap_or(rest);
    raw.starts_with('"')
        || rest.starts_with("r#\"")
        || rest.starts_with("r##")
        || (chars[place] == 'b' && rest.starts_with('\''))
        || (chars[place] == 'b' && rest.starts_with("r#"))
}

fn literal_end(chars: &[char], start: usize) -> usize {
    let quote = until(chars, start, |place| matches!(chars[place], '"' | '\''));
    let prefix = &chars[start..quote];
    if chars.get(quote) == Some(&'\'') {
        let escaped = usize::from(chars.get(quote + 1) == Some(&'\\'));
        return until(chars, quote + 2 + escaped, |place| chars[place] == '\'') + 1;
    }
    if !prefix.contains(&'r') {
        return string_end(chars, quote);
    }
    let hashes = prefix.iter().filter(|c| **c == '#').count();
    let closes = |place: usize| {
        let rest = &chars[place..];
        rest[0] == '"' && rest.len() > hashes && rest[1..=hashes].iter().all(|c| *c == '#')
    };
    until(chars, quote + 1, closes) + 1 + hashes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(file: &str, text: &str) -> Vec<String> {
        let mentions = mentions(file, text).into_iter();
        mentions.map(|mention| mention.name).collect()
    }

    #[test]
    fn trees_are_spelled_out() {
        let text =
            "pub(crate) use crate::{graph::{self, Shape as S}, networks::*};\nuse ::std::fs;";
        let expected = [
            "crate::graph",
            "crate::graph::Shape",
            "crate::networks::*",
            "std::fs",
        ];
        assert_eq!(names("cleandift/src/lib.rs", text), expected);
        let lines: Vec<_> = mentions("cleandift/src/lib.rs", text);
        assert_eq!(lines[0].line, 1);
        assert_eq!(lines[3].line, 2);
        assert_eq!(
            names("cleandift/src/a.rs", "use a::{b,\n c,};"),
            ["a::b", "a::c"]
        );
    }

    #[test]
    fn relative_paths_are_resolved() {
        let text = "use super::super::networks::unet; use self::b::C; fn f() { super::g::h() }";
        let expected = [
            "crate::networks::unet",
            "crate::graph::check::b::C",
            "crate::graph::g::h",
        ];
        assert_eq!(names("cleandift/src/graph/check.rs", text), expected);
        assert_eq!(
            names("cleandift/src/graph/mod.rs", "use super::networks;"),
            ["crate::networks"]
        );
        assert_eq!(
            names("cleandift/src/lib.rs", "mod t { use super::graph; }"),
            ["crate::graph"]
        );
    }

    #[test]
    fn paths_macros_and_unsafe_in_code_are_found() {
        let text = "fn f(x: &std::fs::File) -> bool {\n println!(\"a\"); unsafe { g() }; x != y }";
        assert_eq!(
            names("cleandift/src/a.rs", text),
            ["std::fs::File", "println!", "unsafe"]
        );
        // A method with a type is no path; its type may be one.
        assert_eq!(
            names("cleandift/src/a.rs", "x.read::<std::net::IpAddr>()"),
            ["std::net::IpAddr"]
        );
    }

    #[test]
    fn captures_are_no_imports() {
        let text = "fn f(&self) -> impl Iterator<Item = u8> + use<'_> { std::fs::read(x); }";
        assert_eq!(names("cleandift/src/a.rs", text), ["std::fs::read"]);
    }

    #[test]
    fn comments_and_texts_name_nothing() {
        for text in [
            "// std::fs\n/// println!(\"\")\n//! unsafe",
            "/* std::fs /* nested */ std::net */",
            "let a = \"std::fs \\\" std::net\";",
            "let a = r#\"std::fs \" std::net\"#;",
            "let a = b\"std::fs\"; let b = br\"unsafe\"; let c = c\"unsafe\";",
            "let a = r\"std::fs \\\"; let b = r##\"a\"# std::fs\"##;",
            "let a = ['\"', '\\'', '\\u{22}', b'\"', b'\\'']; let b = \"std::fs\";",
        ] {
            assert_eq!(names("cleandift/src/a.rs", text), [""; 0], "{text}");
        }
        // What follows them is found again.
        let text =
            "let a = '\"'; /* \" */ let b = r#\"\"\"#; fn f<'a>(x: &'a u8) { std::fs::read(x) }";
        assert_eq!(names("cleandift/src/a.rs", text), ["std::fs::read"]);
    }
}
