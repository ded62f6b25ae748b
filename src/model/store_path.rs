//! Nix store paths: what was built, and what it is built from. A derivation cannot be taken for its output.

parsed_string!(
    /// An output in the Nix store, `/nix/store/HASH-NAME`.
    StorePath,
    "store path",
    "/nix/store/ followed by 32 base-32 digits, '-' and a name",
    |text| is_store_path(text) && !text.ends_with(".drv")
);

parsed_string!(
    /// A derivation in the Nix store, `/nix/store/HASH-NAME.drv`.
    DrvPath,
    "derivation path",
    "/nix/store/ followed by 32 base-32 digits, '-' and a name that ends in .drv",
    |text| is_store_path(text) && text.ends_with(".drv")
);

impl StorePath {
    /// The part after the hash, for example `nixos-system-web1-24.11`.
    pub fn name(&self) -> &str {
        &self.as_str()[STORE.len() + HASH + 1..]
    }

    /// The 32 digits that tell two builds with one name apart.
    pub fn hash(&self) -> &str {
        &self.as_str()[STORE.len()..STORE.len() + HASH]
    }
}

impl DrvPath {
    /// The part after the hash, for example `nixos-system-web1-24.11.drv`.
    pub fn name(&self) -> &str {
        &self.as_str()[STORE.len() + HASH + 1..]
    }
}

const STORE: &str = "/nix/store/";
const HASH: usize = 32;

/// Alphabet and length limit of names: Nix manual, "Store Path".
fn is_store_path(text: &str) -> bool {
    let Some(base) = text.strip_prefix(STORE) else { return false };
    let Some((hash, name)) = base.split_at_checked(HASH) else { return false };
    let Some(name) = name.strip_prefix('-') else { return false };
    let digit =
        |b: u8| b.is_ascii_digit() || (b.is_ascii_lowercase() && !matches!(b, b'e' | b'o' | b'u' | b't'));
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.' | b'_' | b'?' | b'=');
    hash.bytes().all(digit) && !name.is_empty() && name.len() <= 211 && name.bytes().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_derivation_is_not_an_output() {
        let out = "/nix/store/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa-nixos-system-web1-24.11";
        let path: StorePath = out.parse().unwrap();
        assert_eq!(path.name(), "nixos-system-web1-24.11");
        assert!(out.parse::<DrvPath>().is_err());
        assert!(format!("{out}.drv").parse::<StorePath>().is_err());
        assert!(format!("{out}.drv").parse::<DrvPath>().is_ok());
    }

    #[test]
    fn what_is_not_in_the_store_is_refused() {
        for bad in [
            "/etc/passwd",
            "/nix/store/short-x",
            "/nix/store/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
            "/nix/store/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa-a/b",
        ] {
            assert!(bad.parse::<StorePath>().is_err(), "{bad}");
        }
    }
}
