//! Which paths differ between a commit and what was looked at before. Only reads the clone.

use std::collections::BTreeSet;

use git2::{ErrorCode, ObjectType, Oid, Repository, Tree};

use super::{Source, SourceError, blocking};
use crate::model::revision::Revision;

impl Source {
    /// The paths, below the top of the repository, in which a revision differs from an earlier tree or commit; `None`
    /// where the clone does not have that any more.
    pub async fn changed(&self, from: &str, to: &Revision) -> Result<Option<BTreeSet<String>>, SourceError> {
        let (source, from, to) = (self.clone(), from.to_owned(), to.tree.clone());
        blocking(move || {
            let repository = source.repository()?;
            let paths = || match (tree(&repository, &from)?, tree(&repository, &to)?) {
                (Some(old), Some(new)) => differences(&repository, &old, &new).map(Some),
                (None | Some(_), None) | (None, Some(_)) => Ok(None),
            };
            paths().map_err(|error| source.broken(error))
        })
        .await
    }
}

/// The tree of an id that a tree or a commit has.
fn tree<'a>(repository: &'a Repository, id: &str) -> Result<Option<Tree<'a>>, git2::Error> {
    let Ok(id) = Oid::from_str(id) else { return Ok(None) };
    match repository.find_object(id, None).and_then(|object| object.peel(ObjectType::Tree)) {
        Ok(tree) => Ok(tree.into_tree().ok()),
        Err(error) if error.code() == ErrorCode::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn differences(repository: &Repository, old: &Tree, new: &Tree) -> Result<BTreeSet<String>, git2::Error> {
    let diff = repository.diff_tree_to_tree(Some(old), Some(new), None)?;
    let files = diff.deltas().flat_map(|delta| {
        [delta.old_file().path_bytes(), delta.new_file().path_bytes()].map(|path| path.map(<[u8]>::to_vec))
    });
    Ok(files.flatten().map(|path| String::from_utf8_lossy(&path).into_owned()).collect())
}
