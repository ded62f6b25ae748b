//! URLs of sources and what git prints of them, as bytes, for [`crate::fuzz`]. Asserts that no secret is shown.

use super::url::{local_path, scrubbed, shown};

/// The first line is a URL, the rest is what git says. A password of the URL is in neither afterwards.
pub(crate) fn url(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let (url, said) = text.split_once('\n').unwrap_or((&text, ""));
    let _ = local_path(url);
    let seen = shown(url);
    let lines: Vec<String> = said.lines().map(|line| scrubbed(line, url)).collect();
    let Some(password) = password(url) else { return };
    assert!(!seen.contains(password), "{url:?} is shown as {seen:?}");
    for line in lines {
        assert!(!line.contains(password), "{url:?} is in {line:?}");
    }
}

/// The password of an `https` URL, if it is one that cannot stand in the rest of the URL or in ordinary words.
fn password(url: &str) -> Option<&str> {
    let rest = url.strip_prefix("https://")?;
    let (user_info, host) = rest.split(['/', '?', '#']).next()?.rsplit_once('@')?;
    let (user, password) = user_info.split_once(':')?;
    let telling = password.len() >= 8 && password.bytes().all(|byte| byte.is_ascii_alphanumeric());
    let elsewhere = [user, host, &rest[user_info.len()..]].iter().any(|part| part.contains(password));
    (telling && !elsewhere).then_some(password)
}
