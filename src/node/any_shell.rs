//! Command lines that every login shell takes alike: sshd hands them to whatever shell the user has (sshd(8)), and not
//! each of them reads quotes as POSIX says. Pure.

/// A POSIX command line as any login shell understands it. csh expands `!` within quotes and allows no newline there, fish
/// has backslashes of its own: where there may be doubt, `sh` gets it in octal. `exec` in front is a word of all of them.
pub fn for_any_shell(line: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b" -_./:,+@%".contains(&byte);
    if line.bytes().all(plain) {
        return line.to_owned();
    }
    let mut octal = String::with_capacity(line.len() * 2);
    for byte in line.bytes() {
        // What stands between the inner quotes is a format's argument: a percent sign means nothing there.
        if plain(byte) { octal.push(char::from(byte)) } else { octal.push_str(&format!("\\0{byte:03o}")) }
    }
    format!("exec sh -c 'eval \"$(printf %b \"{octal}\")\"'")
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn whatever_the_login_shell_the_command_is_the_same() {
        let words = [
            "printf",
            "<%s>",
            "it's !! \"$HOME\" `x` \\0101 \\n",
            "two\nlines",
            "é ~ * {a,b} #",
            "",
            "100%d",
        ];
        let line = shlex::try_join(words).unwrap();
        let expected = words[2..].iter().map(|word| format!("<{word}>")).collect::<String>();
        for shell in ["sh", "bash", "dash", "tcsh", "zsh", "fish"] {
            // sshd calls the login shell exactly so. What is not installed is not somebody's login shell here.
            let Ok(said) = Command::new(shell).args(["-c", &for_any_shell(&line)]).output() else { continue };
            let stderr = String::from_utf8_lossy(&said.stderr);
            assert_eq!(String::from_utf8_lossy(&said.stdout), expected, "{shell}: {stderr}");
        }
        assert_eq!(for_any_shell("xargs nix-store --check-validity"), "xargs nix-store --check-validity");
    }
}
