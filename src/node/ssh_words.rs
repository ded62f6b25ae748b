//! What `ssh` says, in one sentence with a way out. Pure.

/// ssh's words in one sentence, with what to do where we know it.
pub fn explain(said: &str) -> String {
    let line = |needle: &str| said.lines().find(|line| line.contains(needle)).map(str::trim);
    if line("REMOTE HOST IDENTIFICATION HAS CHANGED").is_some() {
        let offending = line("Offending").unwrap_or_default();
        return format!(
            "the host key has changed ({offending}); somebody may be in between. If the change was wanted, update hostKeys or known_hosts"
        );
    }
    if line("Host key verification failed").is_some() {
        return "the host key is not known; declare it in hostKeys, or add it to known_hosts".into();
    }
    if let Some(line) = line("Permission denied") {
        let line = line.trim_end_matches('.');
        return format!("{line}; the node does not accept our key for this user");
    }
    let meaningful =
        said.lines().map(str::trim).rfind(|line| !line.is_empty() && !line.starts_with("Warning:"));
    meaningful.unwrap_or("ssh said nothing").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ssh_says_becomes_one_sentence_with_a_way_out() {
        let changed = "@@@@\n@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @\nOffending ED25519 key in /k:1\nHost key verification failed.";
        assert!(explain(changed).contains("has changed (Offending ED25519 key in /k:1)"));
        assert!(explain("Host key verification failed.").contains("declare it in hostKeys"));
        assert!(explain("root@x: Permission denied (publickey).").contains("does not accept our key"));
        let slow = "ssh: connect to host 192.0.2.7 port 22: Connection timed out";
        assert_eq!(explain(slow), slow);
    }
}
