//! What deciding costs: the figures of the last `cargo bench --bench plan`, read from where criterion leaves them.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::table::{Bound, Table};

/// Adds them to the table, or says how to get them.
pub fn read(table: &mut Table) {
    let rows = [
        ("plan", "plan() of 10 000 nodes with 20 switches each", Some(10.0)),
        ("plan in waves", "the same in three waves that soak", None),
        ("views", "10 000 decisions in words", None),
        ("publish", "publishing 10 000 nodes", None),
    ];
    for (name, what, most) in rows {
        let Some(median) = median(name) else {
            table.put(what, "`cargo bench --bench plan` tells".into(), Bound::None);
            continue;
        };
        let bound = most.map_or(Bound::None, |most| Bound::met(&format!("< {most} ms"), median < most));
        table.put(what, format!("{median:.1} ms"), bound);
    }
}

/// Milliseconds.
fn median(name: &str) -> Option<f64> {
    // Cargo runs benchmarks in the package's folder; criterion asks cargo where its target folder is.
    let target = std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into());
    let file = Path::new(&target).join("criterion/10000 nodes").join(name).join("new/estimates.json");
    let estimates: Value = serde_json::from_slice(&fs::read(file).ok()?).ok()?;
    Some(estimates["median"]["point_estimate"].as_f64()? / 1e6)
}
