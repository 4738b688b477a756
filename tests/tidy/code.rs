//! What the code of one file may say: unsafe with its proof, nothing banned, no endless functions.

use crate::source::{Source, item_end};

/// `unsafe` stands only in the files on the list, and never without its proof: a safety comment
/// above a block or an implementation, a `# Safety` section above a function or a trait.
pub fn unsafe_code(source: &Source, allowed: &[&str]) -> Vec<String> {
    let is_allowed = allowed.iter().any(|row| covers(row, &source.path));
    let mut violations = Vec::new();
    let next = |at: usize| source.tokens.get(at + 1).map_or("", |token| &*token.text);
    for (at, token) in source.tokens.iter().enumerate().filter(|(_, token)| token.text == "unsafe")
    {
        let keyword = if next(at) == "extern" && next(at + 1) == "fn" { at + 1 } else { at };
        let proof = match (next(keyword), next(keyword + 1)) {
            ("fn", "(") => continue, // a pointer type promises nothing by itself
            ("fn" | "trait", _) => "# Safety",
            _ => "SAFETY:",
        };
        if !is_allowed {
            violations.push(source.at(token.line, "`unsafe` outside the files listed in UNSAFE"));
        }
        if !source.comment_above(token.line).contains(proof) {
            let what = format!("`unsafe {}` without `{proof}` directly above", next(keyword));
            violations.push(source.at(token.line, &what));
        }
    }
    violations
}

/// Whether a row of the allow-list names `path` or, ending in `/`, its folder.
pub fn covers(row: &str, path: &str) -> bool {
    path == row || (row.ends_with('/') && path.starts_with(row))
}

/// No macro of `macros` in shipped code, no word of `words` in code or comment.
pub fn unfinished(source: &Source, macros: &[&str], words: &[&str]) -> Vec<String> {
    let mut violations = Vec::new();
    for (at, line) in source.lines.iter().enumerate().filter(|(at, _)| !source.is_test(at + 1)) {
        let said = line.split(|c: char| !c.is_alphanumeric()).filter(|word| words.contains(word));
        violations.extend(said.map(|word| source.at(at + 1, &format!("`{word}`: finish it"))));
    }
    for pair in source.shipped().windows(2).filter(|pair| pair[1].text == "!") {
        let name = &*pair[0].text;
        if macros.contains(&name) {
            violations.push(source.at(pair[0].line, &format!("`{name}!` must not ship")));
        }
    }
    violations
}

/// Library code neither prints nor unwraps: a panic says why it cannot happen.
pub fn manners(source: &Source, macros: &[&str]) -> Vec<String> {
    let mut violations = unfinished(source, macros, &[]);
    for four in source.shipped().windows(4) {
        if four.iter().map(|token| &*token.text).eq([".", "unwrap", "(", ")"]) {
            let what = "`.unwrap()`: write `.expect(\"why it holds\")` or return an error";
            violations.push(source.at(four[1].line, what));
        }
    }
    violations
}

/// An access that is sequentially consistent says why, in a comment beside or above it; a fence
/// needs none, since nothing weaker would do there.
pub fn seq_cst(source: &Source) -> Vec<String> {
    let mut violations = Vec::new();
    let (mut in_import, mut call) = (false, "");
    for pair in source.shipped().windows(2) {
        let (token, next) = (pair[0], pair[1]);
        in_import = token.text == "use" || (in_import && token.text != ";");
        if next.text == "(" && token.is_word() {
            call = &token.text;
        }
        let explained = || {
            let beside = source.lines[token.line - 1].contains("//");
            beside || !source.comment_above(token.line).is_empty()
        };
        if token.text == "SeqCst" && !in_import && call != "fence" && !explained() {
            violations.push(source.at(token.line, "`SeqCst` without a comment that says why"));
        }
    }
    violations
}

/// No function is longer than `lines_max`, or than its row in the ratchet, which only goes down.
pub fn lengths(source: &Source, lines_max: usize, ratchet: &[(&str, usize)]) -> Vec<String> {
    let mut violations = Vec::new();
    for (at, pair) in source.tokens.windows(2).enumerate() {
        let (keyword, name) = (&pair[0], &pair[1]);
        if keyword.text != "fn" || !name.is_word() {
            continue;
        }
        let last = &source.tokens[item_end(&source.tokens, at) - 1];
        let (name, lines) = (&name.text, last.line - keyword.line + 1);
        let row = ratchet.iter().find(|(row, _)| *row == format!("{}::{name}", source.path));
        let what = match row {
            None if lines > lines_max => format!("`{name}` has {lines} lines: at most {lines_max}"),
            Some((_, max)) if lines > *max => format!("`{name}` grew from {max} to {lines} lines"),
            Some((_, max)) if lines < *max => {
                format!("`{name}` shrank from {max} to {lines} lines: lower or drop its row")
            }
            _ => continue,
        };
        violations.push(source.at(keyword.line, &what));
    }
    violations
}

/// A module opens with its contract; the crate root's is the README.
pub fn opening(source: &Source) -> Vec<String> {
    let opens = source
        .lines
        .first()
        .is_some_and(|line| line.starts_with("//!") || line.starts_with("#![doc = include_str!("));
    if opens { Vec::new() } else { vec![source.at(1, "a module opens with a `//!` comment")] }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(text: &str) -> Source {
        Source::new("src/a.rs", text)
    }

    #[test]
    fn unsafe_code_can_fail() {
        let judge = |text: &str| unsafe_code(&source(text), &["src/a.rs"]).len();
        assert_eq!(judge("// SAFETY: a\n\nfn f() { unsafe { g() } }"), 1, "not directly above");
        assert_eq!(judge("// SAFETY: a\nlet b = c;\nunsafe { d() };"), 1, "above another");
        assert_eq!(judge("unsafe impl Send for A {}"), 1);
        assert_eq!(judge("/// Reads.\npub unsafe fn f() {}"), 1);
        let elsewhere =
            unsafe_code(&source("// SAFETY: a\nunsafe { b() }"), &["src/b/", "src/c.rs"]);
        assert_eq!(elsewhere.len(), 1, "outside the list");
    }

    #[test]
    fn unsafe_code_lets_pass() {
        let judge = |text: &str| unsafe_code(&source(text), &["src/"]);
        assert_eq!(
            judge("// SAFETY: a,\n// b.\n#[rustfmt::skip]\nlet c =\n    unsafe { d() };"),
            [""; 0]
        );
        assert_eq!(judge("/// # Safety\n///\n/// A.\npub unsafe fn f(g: unsafe fn()) {}"), [""; 0]);
        assert_eq!(judge("// unsafe {\nf(\"unsafe {\"); // unsafe impl"), [""; 0]);
    }

    #[test]
    fn unfinished_can_fail() {
        let judge = |text: &str| unfinished(&source(text), &["todo"], &["FIXME"]).len();
        assert_eq!(judge("fn f() { todo!() } // FIXME: b"), 2);
        assert_eq!(judge("fn todo() -> bool { \"todo!\" != a } // FIXMEs"), 0);
        assert_eq!(judge("#[cfg(test)]\nmod tests {\n    // FIXME\n    fn f() { todo!() }\n}"), 0);
    }

    #[test]
    fn manners_can_fail() {
        let judge = |text: &str| manners(&source(text), &["println"]).len();
        assert_eq!(judge("fn f() { a\n    .unwrap(); println!(\"b\") }"), 2);
        assert_eq!(judge("/// a.unwrap()\nfn f() { a.unwrap_or(b); a.expect(\"c\") }"), 0);
        assert_eq!(judge("#[cfg(test)]\nmod tests { fn f() { a.unwrap() } }"), 0);
    }

    #[test]
    fn seq_cst_can_fail() {
        let judge = |text: &str| seq_cst(&source(text)).len();
        assert_eq!(judge("fn f() {\n    a.load(Ordering::SeqCst);\n    b.swap(1, SeqCst);\n}"), 2);
        assert_eq!(judge("use a::SeqCst;\nfn f() {\n    fence(Ordering::SeqCst);\n}"), 0);
        assert_eq!(
            judge("fn f() {\n    // Why.\n    a.load(SeqCst);\n    b.load(SeqCst); // Why.\n}"),
            0
        );
    }

    #[test]
    fn lengths_can_fail() {
        let text = "fn f() -> [u8; 2] {\n    // }\n    g(\"}\")\n}\ntrait T {\n    fn h();\n}\n";
        let judge = |max, ratchet| lengths(&source(text), max, ratchet).len();
        assert_eq!(judge(3, &[]), 1);
        assert_eq!(judge(4, &[]), 0);
        assert_eq!(judge(1, &[("src/a.rs::f", 3)]), 1, "longer than its row");
        assert_eq!(judge(1, &[("src/a.rs::f", 4)]), 0);
        assert_eq!(judge(1, &[("src/a.rs::f", 5)]), 1, "a row that can go down");
    }

    #[test]
    fn opening_can_fail() {
        assert_eq!(opening(&source("use a::b;\n//! Late.\n")).len(), 1);
        assert_eq!(opening(&source("")).len(), 1);
        assert_eq!(opening(&source("//! A.\n")).len(), 0);
    }
}
