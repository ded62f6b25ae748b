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
    let (pattern, text): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
    let (mut p, mut t) = (0, 0);
    // The newest `*` and the text it was tried against: the only place worth going back to.
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        if pattern.get(p) == Some(&'*') {
            star = Some((p, t));
            p += 1;
        } else if pattern.get(p).is_some_and(|c| *c == '?' || *c == text[t]) {
            p += 1;
            t += 1;
        } else if let Some((star_p, star_t)) = star {
            p = star_p + 1;
            t = star_t + 1;
            star = Some((star_p, t));
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
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
