//! Patterns for names of units and nodes: `*` is any text, `?` any one character, all else itself.
//!
//! Not a glob crate: there a backslash escapes, and systemd's own unit names contain it (`dev-disk-by\x2dlabel.swap`).

/// Whether there is a wildcard in it; without one it is the text that it matches.
pub fn is_pattern(text: &str) -> bool {
    text.contains(['*', '?'])
}

/// Whether the whole of `text` matches `pattern`. Takes at most the product of their lengths in steps.
pub fn matches(pattern: &str, text: &str) -> bool {
    if !is_pattern(pattern) {
        return pattern == text;
    }
    if pattern == "*" {
        return true;
    }
    let (mut pattern, mut text) = (pattern.chars(), text.chars());
    // What follows the newest `*`, and the text it was tried against: the only place worth going back to.
    let mut star = None;
    while let Some(next) = text.clone().next() {
        match pattern.clone().next() {
            Some('*') => {
                pattern.next();
                star = Some((pattern.clone(), text.clone()));
            }
            Some(c) if c == '?' || c == next => {
                pattern.next();
                text.next();
            }
            Some(_) | None => {
                let Some((after, from)) = &mut star else { return false };
                from.next();
                (pattern, text) = (after.clone(), from.clone());
            }
        }
    }
    pattern.all(|c| c == '*')
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn stars_and_question_marks_match_whole_names() {
        for (pattern, text) in [
            ("nginx.service", "nginx.service"),
            ("*", ""),
            ("container@*.service", "container@web.service"),
            ("*-backup-??.timer", "a-backup-b-backup-07.timer"),
            ("dev-*\\x2dlabel.swap", "dev-disk-by\\x2dlabel.swap"),
            ("a*b*c", "aXbXbXc"),
        ] {
            assert!(matches(pattern, text), "{pattern} {text}");
        }
        for (pattern, text) in [
            ("nginx", "nginx.service"),
            ("", "x"),
            ("?", ""),
            ("container@?.service", "container@web.service"),
            ("a*b", "abc"),
        ] {
            assert!(!matches(pattern, text), "{pattern} {text}");
        }
    }

    #[test]
    fn a_hostile_pattern_ends() {
        assert!(!matches(&"*a".repeat(200), &"a".repeat(199).replace("aa", "ab")));
    }
}
