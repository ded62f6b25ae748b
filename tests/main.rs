//! The one integration binary.

mod nix_library;
