//! Command lines that every login shell takes alike: sshd hands them to whatever shell the user has (sshd(8)), and not
//! each of them reads quotes as POSIX says. Pure.

/// A POSIX command line as any login shell understands it. Where there may be doubt, `sh` gets it in octal. `exec` in front
/// is a word of all of them.
pub fn for_any_shell(line: &str) -> String {
    if is_for_any_shell(line) {
        return line.to_owned();
    }
    let mut octal = String::with_capacity(line.len() * 2);
    for byte in line.bytes() {
        // What stands between the inner quotes is a format's argument: a percent sign means nothing there.
        if plain(byte) { octal.push(char::from(byte)) } else { octal.push_str(&format!("\\0{byte:03o}")) }
    }
    format!("exec sh -c 'eval \"$(printf %b \"{octal}\")\"'")
}

/// Whether each of them reads it as `sh` does as it stands. csh expands `!` within quotes and allows no newline there, fish
/// has backslashes of its own.
pub fn is_for_any_shell(line: &str) -> bool {
    let mut quoted = false;
    let understood = line.bytes().all(|byte| {
        if byte == b'\'' {
            quoted = !quoted;
            return true;
        }
        plain(byte) || quoted && byte.is_ascii_graphic() && !b"!\\".contains(&byte)
    });
    understood && !quoted
}

/// What means nothing to any of them.
fn plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b" -_./:,+@%".contains(&byte)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn whatever_the_login_shell_the_command_is_the_same() {
        let difficult = ["it's !! \"$HOME\" `x` \\0101 \\n", "two\nlines", "é ~ * {a,b} #", "", "100%d"];
        assert_the_same(&difficult, false);
        let quoted = [
            "eval \"$(cat)\"",
            "a | b; c && d || $? > e < f & ~ * ? [g] {h,i} #",
            "=j",
            "k^l",
            "$$ %m",
            "`n`",
        ];
        assert_the_same(&quoted, true);
        assert_the_same(&["o", "-p"], true);
        for other in ["a 'b", "'!'", "'\\'", "'c\nd'", "'é'", "\"e\"", "$f"] {
            assert!(!is_for_any_shell(other), "{other}");
        }
    }

    fn assert_the_same(arguments: &[&str], as_it_stands: bool) {
        let line = shlex::try_join(["printf", "<%s>"].iter().chain(arguments).copied()).unwrap();
        assert_eq!(is_for_any_shell(&line), as_it_stands, "{line}");
        let expected = arguments.iter().map(|word| format!("<{word}>")).collect::<String>();
        for shell in ["sh", "bash", "dash", "tcsh", "zsh", "fish"] {
            // sshd calls the login shell exactly so. What is not installed is not somebody's login shell here.
            let Ok(said) = Command::new(shell).args(["-c", &for_any_shell(&line)]).output() else { continue };
            let stderr = String::from_utf8_lossy(&said.stderr);
            assert_eq!(String::from_utf8_lossy(&said.stdout), expected, "{shell}: {stderr}");
        }
    }
}
