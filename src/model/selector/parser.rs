//! The text of a selector, taken apart. Every error says which part is wrong and at which character, counted from 1.

use super::{Expression, SelectionError, Term};

/// Parentheses and `not`s within each other; more than anybody writes, and few enough for any stack.
const DEEPEST: usize = 32;

/// Takes a whole selector apart.
pub fn parse(text: &str) -> Result<Expression, SelectionError> {
    let mut parser = Parser { text, tokens: tokens(text)?, next: 0, depth: 0 };
    let expression = parser.any()?;
    match parser.peek() {
        None => Ok(expression),
        Some(token) => {
            Err(SelectionError::Unopened { selector: text.to_owned(), at: position(text, token.at) })
        }
    }
}

/// Words that are not names unless they are quoted.
pub fn is_reserved(word: &str) -> bool {
    matches!(word, "and" | "or" | "not")
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind<'a> {
    Open,
    Close,
    /// `,` and `or`: they are the same, and bind less than all else.
    Or,
    And,
    Not,
    Name(&'a str),
    Tag(&'a str),
}

/// Where it is in the text, in bytes.
#[derive(Clone, Copy)]
struct Token<'a> {
    at: usize,
    end: usize,
    kind: Kind<'a>,
}

/// The character that begins at a byte, for people.
fn position(text: &str, byte: usize) -> usize {
    text.get(..byte).map_or(1, |before| before.chars().count() + 1)
}

fn tokens(text: &str) -> Result<Vec<Token<'_>>, SelectionError> {
    let mut tokens = Vec::new();
    let mut at = 0;
    while let Some(first) = text[at..].chars().next() {
        let single = |kind| Some((kind, first.len_utf8()));
        let token = match first {
            '(' => single(Kind::Open),
            ')' => single(Kind::Close),
            ',' => single(Kind::Or),
            _ if first.is_whitespace() => None,
            _ => Some(word(text, at)?),
        };
        let length = token.map_or(first.len_utf8(), |(_, length)| length);
        tokens.extend(token.map(|(kind, _)| Token { at, end: at + length, kind }));
        at += length;
    }
    Ok(tokens)
}

/// The word that begins at a byte, and how long it is there.
fn word(text: &str, at: usize) -> Result<(Kind<'_>, usize), SelectionError> {
    let rest = &text[at..];
    let wrong = |part: &str| SelectionError::NotATerm {
        part: part.to_owned(),
        at: position(text, at),
        selector: text.to_owned(),
    };
    if let Some(quoted) = rest.strip_prefix('"') {
        let name = quoted.split_once('"').map(|(name, _)| name).filter(|name| is_pattern(name));
        let name = name.ok_or_else(|| wrong(rest))?;
        return Ok((Kind::Name(name), name.len() + 2));
    }
    let word = rest.split(|c: char| c.is_whitespace() || matches!(c, '(' | ')' | ',')).next().unwrap_or(rest);
    let kind = match (word, word.strip_prefix('@')) {
        ("and", _) => Kind::And,
        ("or", _) => Kind::Or,
        ("not", _) => Kind::Not,
        ("@", _) => {
            return Err(SelectionError::Empty { selector: text.to_owned(), at: position(text, at) + 1 });
        }
        (_, Some(tag)) if is_pattern(tag) => Kind::Tag(tag),
        (name, None) if is_pattern(name) => Kind::Name(name),
        _ => return Err(wrong(word)),
    };
    Ok((kind, word.len()))
}

fn is_pattern(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '*' | '?');
    !text.is_empty() && text.chars().all(plain)
}

struct Parser<'a> {
    text: &'a str,
    tokens: Vec<Token<'a>>,
    next: usize,
    depth: usize,
}

impl<'a> Parser<'a> {
    fn peek(&self) -> Option<Token<'a>> {
        self.tokens.get(self.next).copied()
    }

    fn take(&mut self, kind: Kind<'_>) -> bool {
        let is_it = self.peek().is_some_and(|token| token.kind == kind);
        self.next += usize::from(is_it);
        is_it
    }

    fn any(&mut self) -> Result<Expression, SelectionError> {
        let mut parts = vec![self.all()?];
        while self.take(Kind::Or) {
            parts.push(self.all()?);
        }
        Ok(Expression::any(parts))
    }

    fn all(&mut self) -> Result<Expression, SelectionError> {
        let mut parts = vec![self.one()?];
        while self.take(Kind::And) {
            parts.push(self.one()?);
        }
        Ok(Expression::all(parts))
    }

    /// One part, and that nothing stands beside it without a word between them.
    fn one(&mut self) -> Result<Expression, SelectionError> {
        let Some(token) = self.peek() else { return Err(self.empty(self.text.len())) };
        self.next += 1;
        let part = match token.kind {
            Kind::Or | Kind::And | Kind::Close => return Err(self.empty(token.at)),
            Kind::Name(name) => Expression::Term(Term::Name(name.to_owned())),
            Kind::Tag(tag) => Expression::Term(Term::Tag(tag.to_owned())),
            Kind::Not => Expression::Not(Box::new(self.deeper(Self::one)?)),
            Kind::Open => {
                let inner = self.deeper(Self::any)?;
                if !self.take(Kind::Close) {
                    return Err(SelectionError::Unclosed {
                        selector: self.text.to_owned(),
                        at: position(self.text, token.at),
                    });
                }
                inner
            }
        };
        match self.peek() {
            Some(Token { end, kind: Kind::Open | Kind::Not | Kind::Name(_) | Kind::Tag(_), .. }) => {
                Err(SelectionError::NotATerm {
                    part: self.text[token.at..end].to_owned(),
                    at: position(self.text, token.at),
                    selector: self.text.to_owned(),
                })
            }
            None | Some(Token { kind: Kind::Close | Kind::Or | Kind::And, .. }) => Ok(part),
        }
    }

    fn deeper(
        &mut self,
        inner: fn(&mut Self) -> Result<Expression, SelectionError>,
    ) -> Result<Expression, SelectionError> {
        if self.depth == DEEPEST {
            return Err(SelectionError::TooDeep { selector: self.text.to_owned(), deepest: DEEPEST });
        }
        self.depth += 1;
        let expression = inner(self)?;
        self.depth -= 1;
        Ok(expression)
    }

    fn empty(&self, byte: usize) -> SelectionError {
        SelectionError::Empty { selector: self.text.to_owned(), at: position(self.text, byte) }
    }
}
