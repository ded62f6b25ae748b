//! Names that people give: nodes and tags. Pure text, checked once.

parsed_string!(
    /// The attribute name of a node in the deployment.
    ///
    /// It ends up in file names, unit names, metric labels and selectors, so it is kept to what is safe in all of them.
    NodeName,
    "node name",
    "1 to 63 letters, digits, '.', '_' or '-', starting with a letter or digit",
    |text| is_label(text, 63)
);

parsed_string!(
    /// A word that groups nodes, selected as `@tag`.
    Tag,
    "tag",
    "1 to 63 letters, digits, '.', '_' or '-', starting with a letter or digit",
    |text| is_label(text, 63)
);

fn is_label(text: &str, longest: usize) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    text.len() <= longest && text.starts_with(|c: char| c.is_ascii_alphanumeric()) && text.chars().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_would_escape_a_path_or_an_option_is_refused() {
        for bad in ["", "..", "-rf", "a/b", "a b", "ä", &"x".repeat(64)] {
            assert!(bad.parse::<NodeName>().is_err(), "{bad:?}");
        }
        assert!("web-1.eu_2".parse::<NodeName>().is_ok());
    }
}
