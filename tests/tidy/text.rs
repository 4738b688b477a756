//! What holds for every text file, whatever its language.

/// No line wider than `columns_max`, no tab, no blank at a line's end, one newline at the file's.
///
/// Rows of Markdown tables and lines with a URL cannot be broken and may be as wide as they like.
pub fn form(path: &str, text: &str, columns_max: usize) -> Vec<String> {
    let mut violations = Vec::new();
    for (at, line) in text.split('\n').enumerate() {
        let is_table = path.ends_with(".md") && line.trim_start().starts_with('|');
        let columns = line.chars().count();
        let faults = [
            (columns > columns_max && !is_table && !line.contains("://"), "line too wide"),
            (line.contains('\t'), "tab"),
            (line.ends_with(|c: char| c.is_whitespace()), "blank at the end of the line"),
        ];
        let found = faults.iter().filter(|(is_found, _)| *is_found);
        violations.extend(found.map(|(_, what)| format!("{path}:{}: {what}", at + 1)));
    }
    if !text.ends_with('\n') || text.ends_with("\n\n") {
        let last = text.lines().count().max(1);
        violations.push(format!("{path}:{last}: the file must end with one newline"));
    }
    violations
}

/// Relative links of a Markdown file lead to something that `exists`, asked by the link's path.
pub fn links(path: &str, text: &str, exists: impl Fn(&str) -> bool) -> Vec<String> {
    let mut violations = Vec::new();
    let mut in_fence = false;
    for (at, line) in text.lines().enumerate() {
        in_fence ^= line.trim_start().starts_with("```");
        for target in if in_fence { Vec::new() } else { targets(line) } {
            let file = target.split('#').next().unwrap_or_default();
            let is_relative = !target.contains("://") && !target.starts_with("mailto:");
            if is_relative && !file.is_empty() && !exists(file) {
                violations.push(format!("{path}:{}: `{target}` leads nowhere", at + 1));
            }
        }
    }
    violations
}

/// Where the links of a line lead, inline ones and reference definitions; code spans have none.
fn targets(line: &str) -> Vec<&str> {
    if let Some((_, target)) = line.split_once("]: ").filter(|_| line.starts_with('[')) {
        return target.split_whitespace().take(1).collect();
    }
    let prose = line.split('`').step_by(2);
    let links = prose.flat_map(|text| text.split("](").skip(1));
    links.filter_map(|rest| rest.split([')', ' ']).next()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn form_can_fail() {
        let judge = |path: &str, text: &str| form(path, text, 10).len();
        assert_eq!(judge("a.rs", "fn f() {}\n"), 0);
        assert_eq!(judge("a.rs", "fn long() {}\n"), 1, "too wide");
        assert_eq!(judge("a.sh", "if\n\ttrue \nfi"), 3, "tab, blank, no newline");
        assert_eq!(judge("a.rs", "a\r\n\n"), 2, "carriage return, empty last line");
        assert_eq!(judge("a.md", "| a long table |\nsee https://example.com\n"), 0);
        assert_eq!(judge("a.rs", "| a long table |\n"), 1);
    }

    #[test]
    fn links_can_fail() {
        let text = "[a](here.md) [`b`](gone.md#c) ![d](e/gone.png \"t\") [f](#g)\n\
                    `[h](gone.md)` [i](https://example.com/gone)\n\
                    ```\n[j](gone.md)\n```\n[k]: gone.md\n";
        let violations = links("docs/a.md", text, |target| target == "here.md");
        let lines: Vec<&str> = violations.iter().map(|found| &found[..11]).collect();
        assert_eq!(lines, ["docs/a.md:1", "docs/a.md:1", "docs/a.md:6"], "{violations:?}");
    }
}
