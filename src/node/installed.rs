//! The words of `driftless-node`, the program that `nix/node.nix` installs: command lines that its forced command lets
//! through, and what is made of an answer that comes from the other half than was asked. Pure.

use super::{NodeError, Output};

/// The version of these words and of the replies that are understood. Counted up together with `PROTOCOL` in
/// `nix/node/driftless-node.sh`, when one side would misunderstand the other.
pub const PROTOCOL: u32 = 1;
/// The program's name: on the node's PATH, and what a forced command is asked for.
pub const NAME: &str = "driftless-node";
/// What the program says before anything it refuses.
const REFUSED: &str = "driftless-node: refused: ";

/// What it says to an account that may do more than it lets anyone do.
const HAS_SHELL: &str = "ask the shell of this account";

/// What it says to a question that it is too old for.
const NO_SUCH_VERB: &str = "there is no verb";

impl NodeError {
    /// Whether the program on the node is older than what was asked of it: the next system may bring a newer one.
    pub fn is_of_older_program(&self) -> bool {
        matches!(self, Self::Script { said, .. } if said.contains(NO_SUCH_VERB))
    }
}

/// What answers on the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Program {
    /// A shell, to which the scripts are sent.
    Shell,
    /// `driftless-node`, which has them.
    Installed,
}

impl Program {
    /// The one that is tried where this one is not what answers.
    pub fn other(self) -> Self {
        match self {
            Self::Shell => Self::Installed,
            Self::Installed => Self::Shell,
        }
    }
}

/// How sure we are of what answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sure {
    /// It has answered before.
    Known,
    /// It is likely.
    Guessed,
}

/// What an answer says of who gave it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    /// Whom we asked.
    Answer,
    /// Nothing was done: this is what is to be asked instead.
    Elsewhere,
    /// Nothing was done: the program is of another version.
    Protocol(u32),
    /// Nothing was done, in the program's words.
    Refused(String),
}

/// The command line for one verb.
pub fn line(frame: &str, words: &[&str]) -> String {
    let mut line = format!("{NAME} {PROTOCOL} {frame}");
    for word in words {
        line.push(' ');
        line.push_str(&encoded(word));
    }
    line
}

/// A word as `decode` of driftless-node reads it. Nothing in it means anything to any shell.
fn encoded(word: &str) -> String {
    if word.is_empty() {
        return "%".into();
    }
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./:,+@".contains(&byte);
    word.bytes()
        .map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:03o}") })
        .collect()
}

/// Who answered. `framed`: whether a reply has begun, which neither half lets come before it does something.
pub fn heard(asked: (Program, Sure), framed: bool, output: &Output) -> Heard {
    if framed {
        return Heard::Answer;
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    let refusal = stderr.lines().find_map(|line| line.trim_end().strip_prefix(REFUSED));
    match (asked, refusal) {
        ((Program::Shell, _), Some(_)) => Heard::Elsewhere,
        ((Program::Shell, _), None) => Heard::Answer,
        ((Program::Installed, _), Some(said)) => match protocol(said) {
            Some(theirs) if theirs != PROTOCOL => Heard::Protocol(theirs),
            Some(_) | None if said.starts_with(HAS_SHELL) => Heard::Elsewhere,
            Some(_) | None => Heard::Refused(said.to_owned()),
        },
        // Whatever else a login says that has no such program.
        ((Program::Installed, Sure::Guessed), None) => Heard::Elsewhere,
        ((Program::Installed, Sure::Known), None) => {
            // A shell that does not find a command; csh has another exit code for it.
            let absent = output.code == 127 || stderr.to_lowercase().contains("not found");
            if absent { Heard::Elsewhere } else { Heard::Answer }
        }
    }
}

/// "this node speaks protocol 2 of driftless-node, not 1; ..."
fn protocol(said: &str) -> Option<u32> {
    let (_, rest) = said.split_once("this node speaks protocol ")?;
    rest.split(' ').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROGRAM: &str = include_str!("../../nix/node/driftless-node.sh");

    fn said(code: i32, stderr: &str) -> Output {
        Output { code, stdout: Vec::new(), stderr: stderr.into() }
    }

    #[test]
    fn an_account_with_a_shell_is_sent_the_scripts() {
        let said = said(77, &format!("{REFUSED}{HAS_SHELL}, alice: this program is for others\n"));
        assert_eq!(heard((Program::Installed, Sure::Known), false, &said), Heard::Elsewhere);
        assert!(PROGRAM.contains(&format!("refuse \"{HAS_SHELL}")));
    }

    #[test]
    fn a_program_that_is_too_old_for_a_question_is_told_from_one_that_fails() {
        let script =
            |said: &str| NodeError::Script { node: "n1".parse().unwrap(), attempt: "x", said: said.into() };
        assert!(PROGRAM.contains(&format!("refuse \"{NO_SUCH_VERB} ")));
        assert!(script("driftless-node refused it: there is no verb \"suspend\"").is_of_older_program());
        assert!(!script("suspend /var/lib/driftless-node/suspended").is_of_older_program());
    }

    #[test]
    fn both_halves_are_of_one_version() {
        assert!(
            PROGRAM.contains(&format!("\nPROTOCOL={PROTOCOL}\n")),
            "src/node/installed.rs has {PROTOCOL}"
        );
    }

    #[test]
    fn a_line_has_no_character_that_means_anything_to_a_shell() {
        let line = line("f00", &["reject", "it's $HOME\n`x` %d", "", "é"]);
        assert_eq!(line, "driftless-node 1 f00 reject it%047s%040%044HOME%012%140x%140%040%045d % %303%251");
    }

    #[test]
    fn who_answers_is_told_by_what_was_not_done() {
        let refused =
            said(77, "driftless-node: refused: only deployments by driftless are allowed here, not \"sh\"\n");
        let old = said(
            77,
            "driftless-node: refused: this node speaks protocol 2 of driftless-node, not 1; deploy\n",
        );
        let absent = said(127, "sh: 1: driftless-node: not found\n");
        let of_csh = said(1, "driftless-node: Command not found.\n");
        let sudo = said(1, "sudo: a password is required\n");
        let (shell, installed) = ((Program::Shell, Sure::Guessed), (Program::Installed, Sure::Known));
        assert_eq!(heard(shell, false, &refused), Heard::Elsewhere);
        assert_eq!(heard(shell, false, &sudo), Heard::Answer);
        assert_eq!(heard(installed, false, &absent), Heard::Elsewhere);
        assert_eq!(heard(installed, false, &of_csh), Heard::Elsewhere);
        assert_eq!(heard(installed, false, &sudo), Heard::Answer);
        assert_eq!(heard((Program::Installed, Sure::Guessed), false, &sudo), Heard::Elsewhere);
        assert_eq!(heard(installed, false, &old), Heard::Protocol(2));
        assert!(
            matches!(heard(installed, false, &refused), Heard::Refused(said) if said.starts_with("only "))
        );
        // What has begun is not asked again, whatever else was said.
        assert_eq!(heard(installed, true, &absent), Heard::Answer);
    }
}
