//! `driftless secrets list`: which node has which secret, from where, whose it becomes, and whether it can be had here.
//! Opens encrypted files and looks for plain ones; runs no command, and shows nothing of what it sees.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Result, bail};
use serde::Serialize;

use super::shown;
use crate::cli::direct::Direct;
use crate::cli::fleet::{self, LookArgs};
use crate::cli::output::{self, Format};
use crate::cli::table::{Cell, Table};
use crate::cli::{Global, secrets};
use crate::error_chain::error_chain;
use crate::model::name::NodeName;
use crate::model::node::NodeSpec;
use crate::model::secret::{AgeFile, Decrypt, SecretName, SecretSpec, Source};
use crate::model::store_path::StorePath;
use crate::secrets::{Keyring, ciphertext};

/// One secret of one node.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Row<'a> {
    node: &'a NodeName,
    secret: &'a SecretName,
    #[serde(flatten)]
    spec: &'a SecretSpec,
    /// Whether the system uses it, where the system is built.
    used: Option<bool>,
    /// To whom it is encrypted, the node included.
    recipients: BTreeSet<String>,
    /// Why it cannot be had here, if so.
    problem: Option<String>,
}

/// Lists; an error names the nodes that are not known.
pub async fn run(global: &Global, args: LookArgs) -> Result<ExitCode> {
    let fleet::Chosen { specs, without } = fleet::specs(global, &args.fleet).await?;
    let here = Direct::prepare(global)?;
    let mut rows = Vec::new();
    for (node, spec) in &specs {
        let closure = closure(&here, spec).await;
        for (secret, declared) in &spec.secrets {
            rows.push(Row {
                node,
                secret,
                spec: declared,
                used: closure.as_ref().map(|closure| closure.contains(&declared.marker)),
                recipients: recipients(spec, declared),
                problem: problem(&here.keyring, secret, declared),
            });
        }
    }
    match args.format {
        Format::Text => output::print(&table(&rows).render(output::width()))?,
        Format::Json => output::print_json(&rows)?,
    }
    if without.is_empty() { Ok(ExitCode::SUCCESS) } else { bail!("{}", without.join("\n")) }
}

async fn closure(here: &Direct, spec: &NodeSpec) -> Option<BTreeSet<StorePath>> {
    if spec.secrets.is_empty() || !Path::new(spec.toplevel.as_str()).exists() {
        return None;
    }
    Some(here.nix.requisites(&spec.toplevel).await.ok()?.iter().cloned().collect())
}

fn recipients(spec: &NodeSpec, secret: &SecretSpec) -> BTreeSet<String> {
    let Source::Age(age) = &secret.source else { return BTreeSet::new() };
    let own = secrets::of_node(spec).filter(|(other, _)| *other == age).filter_map(|(_, keys)| keys);
    own.flatten().chain(age.recipients.iter().cloned()).collect()
}

fn problem(keyring: &Keyring, name: &SecretName, secret: &SecretSpec) -> Option<String> {
    match &secret.source {
        Source::Command(_) => None,
        Source::File(path) => std::fs::File::open(path).err().map(|error| error.to_string()),
        Source::Age(age) => match ciphertext(name, age) {
            Err(error) => Some(error_chain(&error)),
            Ok(bytes) => keyring.decrypt(&bytes).err().map(|error| error_chain(&error)),
        },
    }
}

fn table(rows: &[Row]) -> Table<7> {
    let mut table = Table::new(["NODE", "SECRET", "OWNER", "MODE", "USED", "FROM", "HERE"]);
    for row in rows {
        let used = match row.used {
            Some(true) => "yes",
            Some(false) => "no",
            None => "not built",
        };
        let here = match (&row.problem, &row.spec.source) {
            (None, Source::Command(_)) => "not tried".to_owned(),
            (None, Source::File(_)) => "can be read".to_owned(),
            (None, Source::Age(_)) => "can be decrypted".to_owned(),
            // Whoever deploys need not be able to.
            (Some(_), Source::Age(AgeFile { decrypt: Decrypt::Node, stored: Some(_), .. })) => {
                "only the node decrypts it".to_owned()
            }
            (Some(problem), Source::File(_) | Source::Command(_) | Source::Age(_)) => problem.clone(),
        };
        let owner = format!("{}:{}", row.spec.user, row.spec.group);
        let cells = [
            row.node.as_str(),
            row.secret.as_str(),
            &owner,
            row.spec.mode.as_str(),
            used,
            &from(row.spec),
            &here,
        ];
        table.push(cells.map(Cell::plain));
    }
    table
}

fn from(secret: &SecretSpec) -> String {
    match &secret.source {
        Source::File(path) => shown(Path::new(path)),
        Source::Command(words) => format!("`{}`", words.join(" ")),
        Source::Age(age) => {
            let by = match age.decrypt {
                Decrypt::Controller => "",
                Decrypt::Node => " (by the node)",
            };
            format!("{}{by}", shown(Path::new(&age.file)))
        }
    }
}
