//! What the manual of operations must not leave out.

/// The variants of the public error enums in `source`, as `Enum::Variant`. The umbrella, whose
/// variants are the other enums, is left out.
pub fn variants(source: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut inside: Option<&str> = None;
    for line in source.lines() {
        if let Some(rest) = line.strip_prefix("pub enum ") {
            inside = rest.split([' ', '{']).next().filter(|name| *name != "Error");
        } else if line == "}" {
            inside = None;
        } else if let (Some(name), Some(rest)) = (inside, line.strip_prefix("    "))
            && rest.starts_with(|first: char| first.is_ascii_uppercase())
        {
            let variant = rest.split(|c: char| !c.is_ascii_alphanumeric()).next();
            found.push(format!("{name}::{}", variant.unwrap_or_default()));
        }
    }
    found
}

/// Each of `variants` that no table row of `manual` names in its first cell.
pub fn missing_rows(manual: &str, variants: &[String]) -> Vec<String> {
    let rows = manual.lines().filter_map(|line| line.strip_prefix("| "));
    let names: String = rows.filter_map(|row| row.split(" | ").next()).collect();
    let is_missing = |variant: &&String| !names.contains(&format!("`{variant}`"));
    variants.iter().filter(is_missing).map(|variant| format!("{variant} has no row")).collect()
}

/// Each name of an error in `manual` that is not among `variants`.
pub fn stale_names(manual: &str, variants: &[String]) -> Vec<String> {
    let quoted = manual.split('`').skip(1).step_by(2);
    let errors = quoted.filter(|name| name.contains("Error::"));
    let is_stale = |name: &&str| !variants.iter().any(|variant| variant == name);
    errors.filter(is_stale).map(|name| format!("{name} is no error")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: &str = "\
/// Doc.
pub enum AError {
    /// One.
    One,
    Two(u8),
    Three {
        field: u8,
    },
}
pub enum Error {
    A(AError),
}
";

    #[test]
    fn a_variant_without_a_row_is_found() {
        let variants = variants(SOURCE);
        assert_eq!(variants, ["AError::One", "AError::Two", "AError::Three"]);
        let manual = "| `AError::One`, `AError::Three` | do this |\n`AError::Two`\n";
        assert_eq!(missing_rows(manual, &variants), ["AError::Two has no row"]);
    }

    #[test]
    fn a_row_of_an_error_that_is_gone_is_found() {
        let manual = "| `AError::One` | as `AError::Four`, `--size` |";
        assert_eq!(stale_names(manual, &variants(SOURCE)), ["AError::Four is no error"]);
    }
}
