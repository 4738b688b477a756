//! A Rust file as the rules see it: raw lines, tokens, and which lines are test code.
//!
//! Tokens are words, `::` and single punctuation marks; comments and literals leave none, so no
//! rule trips over a brace in a string or a keyword in a sentence.

use std::ops::Range;

/// A word, `::` or one punctuation mark, with its line counted from 1.
pub struct Token {
    pub text: String,
    pub line: usize,
}

impl Token {
    pub fn is_word(&self) -> bool {
        self.text.starts_with(is_word_char)
    }
}

/// One Rust file, by its path from the repository root.
pub struct Source {
    pub path: String,
    pub lines: Vec<String>,
    pub tokens: Vec<Token>,
    /// For each line, whether it belongs to an item that only a test build compiles.
    test_lines: Vec<bool>,
}

impl Source {
    pub fn new(path: &str, text: &str) -> Self {
        let lines: Vec<String> = text.lines().map(str::to_owned).collect();
        let tokens = lex(text);
        let all_test = path.ends_with("/tests.rs") || path.contains("/tests/");
        let mut test_lines = vec![all_test; lines.len()];
        for range in test_items(&tokens) {
            let (first, last) = (tokens[range.start].line, tokens[range.end - 1].line);
            test_lines[first - 1..last].fill(true);
        }
        Self { path: path.to_owned(), lines, tokens, test_lines }
    }

    pub fn is_library(&self) -> bool {
        self.path.starts_with("src/")
    }

    /// The tokens that a normal build compiles.
    pub fn shipped(&self) -> Vec<&Token> {
        self.tokens.iter().filter(|token| !self.is_test(token.line)).collect()
    }

    pub fn is_test(&self, line: usize) -> bool {
        self.test_lines[line - 1]
    }

    /// A violation at `line`, the way compilers print it.
    pub fn at(&self, line: usize, what: &str) -> String {
        format!("{}:{line}: {what}", self.path)
    }

    /// The comments directly above the statement or item that `line` belongs to, attributes
    /// skipped.
    pub fn comment_above(&self, line: usize) -> String {
        let mut first = line;
        while first > 1 && self.runs_on(first - 1) {
            first -= 1;
        }
        let above = self.lines[..first - 1].iter().rev().map(|line| line.trim());
        above
            .take_while(|line| line.starts_with("//") || line.starts_with("#["))
            .filter(|line| line.starts_with("//"))
            .fold(String::new(), |below, line| format!("{line}\n{below}"))
    }

    /// Whether the statement on `line` goes on after the line's end.
    fn runs_on(&self, line: usize) -> bool {
        let after = self.tokens.partition_point(|token| token.line <= line);
        let last = self.tokens[..after].last().filter(|token| token.line == line);
        last.is_some_and(|token| !matches!(&*token.text, ";" | "," | "{" | "}" | "]"))
    }
}

fn is_word_char(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn lex(text: &str) -> Vec<Token> {
    let chars: Vec<char> = text.chars().collect();
    let (mut tokens, mut line, mut at) = (Vec::new(), 1, 0);
    while at < chars.len() {
        let end = if let Some(end) = comment_end(&chars, at).or_else(|| literal_end(&chars, at)) {
            end
        } else {
            let end = token_end(&chars, at);
            if !chars[at].is_whitespace() {
                tokens.push(Token { text: chars[at..end].iter().collect(), line });
            }
            end
        };
        line += chars[at..end].iter().filter(|c| **c == '\n').count();
        at = end;
    }
    tokens
}

fn token_end(chars: &[char], at: usize) -> usize {
    let word = chars[at..].iter().take_while(|c| is_word_char(**c)).count();
    let mark = if chars[at..].starts_with(&[':', ':']) { 2 } else { 1 };
    at + if word > 0 { word } else { mark }
}

/// Where the comment that starts at `at` ends, if one does.
fn comment_end(chars: &[char], at: usize) -> Option<usize> {
    if chars[at..].starts_with(&['/', '/']) {
        let newline = chars[at..].iter().position(|c| *c == '\n');
        return Some(newline.map_or(chars.len(), |offset| at + offset));
    }
    let (mut depth, mut end) = (0, at);
    while end < chars.len() {
        let step = match &chars[end..] {
            ['/', '*', ..] => 1,
            ['*', '/', ..] if depth > 0 => -1,
            _ => 0,
        };
        depth += step;
        end += if step == 0 { 1 } else { 2 };
        if depth == 0 {
            return (step == -1).then_some(end);
        }
    }
    Some(end)
}

/// Where the string or character literal that starts at `at` ends, if one does.
fn literal_end(chars: &[char], at: usize) -> Option<usize> {
    let open = at + usize::from(matches!(chars[at], 'b' | 'c'));
    let closing = |quote: char| {
        let mut end = open + 1;
        while end < chars.len() && chars[end] != quote {
            end += if chars[end] == '\\' { 2 } else { 1 };
        }
        (end + 1).min(chars.len())
    };
    match &chars[open..] {
        ['"', ..] => Some(closing('"')),
        ['\'', '\\', ..] | ['\'', _, '\'', ..] => Some(closing('\'')),
        ['r', rest @ ..] => {
            let hashes = rest.iter().take_while(|c| **c == '#').count();
            let body = rest[hashes..].strip_prefix(&['"'])?;
            let mut close = vec!['"'];
            close.resize(1 + hashes, '#');
            let found = body.windows(close.len()).position(|window| window == close);
            Some(chars.len() - body.len() + found.map_or(body.len(), |at| at + close.len()))
        }
        _ => None,
    }
}

/// The token ranges of the items under `#[cfg(test)]` or `#[cfg(all(test, ...))]`; after
/// `#![cfg(test)]`, all.
fn test_items(tokens: &[Token]) -> Vec<Range<usize>> {
    let text = |at: usize| tokens.get(at).map_or("", |token| &*token.text);
    let mut items = Vec::new();
    for start in (0..tokens.len()).filter(|at| text(*at) == "#") {
        let inner = usize::from(text(start + 1) == "!");
        let open = start + 1 + inner;
        if text(open) != "[" || text(open + 1) != "cfg" {
            continue;
        }
        let end = closing(tokens, open);
        let words: Vec<&str> = (open..end).map(text).collect();
        let negated = words.windows(3).any(|window| window == ["not", "(", "test"]);
        if words.contains(&"test") && !words.contains(&"any") && !negated {
            items.push(if inner == 1 { 0..tokens.len() } else { start..item_end(tokens, end) });
        }
    }
    items
}

/// The index just past the item that starts at `from`: past its block or its semicolon.
pub fn item_end(tokens: &[Token], from: usize) -> usize {
    let mut at = from;
    while at < tokens.len() {
        match &*tokens[at].text {
            "(" | "[" => at = closing(tokens, at),
            "{" => return closing(tokens, at),
            "}" => return at,
            ";" => return at + 1,
            _ => at += 1,
        }
    }
    at
}

/// The index just past the bracket that closes the one at `open`.
fn closing(tokens: &[Token], open: usize) -> usize {
    let mut depth = 0;
    for (at, token) in tokens.iter().enumerate().skip(open) {
        match &*token.text {
            "(" | "[" | "{" => depth += 1,
            ")" | "]" | "}" => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return at + 1;
        }
    }
    tokens.len()
}

/// A path in the code, `use` trees unfolded: `a::{b, c::d}` mentions `a::b` and `a::c::d`.
pub struct Mention {
    pub path: Vec<String>,
    pub line: usize,
    /// How many modules written out in the file enclose it; `super` first leaves those.
    pub inline_mods: usize,
}

/// Every path that begins with one of `heads`.
pub fn mentions(tokens: &[&Token], heads: &[&str]) -> Vec<Mention> {
    let text = |at: usize| tokens.get(at).map_or("", |token| &*token.text);
    let (mut found, mut depth, mut mods) = (Vec::new(), 0, Vec::new());
    for at in 0..tokens.len() {
        match text(at) {
            "{" => {
                depth += 1;
                if at >= 2 && text(at - 2) == "mod" {
                    mods.push(depth);
                }
            }
            "}" => {
                mods.pop_if(|opened_at| *opened_at == depth);
                depth -= 1;
            }
            head if heads.contains(&head) => {
                let is_tail = at >= 2 && text(at - 1) == "::" && tokens[at - 2].is_word();
                if !is_tail {
                    unfold(tokens, at, Vec::new(), mods.len(), &mut found);
                }
            }
            _ => {}
        }
    }
    found
}

/// Adds every path of the tree that starts at `at` below `path`; returns where the tree ends.
fn unfold(
    tokens: &[&Token],
    mut at: usize,
    mut path: Vec<String>,
    inline_mods: usize,
    found: &mut Vec<Mention>,
) -> usize {
    let text = |at: usize| tokens.get(at).map_or("", |token| &*token.text);
    let line = tokens[at.min(tokens.len() - 1)].line;
    while tokens.get(at).is_some_and(|token| token.is_word() || token.text == "*") {
        path.push(text(at).to_owned());
        at += 1;
        if text(at) != "::" {
            break;
        }
        at += 1;
    }
    if text(at) != "{" || text(at - 1) != "::" {
        found.push(Mention { path, line, inline_mods });
        return at;
    }
    while at < tokens.len() && text(at) != "}" {
        at = unfold(tokens, at + 1, path.clone(), inline_mods, found);
        while !matches!(text(at), "," | "}" | "") {
            at += 1; // a renaming: `as name`
        }
    }
    at + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_leave_out_comments_and_literals() {
        let text = r###"a /* b /* c */ { */ "d \" {" r#"e " {"# b'\'' '{' br#"{"{"# f::<'g> // h
i"###;
        let texts: Vec<String> = lex(text).into_iter().map(|token| token.text).collect();
        assert_eq!(texts.join(" "), "a f :: < ' g > i");
    }

    #[test]
    fn test_items_are_told_from_shipped_ones() {
        let text = "fn a() {}\n#[cfg(all(test, not(b)))]\nmod tests {\n    fn c(d: [u8; 2]) {}\n}\n\
                    #[cfg(not(test))]\nfn e() {}\n#[cfg(test)]\nmod f;\nfn g() {}\n";
        let source = Source::new("src/a.rs", text);
        let shipped: Vec<usize> = (1..=10).filter(|line| !source.is_test(*line)).collect();
        assert_eq!(shipped, [1, 6, 7, 10]);
        assert!(Source::new("src/a.rs", "#![cfg(test)]\nfn b() {}\n").shipped().is_empty());
        assert!(Source::new("src/a/tests.rs", "fn b() {}\n").shipped().is_empty());
    }

    #[test]
    fn use_trees_unfold() {
        let text = "use crate::{a, b::{self, c as d}, e::*};\nmod m { use super::super::f::{g}; }";
        let source = Source::new("src/a.rs", text);
        let found = mentions(&source.shipped(), &["crate", "super"]);
        let paths: Vec<String> = found.iter().map(|mention| mention.path.join("::")).collect();
        let expected =
            ["crate::a", "crate::b::self", "crate::b::c", "crate::e::*", "super::super::f::g"];
        assert_eq!(paths, expected);
        assert_eq!((found[0].inline_mods, found[4].inline_mods, found[4].line), (0, 1, 2));
    }
}
